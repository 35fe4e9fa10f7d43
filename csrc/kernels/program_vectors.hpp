// Products with a vector whose sums are long: out [n] = (or +=) a [k] times b [k, n], within each row.
//
// A sum is that of 16 chains of multiply-adds (index mod 16), added in pairs as program_table.hpp says of sums: one
// row holds them side by side in vectors, where b lies along k; else they follow each other, each over all columns.
#pragma once

#include "program_axis.hpp"
#include "program_table.hpp"
#include "transpose.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// Sums shorter than this are one chain: there is little to share out.
constexpr int64_t long_sum = 32;

template <class T>
struct VectorProduct {
  int64_t n, k, a_k, b_k, b_n, out_n;
  bool add;
};

// Whether a product is one of these, and as which.
FUSEDRNN_INLINE bool is_vector_product(const RowProduct& s) { return (s.m == 1 || s.n == 1) && s.k >= long_sum; }

template <class T>
FUSEDRNN_INLINE VectorProduct<T> as_vector_product(const RowProduct& s) {
  if (s.m == 1) return {s.n, s.k, s.a_k, s.b_k, s.b_n, s.out_n, s.add};
  return {s.m, s.k, s.b_k, s.a_k, s.a_m, s.out_m, s.add};
}

// Chains one after the other, four at a time whose places are 4 apart: C columns, each a vector of V. `stride` is that
// of an element in memory.
template <class V, int C, class Load>
FUSEDRNN_INLINE void column_chains(V (&sum)[C], int64_t k, Load load_terms) {
  V part[4][C];
#pragma GCC unroll 1
  for (int first = 0; first < 4; ++first) {
    V chain[4][C] = {};
    int64_t i = first;
    for (; i + 12 < k; i += chains)
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) load_terms(i + 4 * q, chain[q]);
#pragma GCC unroll 4
    for (int q = 0; q < 3; ++q)
      if (i + 4 * q < k) load_terms(i + 4 * q, chain[q]);
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) part[first][c] = (chain[0][c] + chain[2][c]) + (chain[1][c] + chain[3][c]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < C; ++c) sum[c] = (part[0][c] + part[2][c]) + (part[1][c] + part[3][c]);
}

// C results of each of L rows.
template <int C, class T>
FUSEDRNN_NOINLINE void lanes_vector_tile(T* out, const T* a, const T* b, const VectorProduct<T>& s) {
  constexpr int L = program_lanes;
  using V = Full<T>;
  for (int l = 0; l < L; l += full_lanes<T>) {
    V sum[C];
    column_chains<V>(sum, s.k, [&](int64_t k, V(&chain)[C]) __attribute__((always_inline)) {
      const V u = load<V>(a + k * s.a_k * L + l);
      const T* const row = b + k * s.b_k * L + l;
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) chain[c] = fma(u, load<V>(row + c * s.b_n * L), chain[c]);
    });
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      T* const to = out + c * s.out_n * L + l;
      store(to, s.add ? load<V>(to) + sum[c] : sum[c]);
    }
  }
}

template <class T>
void lanes_vector_product(T* out, const T* a, const T* b, const VectorProduct<T>& s) {
  constexpr int L = program_lanes, C = vector_registers == 32 ? 4 : 2;
  int64_t j = 0;
  for (; j + C <= s.n; j += C) lanes_vector_tile<C>(out + j * s.out_n * L, a, b + j * s.b_n * L, s);
  for (; j < s.n; ++j) lanes_vector_tile<1>(out + j * s.out_n * L, a, b + j * s.b_n * L, s);
}

// One row: P vectors of columns, which lie side by side.
template <int P, class T>
FUSEDRNN_NOINLINE void across_tile(T* out, const T* a, const T* b, int64_t count, const VectorProduct<T>& s) {
  using V = Full<T>;
  constexpr int W = full_lanes<T>;
  V sum[P];
  column_chains<V>(sum, s.k, [&](int64_t k, V(&chain)[P]) __attribute__((always_inline)) {
    const V u = splat<V>(a[k * s.a_k]);
    const T* const row = b + k * s.b_k;
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) chain[p] = fma(u, load<V>(row + p * W), chain[p]);
  });
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    const int64_t left = count - p * W;
    T* const to = out + p * W * s.out_n;
    if (s.out_n == 1) {
      store_first(to, s.add ? load<V>(to) + sum[p] : sum[p], left);
    } else {
      for (int l = 0; l < min(W, left); ++l) to[l * s.out_n] = s.add ? to[l * s.out_n] + sum[p][l] : sum[p][l];
    }
  }
}

