// The contract between core and the products in low precision. They have a table of their own, for one more instruction
// set has instructions for them and shares all other kernels with the set below it.
//
// Elements of low precision travel in words of 32 bits, two bfloat16 or four int8 each, the first in the lowest bits.
#pragma once

#include "table.hpp"

namespace fusedrnn {

// One factor of a product, rounded: to[r] holds the words of from[r], each as `row_words` words.
struct RoundRows {
  int64_t rows, depth;
  const float* from;  // [rows, depth]
  int64_t stride;
  uint32_t* to;  // [rows, words of depth * row_words]
  int64_t to_stride;
  float* scales;  // [rows], of a scaled format
};

// out = (bias | out) + x W'.
struct LowPrecisionProduct {
  int64_t rows, units;
  Part part;
  Operand<uint32_t> x;      // rows as RoundRows leaves them, panels [word][vectors][lanes]; depth counts words
  const float* x_scales;    // [rows], of a scaled format
  const float* scales;      // [units], likewise, with room for whole vectors
  const uint32_t* offsets;  // as scales: what the sum has too much, since rows are shifted to be unsigned
  const float* bias;        // [units]; null: add to what is in out
  float* out;               // [rows, units]
  int64_t out_stride;
};

struct LowPrecision {
  int elements;   // of a word
  int row_words;  // that rows have for each: this instruction set may want them unpacked
  bool scaled;
  // A row of weights [depth] in words, not unpacked, and its scale.
  void (*weights)(int64_t depth, const float* from, uint32_t* to, float* scale);
  void (*rows)(const RoundRows&);
  void (*product)(const LowPrecisionProduct&);
};

struct LowPrecisionTable {
  int lanes;
  LowPrecision bfloat16, int8;
};

}  // namespace fusedrnn
