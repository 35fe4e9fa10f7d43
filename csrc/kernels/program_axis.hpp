// Instructions of programs along an axis: in [outer, n, inner], elements of L rows.
//
// Where vectors hold neighbours across the axis (inner or L above 1) a column is theirs from start to end; else they
// hold numbers along it, and a row of them ends in one. Both combine in the order of the header, so that bits agree.
#pragma once

#include "math.hpp"
#include "program_table.hpp"
#include "transpose.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// What a chain starts from, and how it goes on.
struct Adding {
  template <class T>
  static constexpr T start = T(0);
  template <class V>
  FUSEDRNN_INLINE static V of(V a, V b) {
    return a + b;
  }
};

struct Largest {  // NaN where one is
  template <class T>
  static constexpr T start = T(-__builtin_inf());
  template <class V>
  FUSEDRNN_INLINE static V of(V a, V b) {
    return ((b > a) | (b != b)) ? b : a;
  }
};

constexpr int chains = 16;

// 0, 1, 2, ...
template <class V>
FUSEDRNN_INLINE typename Traits<V>::IntegerVector lane_numbers() {
  typename Traits<V>::IntegerVector lane{};
  for (int l = 0; l < lanes_of<V>; ++l) lane[l] = typename Traits<V>::I(l);
  return lane;
}

FUSEDRNN_INLINE float fma_scalar(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

FUSEDRNN_INLINE double fma_scalar(double a, double b, double c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// A chain takes the elements of an array.
template <class Op_, class T>
struct Elements {
  using Op = Op_;
  const T* in;
  template <class V>
  FUSEDRNN_INLINE V take(V chain, int64_t at) const {
    return Op::of(chain, load<V>(in + at));
  }
  FUSEDRNN_INLINE T take_one(T chain, int64_t at) const { return Op::template of<T>(chain, in[at]); }
  FUSEDRNN_INLINE Elements from(int64_t at) const { return {in + at}; }
};

// A chain takes the products of two arrays' elements.
template <class T>
struct Pairs {
  using Op = Adding;
  const T *x, *y;
  template <class V>
  FUSEDRNN_INLINE V take(V chain, int64_t at) const {
    return fma(load<V>(x + at), load<V>(y + at), chain);
  }
  FUSEDRNN_INLINE T take_one(T chain, int64_t at) const { return fma_scalar(x[at], y[at], chain); }
  FUSEDRNN_INLINE Pairs from(int64_t at) const { return {x + at, y + at}; }
};

// The same order for n <= 4 chains of one element; those that are absent change nothing.
template <class Op, class F, class S>
FUSEDRNN_INLINE S fold_few(int64_t n, F chain, S start) {
  if (n == 0) return start;
  S even = chain(0);
  if (n == 1) return even;
  S odd = chain(1);
  if (n > 2) even = Op::template of<S>(even, chain(2));
  if (n > 3) odd = Op::template of<S>(odd, chain(3));
  return Op::template of<S>(even, odd);
}

// Columns: the elements at 0, stride, ..., n of them, for P vectors of columns side by side. Chains without an element
// are left out: they hold the start, which changes nothing. Four chains at a time, whose places are 4 apart.
template <class V, int P, class Terms>
FUSEDRNN_INLINE void fold_columns(V (&found)[P], const Terms& terms, int64_t n, int64_t stride) {
  using Op = typename Terms::Op;
  constexpr int W = lanes_of<V>;
  const V start = splat<V>(Op::template start<Scalar<V>>);
  if (n <= 4) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
      found[p] = fold_few<Op>(n, [&](int c) { return terms.take(start, c * stride + p * W); }, start);
    return;
  }
  V part[4][P];
#pragma GCC unroll 1
  for (int c = 0; c < 4; ++c) {
    V chain[4][P];
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q)
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) chain[q][p] = start;
    const auto take = [&](int q, int64_t i) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) chain[q][p] = terms.take(chain[q][p], i * stride + p * W);
    };
    int64_t i = c;
    for (; i + 12 < n; i += chains)
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) take(q, i + 4 * q);
#pragma GCC unroll 4
    for (int q = 0; q < 3; ++q)
      if (i + 4 * q < n) take(q, i + 4 * q);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) part[c][p] = Op::of(Op::of(chain[0][p], chain[2][p]), Op::of(chain[1][p], chain[3][p]));
  }
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) found[p] = Op::of(Op::of(part[0][p], part[2][p]), Op::of(part[1][p], part[3][p]));
}

template <class V, class Terms>
FUSEDRNN_INLINE V fold_column(const Terms& terms, int64_t n, int64_t stride) {
  V found[1];
  fold_columns<V, 1>(found, terms, n, stride);
  return found[0];
}

// Rows: n neighbours. Lane c of the result joins the chains c, c + W, ... in their order.
template <class V, class Terms>
FUSEDRNN_INLINE V fold_row(const Terms& terms, int64_t n) {
  using Op = typename Terms::Op;
  using I = typename Traits<V>::I;
  constexpr int W = lanes_of<V>, K = chains / W;
  V chain[K];
#pragma GCC unroll 8
  for (int q = 0; q < K; ++q) chain[q] = splat<V>(Op::template start<Scalar<V>>);
  int64_t i = 0;
  for (; i + chains <= n; i += chains)
#pragma GCC unroll 8
    for (int q = 0; q < K; ++q) chain[q] = terms.take(chain[q], i + q * W);
  if (i < n) {
    const auto lane = lane_numbers<V>();
#pragma GCC unroll 8
    for (int q = 0; q < K; ++q)
      if (const int64_t rest = n - i - q * W; rest > 0)
        chain[q] = lane < I(min(rest, W)) - decltype(lane){} ? terms.take(chain[q], i + q * W) : chain[q];
  }
#pragma GCC unroll 3
  for (int apart = K / 2; apart > 0; apart /= 2)
#pragma GCC unroll 4
    for (int q = 0; q < apart; ++q) chain[q] = Op::of(chain[q], chain[q + apart]);
  return chain[0];
}

