// Products of programs. Each result is one chain of multiply-adds by ascending k, whatever tile it falls into: a row
// has the same bits in any layout. Long sums with a vector are 16 chains (program_vectors.hpp).
#pragma once

#include "program_moves.hpp"
#include "program_table.hpp"
#include "program_vectors.hpp"
#include "transpose.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

constexpr bool many_registers = vector_registers == 32;

// Within each of L rows: R times C results of one vector of rows. No number is shared between lanes, so that results
// share the loads of their rows and columns instead.
template <int R, int C, class T>
FUSEDRNN_NOINLINE void lanes_tile(T* out, const T* a, const T* b, const RowProduct& s) {
  constexpr int L = program_lanes;
  using V = Full<T>;
  for (int l = 0; l < L; l += full_lanes<T>) {
    V acc[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) acc[r][c] = s.add ? load<V>(out + (r * s.out_m + c * s.out_n) * L + l) : V{};
    const T *pa = a + l, *pb = b + l;
    for (int64_t k = 0; k < s.k; ++k, pa += s.a_k * L, pb += s.b_k * L) {
      V v[C];
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) v[c] = load<V>(pb + c * s.b_n * L);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const V u = load<V>(pa + r * s.a_m * L);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) acc[r][c] = fma(u, v[c], acc[r][c]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) store(out + (r * s.out_m + c * s.out_n) * L + l, acc[r][c]);
  }
}

template <int R, int C, class T>
FUSEDRNN_INLINE void lanes_rows(T* out, const T* a, const T* b, const RowProduct& s) {
  constexpr int L = program_lanes;
  int64_t i = 0;
  for (; i + R <= s.m; i += R) lanes_tile<R, C>(out + i * s.out_m * L, a + i * s.a_m * L, b, s);
  for (; i < s.m; ++i) lanes_tile<1, C>(out + i * s.out_m * L, a + i * s.a_m * L, b, s);
}

template <class T>
void lanes_product(T* out, const T* a, const T* b, const RowProduct& s) {
  constexpr int L = program_lanes, R = 4, C = many_registers ? 4 : 3, wide = 8;
  for (int64_t batch = 0; batch < s.batch; ++batch) {
    T* const o = out + batch * s.out_batch * L;
    const T *const pa = a + batch * s.a_batch * L, *const pb = b + batch * s.b_batch * L;
    int64_t j = 0;
    if (s.m == 1)
      for (; j + wide <= s.n; j += wide) lanes_tile<1, wide>(o + j * s.out_n * L, pa, pb + j * s.b_n * L, s);
    for (; j + C <= s.n; j += C) lanes_rows<R, C>(o + j * s.out_n * L, pa, pb + j * s.b_n * L, s);
    for (; j < s.n; ++j) lanes_rows<wide, 1>(o + j * s.out_n * L, pa, pb + j * s.b_n * L, s);
  }
}

// One row, L = 1: lanes hold neighbouring columns n, whose b is contiguous; a is broadcast.
struct Tile {
  int64_t depth, a_m, a_k, b_k, out_m, out_n;
  bool add;
};

template <class V>
FUSEDRNN_INLINE void store_part(Scalar<V>* p, V v, int64_t count, int64_t stride) {
  constexpr int W = lanes_of<V>;
  if (stride == 1) {
    store_first(p, v, count);
  } else {
    for (int l = 0; l < min(W, count); ++l) p[l * stride] = v[l];
  }
}

template <class V>
FUSEDRNN_INLINE V load_part(const Scalar<V>* p, int64_t count, int64_t stride) {
  constexpr int W = lanes_of<V>;
  if (stride == 1) return load<V>(p);
  V v{};
  for (int l = 0; l < min(W, count); ++l) v[l] = p[l * stride];
  return v;
}

// R rows times `count` columns in P vectors.
template <int R, int P, class T>
FUSEDRNN_NOINLINE void row_tile(T* out, const T* a, const T* b, int64_t count, const Tile& s) {
  constexpr int W = full_lanes<T>;
  using V = Full<T>;
  V acc[R][P];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p)
      acc[r][p] = s.add ? load_part<V>(out + r * s.out_m + p * W * s.out_n, count - p * W, s.out_n) : V{};
  for (int64_t k = 0; k < s.depth; ++k, a += s.a_k, b += s.b_k) {
    V v[P];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) v[p] = load<V>(b + p * W);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V u = splat<V>(a[r * s.a_m]);
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) acc[r][p] = fma(u, v[p], acc[r][p]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) store_part(out + r * s.out_m + p * W * s.out_n, acc[r][p], count - p * W, s.out_n);
}

template <int P, class T>
FUSEDRNN_INLINE void row_group(T* out, const T* a, const T* b, int64_t m, int64_t count, const Tile& s) {
  int64_t i = 0;
  for (; i + 4 <= m; i += 4) row_tile<4, P>(out + i * s.out_m, a + i * s.a_m, b, count, s);
  for (; i + 2 <= m; i += 2) row_tile<2, P>(out + i * s.out_m, a + i * s.a_m, b, count, s);
  if (i < m) row_tile<1, P>(out + i * s.out_m, a + i * s.a_m, b, count, s);
}

