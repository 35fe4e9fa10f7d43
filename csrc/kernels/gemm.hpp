// Gradients of weights: sums over all rows (steps times batch) of an outer product. The gates of a row fill the
// vectors and the inputs are broadcast, so that narrow inputs waste nothing.
#pragma once

#include "simd.hpp"
#include "table.hpp"
#include "tile.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// Rows further apart than this are copied together first: they would evict each other from the cache.
constexpr int64_t distant_bytes = 512;

// out[m][..] += sum over rows of a[row, m] * b[row, ..] for M inputs and P vectors.
template <int M, int P, class T>
FUSEDRNN_INLINE void outer_tile(int64_t rows, const T* a, int64_t a_stride, const T* b, int64_t b_stride, T* out,
                                int64_t out_stride, int64_t columns) {
  using V = Vector<T, full_lanes<T>>;
  constexpr int W = lanes_of<V>;
  V acc[M][P] = {};
  for (int64_t row = 0; row < rows; ++row) {
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
      const int n = int(min(W, columns - p * W));
      T* o = out + m * out_stride + p * W;
      store(o, load<V>(o, n) + acc[m][p], n);
    }
}

// Inputs [rows, inputs], either as they lie or packed in groups of tile_rows(P) and its halves.
template <class T>
struct Inputs {
  const T* data;
  int64_t stride;
  int64_t rows;
  bool packed;
};

template <int M, int P, class T>
FUSEDRNN_INLINE void outer_groups(const Inputs<T>& inputs, int64_t k, int64_t size, const T* b, int64_t b_stride,
                                  T* out, int64_t out_stride, int64_t columns) {
  for (; size - k >= M; k += M) {
    const T* a = inputs.packed ? inputs.data + k * inputs.rows : inputs.data + k;
    outer_tile<M, P>(inputs.rows, a, inputs.packed ? M : inputs.stride, b, b_stride, out + k * out_stride, out_stride,
                     columns);
  }
  if constexpr (M > 1) outer_groups<M / 2, P>(inputs, k, size, b, b_stride, out, out_stride, columns);
}

constexpr int outer_inputs = vector_registers == 32 ? 8 : 4;

// Group by group of 4 (8) inputs and the halves at the end, each group's rows one after another.
template <int M, class T>
FUSEDRNN_INLINE void pack_inputs(const T* inputs, int64_t stride, int64_t rows, int64_t k, int64_t size, T* packed) {
  for (; size - k >= M; k += M)
    for (int64_t row = 0; row < rows; ++row)
      for (int m = 0; m < M; ++m) packed[k * rows + row * M + m] = inputs[row * stride + k + m];
  if constexpr (M > 1) pack_inputs<M / 2>(inputs, stride, rows, k, size, packed);
}

template <class T>
void column_sums(int64_t rows, const T* b, int64_t b_stride, int64_t columns, T* out) {
  using V = Vector<T, full_lanes<T>>;
  for (int64_t c = 0; c < columns; c += lanes_of<V>) {
    const int n = int(min(lanes_of<V>, columns - c));
    V sum{};
    for (int64_t row = 0; row < rows; ++row) sum += load<V>(b + row * b_stride + c, n);
    store(out + c, load<V>(out + c, n) + sum, n);
  }
}

template <class T>
void weight_gradient(const WeightGradient<T>& g) {
  constexpr int W = full_lanes<T>;
  T* const strip = g.scratch;                                          // [chunk, 3 W], at most 48 lanes
  T* const packed_inputs = g.scratch + weight_gradient_chunk * 3 * W;  // [chunk * input_size]
  for (int64_t row = 0; row < g.rows; row += weight_gradient_chunk) {
    const int64_t rows = min(weight_gradient_chunk, g.rows - row);
    const T* source = g.inputs + row * g.input_stride;
    Inputs<T> inputs{source, g.input_stride, rows, g.input_stride * int64_t(sizeof(T)) > distant_bytes};
    if (inputs.packed) {
      pack_inputs<outer_inputs>(source, g.input_stride, rows, 0, g.input_size, packed_inputs);
      inputs.data = packed_inputs;
    }
    for (int64_t column = g.first; column < g.last;) {
      const int vectors = dense_panel_vectors((g.last - column + W - 1) / W);
      const int64_t columns = min(int64_t(vectors) * W, g.last - column);
      const T* b = g.dgates + row * g.dgates_stride + column;
      int64_t b_stride = g.dgates_stride;
      if (columns < vectors * W || b_stride * int64_t(sizeof(T)) > distant_bytes) {
        for (int64_t r = 0; r < rows; ++r)
          for (int p = 0; p < vectors; ++p)
            store(strip + (r * vectors + p) * W,
                  load<Vector<T, W>>(b + r * b_stride + p * W, int(min(W, columns - p * W))));
        b = strip;
        b_stride = vectors * W;
      }
      T* out = g.out + column;
      if (vectors == 3)
        outer_groups<outer_inputs, 3>(inputs, 0, g.input_size, b, b_stride, out, g.out_stride, columns);
      else if (vectors == 2)
        outer_groups<outer_inputs, 2>(inputs, 0, g.input_size, b, b_stride, out, g.out_stride, columns);
      else
        outer_groups<outer_inputs, 1>(inputs, 0, g.input_size, b, b_stride, out, g.out_stride, columns);
      if (g.bias_out) column_sums(rows, b, b_stride, columns, g.bias_out + column);
      column += columns;
    }
  }
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