template <class Op, class V>
FUSEDRNN_INLINE Scalar<V> fold_lanes(V v) {
  constexpr int half = lanes_of<V> / 2;
  using T = Scalar<V>;
  if constexpr (half == 1) {
    return Op::template of<T>(v[0], v[1]);
  } else {
    using Half = Vector<T, half>;
    return fold_lanes<Op, Half>(Op::of(part_of<Half, 0>(v), part_of<Half, half>(v)));
  }
}

// out [outer, inner].
template <int L, class T, class Terms>
void fold_terms(T* out, Terms terms, Axis axis) {
  constexpr int W = full_lanes<T>;
  using V = Full<T>;
  using Op = typename Terms::Op;
  const int64_t inner = axis.inner * L;
  if (L > 1 || inner > 1) {
    constexpr int P = vector_registers == 32 ? 4 : 2;  // neighbouring lines of each row are read together
    for (int64_t o = 0; o < axis.outer; ++o, terms = terms.from(axis.n * inner), out += inner) {
      int64_t j = 0;
      for (; j + P * W <= inner; j += P * W) {
        V found[P];
        fold_columns<V, P>(found, terms.from(j), axis.n, inner);
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) store(out + j + p * W, found[p]);
      }
      for (; j < inner; j += W) store_first(out + j, fold_column<V>(terms.from(j), axis.n, inner), inner - j);
    }
    return;
  }
  int64_t o = 0;
  if (axis.n <= 4) {  // a vector would be mostly empty
    for (; o < axis.outer; ++o, terms = terms.from(axis.n)) {
      constexpr T start = Op::template start<T>;
      out[o] = fold_few<Op>(axis.n, [&](int c) { return terms.take_one(start, c); }, start);
    }
    return;
  }
  for (; o + W <= axis.outer; o += W) {  // lane c of W rows side by side, then as within a vector
    V v[W];
    for (int r = 0; r < W; ++r) v[r] = fold_row<V>(terms.from((o + r) * axis.n), axis.n);
    transpose_block(v);
#pragma GCC unroll 4
    for (int apart = W / 2; apart > 0; apart /= 2)
#pragma GCC unroll 8
      for (int q = 0; q < apart; ++q) v[q] = Op::of(v[q], v[q + apart]);
    store(out + o, v[0]);
  }
  for (; o < axis.outer; ++o) out[o] = fold_lanes<Op>(fold_row<V>(terms.from(o * axis.n), axis.n));
}

template <class Op, int L, class T>
void fold(T* out, const T* in, Axis axis) {
  fold_terms<L>(out, Elements<Op, T>{in}, axis);
}

// The sum of x y along the axis.
template <int L, class T>
void inner(T* out, const T* x, const T* y, Axis axis) {
  fold_terms<L>(out, Pairs<T>{x, y}, axis);
}

template <int L, class T>
void softmax(T* out, const T* in, Axis axis) {
  constexpr int W = full_lanes<T>;
  using V = Full<T>;
  const int64_t n = axis.n, inner = axis.inner * L;
  for (int64_t o = 0; o < axis.outer; ++o, in += n * inner, out += n * inner) {
    if (L > 1 || inner > 1) {
      for (int64_t j = 0; j < inner; j += W) {
        const int count = int(min(W, inner - j));
        const V largest = fold_column<V>(Elements<Largest, T>{in + j}, n, inner);
        for (int64_t i = 0; i < n; ++i) store(out + i * inner + j, exp(load<V>(in + i * inner + j) - largest), count);
        const V scale = splat<V>(1) / fold_column<V>(Elements<Adding, T>{out + j}, n, inner);
        for (int64_t i = 0; i < n; ++i) store(out + i * inner + j, load<V>(out + i * inner + j) * scale, count);
      }
    } else {
      const V largest = splat<V>(fold_lanes<Largest>(fold_row<V>(Elements<Largest, T>{in}, n)));
      for_vectors_once<T>(n, [&](int64_t i, int count) { store(out + i, exp(load<V>(in + i) - largest), count); });
      const V scale = splat<V>(1) / splat<V>(fold_lanes<Adding>(fold_row<V>(Elements<Adding, T>{out}, n)));
      for_vectors_once<T>(n, [&](int64_t i, int count) { store(out + i, load<V>(out + i) * scale, count); });
    }
  }
}

template <int L, class T>
void recurrence(T* out, const T* a, const T* b, Axis axis, bool reverse) {
  constexpr int W = full_lanes<T>;
  using V = Full<T>;
  const int64_t n = axis.n, inner = axis.inner * L, step = reverse ? -inner : inner;
  if (n == 0) return;
  for (int64_t o = 0; o < axis.outer; ++o) {
    const int64_t first = (o * n + (reverse ? n - 1 : 0)) * inner;
    if (L > 1 || inner > 1) {
      for (int64_t j = 0; j < inner; j += W) {
        const int count = int(min(W, inner - j));
        int64_t at = first + j;
        V y = load<V>(b + at);
        store(out + at, y, count);
        for (int64_t i = 1; i < n; ++i) {
          at += step;
          y = fma(load<V>(a + at), y, load<V>(b + at));
          store(out + at, y, count);
        }
      }
    } else {
      int64_t at = first;
      T y = b[at];
      out[at] = y;
      for (int64_t i = 1; i < n; ++i) {
        at += step;
        y = fma_scalar(a[at], y, b[at]);
        out[at] = y;
      }
    }
  }
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