// b's columns from one on as vectors, [depth][W]; `count` columns are left.
template <class T>
FUSEDRNN_NOINLINE void pack_columns(T* panel, const T* b, int64_t count, int64_t depth, int64_t b_n, int64_t b_k) {
  constexpr int W = full_lanes<T>;
  using V = Full<T>;
  int64_t k = 0;
  if (b_k == 1)
    for (; k < depth; k += W) {  // beyond the depth the panel has room, and values end with a vector's
      V v[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) v[i] = load<V>(b + min(i, count - 1) * b_n + k);
      transpose_block(v);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) store(panel + (k + i) * W, v[i]);
    }
  for (; k < depth; ++k)
    for (int i = 0; i < W; ++i) panel[k * W + i] = b[min(i, count - 1) * b_n + k * b_k];
}

template <class T>
void row_product(T* out, const T* a, const T* b, const RowProduct& shape) {
  constexpr int W = full_lanes<T>;
  constexpr int64_t block = 256;  // of a packed panel
  RowProduct s = shape;
  // Lanes hold columns; the product of the transposes makes columns of rows. A few columns would leave lanes empty.
  const bool columns = s.n > 1 && s.b_n == 1, rows = s.m > 1 && s.a_m == 1, few = s.n * 4 <= W && s.m >= W;
  if (few || (!columns && (rows || s.n == 1 || (s.m > 1 && s.out_n != 1)))) {
    const T* const kept = a;
    a = b;
    b = kept;
    s = {s.batch,   s.n,   s.m,   s.k,         s.b_batch, s.b_n,   s.b_k,
         s.a_batch, s.a_k, s.a_m, s.out_batch, s.out_n,   s.out_m, s.add};
  }
  const bool packed = s.n > 1 && s.b_n != 1;
  T panel[block * W];
  for (int64_t batch = 0; batch < s.batch; ++batch) {
    T* const o = out + batch * s.out_batch;
    const T *const pa = a + batch * s.a_batch, *const pb = b + batch * s.b_batch;
    if (s.n == 1) {  // and m: a chain of scalars
      Tile tile{s.k, 0, s.a_k, s.b_k, 0, 1, s.add};
      row_tile<1, 1>(o, pa, pb, 1, tile);
      continue;
    }
    int64_t j = 0;
    if (!packed) {
      const Tile tile{s.k, s.a_m, s.a_k, s.b_k, s.out_m, s.out_n, s.add};
      if (s.m < 4)
        for (; j + 3 * W < s.n; j += 4 * W)
          for (int64_t i = 0; i < s.m; ++i)
            row_tile<1, 4>(o + i * s.out_m + j * s.out_n, pa + i * s.a_m, pb + j, s.n - j, tile);
      for (; j + W < s.n; j += 2 * W) row_group<2>(o + j * s.out_n, pa, pb + j, s.m, s.n - j, tile);
      for (; j < s.n; j += W) row_group<1>(o + j * s.out_n, pa, pb + j, s.m, s.n - j, tile);
      continue;
    }
    for (; j < s.n; j += W) {
      int64_t k = 0;
      do {
        const int64_t depth = min(block, s.k - k);
        pack_columns(panel, pb + j * s.b_n + k * s.b_k, s.n - j, depth, s.b_n, s.b_k);
        const Tile tile{depth, s.a_m, s.a_k, W, s.out_m, s.out_n, s.add || k > 0};
        row_group<1>(o + j * s.out_n, pa + k * s.a_k, panel, s.m, s.n - j, tile);
        k += depth;
      } while (k < s.k);
    }
  }
}

template <int L, class T>
void product(T* out, const T* a, const T* b, const RowProduct& s) {
  if (is_vector_product(s)) {
    const VectorProduct<T> vector = as_vector_product<T>(s);
    const bool swapped = s.m != 1;
    for (int64_t i = 0; i < s.batch; ++i) {
      const T *const x = a + i * s.a_batch * L, *const y = b + i * s.b_batch * L;
      vector_product<L>(out + i * s.out_batch * L, swapped ? y : x, swapped ? x : y, vector);
    }
    return;
  }
  if constexpr (L == 1)
    row_product(out, a, b, s);
  else
    lanes_product(out, a, b, s);
}

// Weights that all rows share. A tile has some units and two vectors of rows, from two blocks where one fills L.
template <class T>
constexpr bool two_blocks = full_lanes<T> == program_lanes;

// One of the tile's two streams of rows.
template <class T>
struct Stream {
  const T* x;
  T* out;
};