template <class T>
void across_product(T* out, const T* a, const T* b, const VectorProduct<T>& s) {
  constexpr int W = full_lanes<T>, P = vector_registers == 32 ? 4 : 2;
  int64_t j = 0;
  for (; j + (P - 1) * W < s.n; j += P * W) across_tile<P>(out + j * s.out_n, a, b + j, s.n - j, s);
  if constexpr (P > 2)
    for (; j + W < s.n; j += 2 * W) across_tile<2>(out + j * s.out_n, a, b + j, s.n - j, s);
  for (; j < s.n; j += W) across_tile<1>(out + j * s.out_n, a, b + j, s.n - j, s);
}

// One row, R columns along k, 1 apart in a and b: chains side by side, folded until one vector is left of each.
template <int R, class T>
FUSEDRNN_INLINE void along_tile(Full<T> (&found)[R], const T* a, const T* b, const VectorProduct<T>& s) {
  using V = Full<T>;
  using I = typename Traits<V>::I;
  constexpr int W = full_lanes<T>, K = chains / W;
  V chain[R][K] = {};
  int64_t i = 0;
  for (; i + chains <= s.k; i += chains)
#pragma GCC unroll 8
    for (int q = 0; q < K; ++q) {
      const V u = load<V>(a + i + q * W);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) chain[r][q] = fma(u, load<V>(b + r * s.b_n + i + q * W), chain[r][q]);
    }
  if (i < s.k) {
    const auto lane = lane_numbers<V>();
#pragma GCC unroll 8
    for (int q = 0; q < K; ++q)
      if (const int64_t rest = s.k - i - q * W; rest > 0) {
        const auto inside = lane < I(min(rest, W)) - decltype(lane){};
        const V u = load<V>(a + i + q * W);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
          chain[r][q] = inside ? fma(u, load<V>(b + r * s.b_n + i + q * W), chain[r][q]) : chain[r][q];
      }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 3
    for (int apart = K / 2; apart > 0; apart /= 2)
#pragma GCC unroll 4
      for (int q = 0; q < apart; ++q) chain[r][q] = chain[r][q] + chain[r][q + apart];
    found[r] = chain[r][0];
  }
}

template <class T>
FUSEDRNN_INLINE void put_sum(T& to, T sum, bool add) {
  to = add ? to + sum : sum;
}

template <class T>
FUSEDRNN_NOINLINE void along_product(T* out, const T* a, const T* b, const VectorProduct<T>& s) {
  using V = Full<T>;
  constexpr int W = full_lanes<T>, R = W < 4 ? W : 4;
  int64_t j = 0;
  for (; j + W <= s.n; j += W) {  // chain c of W columns side by side, then as within a vector
    V v[W];
    for (int r = 0; r < W; r += R) {
      V part[R];
      along_tile<R>(part, a, b + (j + r) * s.b_n, s);
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) v[r + i] = part[i];
    }
    transpose_block(v);
#pragma GCC unroll 4
    for (int apart = W / 2; apart > 0; apart /= 2)
#pragma GCC unroll 8
      for (int q = 0; q < apart; ++q) v[q] = v[q] + v[q + apart];
    if (s.out_n == 1) {
      store(out + j, s.add ? load<V>(out + j) + v[0] : v[0]);
    } else {
      for (int l = 0; l < W; ++l) put_sum(out[(j + l) * s.out_n], v[0][l], s.add);
    }
  }
  for (; j + R <= s.n; j += R) {
    V part[R];
    along_tile<R>(part, a, b + j * s.b_n, s);
    for (int i = 0; i < R; ++i) put_sum(out[(j + i) * s.out_n], fold_lanes<Adding>(part[i]), s.add);
  }
  for (; j < s.n; ++j) {
    V part[1];
    along_tile<1>(part, a, b + j * s.b_n, s);
    put_sum(out[j * s.out_n], fold_lanes<Adding>(part[0]), s.add);
  }
}

// One row, whatever strides there are.
template <class T>
FUSEDRNN_NOINLINE void scattered_product(T* out, const T* a, const T* b, const VectorProduct<T>& s) {
  for (int64_t j = 0; j < s.n; ++j) {
    T chain[chains] = {};
    for (int64_t k = 0; k < s.k; ++k)
      chain[k % chains] = fma_scalar(a[k * s.a_k], b[k * s.b_k + j * s.b_n], chain[k % chains]);
    for (int apart = chains / 2; apart > 0; apart /= 2)
      for (int q = 0; q < apart; ++q) chain[q] = chain[q] + chain[q + apart];
    put_sum(out[j * s.out_n], chain[0], s.add);
  }
}

template <int L, class T>
void vector_product(T* out, const T* a, const T* b, const VectorProduct<T>& s) {
  if constexpr (L > 1)
    lanes_vector_product(out, a, b, s);
  else if (s.a_k == 1 && s.b_k == 1)
    along_product(out, a, b, s);
  else if (s.b_n == 1 && s.n > 1)
    across_product(out, a, b, s);
  else
    scattered_product(out, a, b, s);
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
