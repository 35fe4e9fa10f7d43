// Gradients of weights: sums over all rows (steps times batch) of an outer product. The gates of a row fill the
// vectors and the inputs are broadcast, so that narrow inputs waste nothing.
#pragma once

#include "simd.hpp"
#include "table.hpp"
#include "tile.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// Rows that are fetched while others are summed, one line of each.
template <class T>
struct Ahead {
  const T* rows;
  int64_t stride;
};

// out[m][..] += sum over rows of a[row, m] * b[row, ..] for M inputs and P vectors. out: [M][P][lanes].
template <int M, int P, class T>
FUSEDRNN_INLINE void outer_tile(int64_t rows, const T* a, int64_t a_stride, const T* b, int64_t b_stride, T* out,
                                Ahead<T> ahead) {
  using V = Vector<T, full_lanes<T>>;
  constexpr int W = lanes_of<V>;
  V acc[M][P] = {};
#pragma GCC unroll 32
  for (int i = 0; i < M * P; ++i) prefetch_for_write(out + i * W);  // a large weight's gradient is far away
  for (int64_t row = 0; row < rows; ++row) {
    if constexpr (fetch_ahead) prefetch(ahead.rows + row * ahead.stride);
    V v[P];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) v[p] = load<V>(b + row * b_stride + p * W);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const V s = splat<V>(a[row * a_stride + m]);
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) acc[m][p] = fma(s, v[p], acc[m][p]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      T* const o = out + (m * P + p) * W;
      store(o, load<V>(o) + acc[m][p]);
    }
}

constexpr int outer_inputs = vector_registers == 32 ? 8 : 4;

// The inputs from k on in groups of M and its halves. inputs: [rows, size] rows of the stride, or packed, stride 0.
template <int M, int P, class T>
FUSEDRNN_INLINE void outer_groups(int64_t rows, const T* inputs, int64_t stride, int64_t k, int64_t size, const T* b,
                                  int64_t b_stride, T* out, Ahead<T> ahead) {
  constexpr int W = full_lanes<T>;
  for (; size - k >= M; k += M)
    outer_tile<M, P>(rows, stride ? inputs + k : inputs + k * rows, stride ? stride : M, b, b_stride, out + k * P * W,
                     k / M < P ? Ahead<T>{ahead.rows + k / M * W, ahead.stride} : Ahead<T>{b, 0});
  if constexpr (M > 1) outer_groups<M / 2, P>(rows, inputs, stride, k, size, b, b_stride, out, ahead);
}

// Group by group of 4 (8) inputs and the halves at the end, each group's rows one after another.
template <int M, class T>
FUSEDRNN_INLINE void pack_groups(int64_t rows, const T* inputs, int64_t stride, int64_t k, int64_t size, T* packed) {
  for (; size - k >= M; k += M)
    for (int64_t row = 0; row < rows; ++row)
      __builtin_memcpy(packed + k * rows + row * M, inputs + row * stride + k, M * sizeof(T));
  if constexpr (M > 1) pack_groups<M / 2>(rows, inputs, stride, k, size, packed);
}

template <class T>
void pack_inputs(int64_t rows, int64_t size, const T* inputs, int64_t stride, T* packed) {
  pack_groups<outer_inputs>(rows, inputs, stride, 0, size, packed);
}

// Rows of dgates further apart than this are copied together: they would evict each other from the cache.
constexpr int64_t distant_bytes = 512;

template <int P, class T>
void panel_gradient(const WeightGradient<T>& g) {
  using V = Vector<T, full_lanes<T>>;
  constexpr int W = lanes_of<V>;
  const bool copied = g.columns < P * W || g.dgates_stride * int64_t(sizeof(T)) > distant_bytes;
  for (int64_t row = 0; row < g.rows; row += weight_gradient_chunk) {
    const int64_t rows = min(weight_gradient_chunk, g.rows - row);
    const T* b = g.dgates + row * g.dgates_stride;
    if (copied) {
      for (int64_t r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p)
          store(g.scratch + (r * P + p) * W, load<V>(b + r * g.dgates_stride + p * W, int(min(W, g.columns - p * W))));
      b = g.scratch;
    }
    const int64_t b_stride = copied ? P * W : g.dgates_stride;
    const Ahead<T> next{g.dgates + (row + rows) * g.dgates_stride, g.dgates_stride};  // past the end it is but a hint
    if (g.packed)
      outer_groups<outer_inputs, P>(rows, g.inputs + row * g.input_size, 0, 0, g.input_size, b, b_stride, g.out, next);
    else
      outer_groups<outer_inputs, P>(rows, g.inputs + row * g.input_stride, g.input_stride, 0, g.input_size, b, b_stride,
                                    g.out, next);
    if (!g.bias_out) continue;
    for (int p = 0; p < P; ++p) {
      const int n = int(min(W, g.columns - p * W));
      V sum{};
      for (int64_t r = 0; r < rows; ++r) sum += load<V>(b + r * b_stride + p * W);
      store(g.bias_out + p * W, load<V>(g.bias_out + p * W, n) + sum, n);
    }
  }
}

template <class T>
void weight_gradient(const WeightGradient<T>& g) {
  if (g.vectors == 3)
    panel_gradient<3>(g);
  else if (g.vectors == 2)
    panel_gradient<2>(g);
  else
    panel_gradient<1>(g);
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
