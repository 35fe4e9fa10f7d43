// The tensor cores: the fragments of PTX's mma.m16n8k16 and m16n8k8 gathered from a warp, one product, and back.
//
// Products are exact and their sum is taken in double and rounded to float32 once. Hardware sums with fewer bits than
// that, in an order that is not documented.
#pragma once

#include "numbers.hpp"
#include "primitives.hpp"

namespace fusedrnn::emulator {

struct MmaOperands {
  float (*sums)[4];
  const uint32_t (*a)[4];
  const uint32_t (*b)[2];
};

// a [16, K] and b [K, 8] by way of decode(word, half), `halves` numbers to a word.
template <int K, int halves, class Decode>
void mma(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Where where, Decode decode) {
  MmaOperands mine{&sums, &a, &b};
  collective(Kind::mma, where, mine, [&](MmaOperands* const* operands) {
    float left[16][K], right[8][K];  // right transposed
    for (int lane = 0; lane < lanes; ++lane) {
      const int r = lane / 4, q = lane % 4;
      for (int word = 0; word < 4; ++word)
        for (int half = 0; half < halves; ++half)
          left[r + 8 * (word % 2)][K / 2 * (word / 2) + halves * q + half] = decode((*operands[lane]->a)[word], half);
      for (int word = 0; word < 2; ++word)
        for (int half = 0; half < halves; ++half)
          right[r][K / 2 * word + halves * q + half] = decode((*operands[lane]->b)[word], half);
    }
    for (int lane = 0; lane < lanes; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
        float& sum = (*operands[lane]->sums)[i];
        double exact = sum;
        for (int k = 0; k < K; ++k) exact += double(left[row][k]) * double(right[column][k]);
        sum = float(exact);
      }
  });
}

}  // namespace fusedrnn::emulator