template <int U, int X, class T>
FUSEDRNN_NOINLINE void lane_affine_tile(const Stream<T> (&streams)[2], const T* w, int64_t step, int64_t depth,
                                        const T* bias, bool add) {
  constexpr int L = program_lanes;
  using V = Full<T>;
  V acc[U][X];
#pragma GCC unroll 12
  for (int u = 0; u < U; ++u)
#pragma GCC unroll 2
    for (int i = 0; i < X; ++i) acc[u][i] = add ? load<V>(streams[i].out + u * L) : bias ? splat<V>(bias[u]) : V{};
  const T *x0 = streams[0].x, *x1 = streams[X - 1].x;
  for (int64_t k = 0; k < depth; ++k, x0 += L, x1 += L, w += step) {
    const V v[2] = {load<V>(x0), load<V>(x1)};
#pragma GCC unroll 12
    for (int u = 0; u < U; ++u) {
      const V b = splat<V>(w[u]);
#pragma GCC unroll 2
      for (int i = 0; i < X; ++i) acc[u][i] = fma(b, v[i], acc[u][i]);
    }
  }
#pragma GCC unroll 12
  for (int u = 0; u < U; ++u)
#pragma GCC unroll 2
    for (int i = 0; i < X; ++i) store(streams[i].out + u * L, acc[u][i]);
}

template <int n>
struct Units {
  static constexpr int count = n;
};

// The units of a packed tile from `unit` on, by pieces that fit the registers.
template <int U, int X, class T>
FUSEDRNN_INLINE void lane_affine_units(Stream<T> (&streams)[2], const T* w, int64_t units, int64_t depth, const T* bias,
                                       bool add) {
  constexpr int L = program_lanes;
  const int64_t step = units;
  int64_t left = units;
  const auto piece = [&](auto size) {
    constexpr int S = decltype(size)::count;
    for (; left >= S; left -= S, w += S, bias = bias ? bias + S : bias) {
      lane_affine_tile<S, X>(streams, w, step, depth, bias, add);
      for (Stream<T>& s : streams) s.out += S * L;
    }
  };
  piece(Units<U>{});
  piece(Units<4>{});
  piece(Units<2>{});
  piece(Units<1>{});
}

template <class T>
void lane_affine(const LaneAffine<T>& s) {
  constexpr int L = program_lanes, W = full_lanes<T>, U = many_registers ? 12 : 6;
  const int64_t items = s.blocks * s.m;
  for (int64_t unit = 0; unit < s.units; unit += lane_tile) {
    const int64_t units = min(lane_tile, s.units - unit);
    const T *const w = s.weights + unit * s.depth, *const bias = s.bias ? s.bias + unit : nullptr;
    int64_t block = 0, row = 0;  // of the next item
    const auto next = [&]() -> Stream<T> {
      const Stream<T> stream{s.x + block * s.x_block + row * s.depth * L,
                             s.out + block * s.out_block + (row * s.units + unit) * L};
      if (++row == s.m) row = 0, ++block;
      return stream;
    };
    for (int64_t item = 0; item < items; ++item) {
      Stream<T> streams[2];
      streams[0] = next();
      if constexpr (two_blocks<T>) {
        if (item + 1 == items) {
          streams[1] = streams[0];
          lane_affine_units<U, 1>(streams, w, units, s.depth, bias, s.add);
          break;
        }
        streams[1] = next();
        ++item;
        lane_affine_units<U, 2>(streams, w, units, s.depth, bias, s.add);
      } else {
        const Stream<T> whole = streams[0];
        for (int l = 0; l < L; l += 2 * W) {
          streams[0] = {whole.x + l, whole.out + l};
          streams[1] = {whole.x + l + W, whole.out + l + W};
          lane_affine_units<U, 2>(streams, w, units, s.depth, bias, s.add);
        }
      }
    }
  }
}

// weights: element (unit, k) at unit * stride_unit + k * stride_depth. Vectors of units are written whole, for what
// follows overwrites what is too much.
template <class T>
void pack_lane_weights(T* to, const T* w, int64_t units, int64_t depth, int64_t stride_unit, int64_t stride_depth) {
  constexpr int W = full_lanes<T>, groups = int(lane_tile + W - 1) / W;
  using V = Full<T>;
  const T* const end = to + units * depth;
  for (int64_t unit = 0; unit < units; unit += lane_tile) {
    const int64_t n = min(lane_tile, units - unit);
    const T* const from = w + unit * stride_unit;
    int64_t k = 0;
    if (stride_depth == 1)
      for (; k + W <= depth; k += W) {
        V v[groups][W];
        for (int g = 0; g * W < n; ++g) {
#pragma GCC unroll 16
          for (int i = 0; i < W; ++i) v[g][i] = load<V>(from + min(g * W + i, n - 1) * stride_unit + k);
          transpose_block(v[g]);
        }
        for (int i = 0; i < W; ++i, to += n)
          for (int g = 0; g * W < n; ++g) store_first(to + g * W, v[g][i], end - to - g * W);
      }
    else if (stride_unit == 1 && stride_depth > 0)
      for (; k < depth && (k - depth + 1) * stride_depth <= units - unit - groups * W;
           ++k, to += n)  // reads within the weights
        copy_run(to, from + k * stride_depth, n, end);
    for (; k < depth; ++k)
      for (int64_t u = 0; u < n; ++u) *to++ = from[u * stride_unit + k * stride_depth];
  }
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
