// Products of rounded factors, summed without rounding back: what bfloat16 and int8 share. A Format says what a word
// is and how it is multiplied:
//   elements          of a word
//   Sum               a vector of accumulators
//   parts             in which a word is multiplied: 1 where the instruction set takes it whole
//   row_part(word, i), weight_part(words, i)
//   multiply_add(row part, weight part, sum)
//   factor(depth, row, scale)              whatever round() needs to know of a whole row; scale or null
//   round<Weights>(values, factor, to)     a vector of values to memory
//   add(start, sums, product, row, unit)   float32 sums
// Each sum is one chain from zero over the whole depth, then it is added to bias or out: the same bits in any tile.
#pragma once

#include "low_precision_table.hpp"
#include "simd.hpp"
#include "tile.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

using Words = Full<uint32_t>;

template <class Format>
FUSEDRNN_NOINLINE void finish_product(const LowPrecisionProduct& s, const typename Format::Sum* sums, int rows,
                                      int vectors, int64_t unit, int64_t row) {
  using V = Full<float>;
  constexpr int W = lanes_of<V>;
  for (int r = 0; r < rows; ++r)
    for (int p = 0; p < vectors; ++p) {
      const int64_t u = unit + p * W;
      const int count = int(min(W, s.units - u));
      float* const out = s.out + (row + r) * s.out_stride + u;
      const V start = load<V>(s.bias ? s.bias + u : out, count);
      store(out, Format::add(start, sums[r * vectors + p], s, row + r, u), count);
    }
}

// Rows of a tile: where words have parts and registers are 16, a row less than the plain tile, or sums would be
// spilled.
template <class Format>
constexpr int product_tile_rows(int vectors) {
  return vectors == 3 && vector_registers == 16 && Format::parts > 1 ? 3 : tile_rows(vectors);
}

// R rows times Panels panels of P vectors.
template <class Format, int R, int P, int Panels>
FUSEDRNN_INLINE void product_tile(const LowPrecisionProduct& s, int64_t unit, int64_t row) {
  constexpr int W = lanes_of<Words>, parts = Format::parts, line = 64 / int(sizeof(uint32_t)), vectors = Panels * P;
  const uint32_t* const x = s.x.rows + row * s.x.stride;
  const uint32_t* const w = s.x.panels + s.x.depth * unit;
  const uint32_t* const ahead = w + s.x.depth * (P * W + row / tile_rows(P) * line);
  typename Format::Sum acc[R][vectors] = {};
  for (int64_t k = 0; k < s.x.depth; ++k) {
    if constexpr (fetch_ahead && R >= 4) prefetch(ahead + k * line);
#pragma GCC unroll 2
    for (int part = 0; part < parts; ++part) {
      Words v[vectors];
#pragma GCC unroll 8
      for (int p = 0; p < vectors; ++p) {
        const uint32_t* const panel = w + p / P * s.x.depth * P * W;
        v[p] = Format::weight_part(load<Words>(panel + (k * P + p % P) * W), part);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Words b = splat<Words>(x[r * s.x.stride + k * parts + part]);
#pragma GCC unroll 8
        for (int p = 0; p < vectors; ++p) acc[r][p] = Format::multiply_add(b, v[p], acc[r][p]);
      }
    }
  }
  finish_product<Format>(s, &acc[0][0], R, vectors, unit, row);
}

template <class Format, int R, int P>
FUSEDRNN_INLINE void product_rows(const LowPrecisionProduct& s, int64_t unit, int64_t row) {
  // As in row_groups, four rows are not three and a lone one.
  for (; s.rows - row >= R && !(R == 3 && s.rows - row == 4); row += R) product_tile<Format, R, P, 1>(s, unit, row);
  if constexpr (R > 1) product_rows<Format, R == 3 ? 2 : R / 2, P>(s, unit, row);
}

template <class Format>
void low_precision_product(const LowPrecisionProduct& s) {
  constexpr int W = lanes_of<Words>;
  const int64_t all = (s.units + W - 1) / W, panels = dense_panels(all), last = last_panel(s.part, panels);
  const int64_t wide = all % 3 == 0 ? panels : panels - (all % 3 == 1 ? 2 : 1);  // panels of 3 vectors
  int64_t i = first_panel(s.part, panels);
  if (s.rows == 1)  // its three chains would wait for each other
    for (; i + 1 < min(last, wide); i += 2) product_tile<Format, 1, 3, 2>(s, 3 * i * W, 0);
  for (; i < last; ++i) {
    const int64_t first = dense_panel_first(all, i), vectors = dense_panel_first(all, i + 1) - first, unit = first * W;
    if (vectors == 3)
      product_rows<Format, product_tile_rows<Format>(3), 3>(s, unit, 0);
    else if (vectors == 2)
      product_rows<Format, product_tile_rows<Format>(2), 2>(s, unit, 0);
    else
      product_rows<Format, product_tile_rows<Format>(1), 1>(s, unit, 0);
  }
}

// The words of a row: of weights as they are, else in parts. What a last word lacks is zero.
template <class Format, bool Weights>
FUSEDRNN_INLINE void round_row(int64_t depth, const float* from, uint32_t* to, float* scale) {
  using V = Full<float>;
  constexpr int W = lanes_of<V>, elements = Format::elements;
  const float factor = Format::factor(depth, from, scale);
  for (int64_t k = 0; k < depth; k += W * elements) {
    uint32_t words[W];
#pragma GCC unroll 4
    for (int e = 0; e < elements; ++e) {
      const int64_t left = depth - k - e * W;
      const V v = left > 0 ? load<V>(from + k + e * W, int(min(W, left))) : V{};
      Format::template round<Weights>(v, factor, reinterpret_cast<unsigned char*>(words) + e * sizeof words / elements);
    }
    const int64_t count = min(W, (depth - k + elements - 1) / elements);
    for (int64_t i = 0; i < count; ++i)
      if constexpr (Weights)
        *to++ = words[i];
      else
        for (int part = 0; part < Format::parts; ++part) *to++ = Format::row_part(words[i], part);
  }
}

template <class Format>
void round_weights(int64_t depth, const float* from, uint32_t* to, float* scale) {
  round_row<Format, true>(depth, from, to, scale);
}

template <class Format>
void round_rows(const RoundRows& s) {
  for (int64_t r = 0; r < s.rows; ++r)
    round_row<Format, false>(s.depth, s.from + r * s.stride, s.to + r * s.to_stride, s.scales ? s.scales + r : nullptr);
}

template <class Format>
constexpr LowPrecision low_precision{Format::elements,      Format::parts,      Format::scaled,
                                     round_weights<Format>, round_rows<Format>, low_precision_product<Format>};

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
