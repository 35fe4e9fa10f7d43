// Transposes, in blocks that fit the registers: packing weights is one, and so is adding a weight's gradient, which is
// summed the other way round. A block of W x W takes log2 W rounds in which rows W / 2 apart are interleaved.
#pragma once

#include "simd.hpp"
#include "table.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// a0 b0 a1 b1 ... of the lower (upper) halves.
template <bool Upper, class V>
FUSEDRNN_INLINE V interleave(V a, V b) {
  constexpr int W = lanes_of<V>, h = Upper ? W / 2 : 0;
  if constexpr (W == 16)
    return __builtin_shufflevector(a, b, h, h + 16, h + 1, h + 17, h + 2, h + 18, h + 3, h + 19, h + 4, h + 20, h + 5,
                                   h + 21, h + 6, h + 22, h + 7, h + 23);
  else if constexpr (W == 8)
    return __builtin_shufflevector(a, b, h, h + 8, h + 1, h + 9, h + 2, h + 10, h + 3, h + 11);
  else if constexpr (W == 4)
    return __builtin_shufflevector(a, b, h, h + 4, h + 1, h + 5);
  else
    return __builtin_shufflevector(a, b, h, h + 2);
}

template <class V, int W>
FUSEDRNN_INLINE void transpose_block(V (&v)[W]) {
#pragma GCC unroll 4
  for (int round = 1; round < W; round *= 2) {
    V next[W];
#pragma GCC unroll 8
    for (int i = 0; i < W / 2; ++i) {
      next[2 * i] = interleave<false>(v[i], v[i + W / 2]);
      next[2 * i + 1] = interleave<true>(v[i], v[i + W / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) v[i] = next[i];
  }
}

template <class T>
void transpose(const Transpose<T>& s) {
  constexpr int W = full_lanes<T>;
  using V = Vector<T, W>;
  for (int64_t r = 0; r < s.width; r += W) {
    const int64_t rows = min(W, s.rows - r), lanes = min(W, s.width - r);
    const T* const from = s.from + r * s.from_stride;
    T* const to = s.to + r;
    int64_t c = 0;
    for (; c + W <= s.columns; c += W) {
      V v[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) v[i] = i < rows ? load<V>(from + i * s.from_stride + c) : V{};
      transpose_block(v);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) {
        T* const p = to + (c + i) * s.to_stride;
        store(p, s.add ? load<V>(p, int(lanes)) + v[i] : v[i], int(lanes));
      }
    }
    for (; c < s.columns; ++c)
      for (int64_t l = 0; l < lanes; ++l) {
        const T v = l < rows ? from[l * s.from_stride + c] : T(0);
        T& p = to[c * s.to_stride + l];
        p = s.add ? p + v : v;
      }
  }
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
