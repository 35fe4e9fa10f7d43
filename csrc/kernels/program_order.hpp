// Instructions of programs that give places along an axis of in [outer, n, inner], as numbers of T.
#pragma once

#include "program_axis.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

template <int L, class T>
void argmax(T* out, const T* in, Axis axis) {
  constexpr int W = full_lanes<T>;
  using V = Full<T>;
  const int64_t n = axis.n, inner = axis.inner * L;
  for (int64_t o = 0; o < axis.outer; ++o, in += n * inner, out += inner) {
    if (L > 1 || inner > 1) {
      for (int64_t j = 0; j < inner; j += W) {
        V best = load<V>(in + j), place{};
        for (int64_t i = 1; i < n; ++i) {
          const V x = load<V>(in + i * inner + j);
          const auto better = (x > best) | ((x != x) & (best == best));
          best = better ? x : best;
          place = better ? splat<V>(T(i)) : place;
        }
        store(out + j, place, int(min(W, inner - j)));
      }
    } else {
      const T best = fold_lanes<Largest>(fold_row<V>(Elements<Largest, T>{in}, n));
      int64_t i = 0;
      if (best == best)
        while (i < n && in[i] != best) ++i;
      else
        while (i < n && in[i] == in[i]) ++i;
      out[0] = T(i);
    }
  }
}

// Whether place i with x comes before place j with y.
template <class T>
FUSEDRNN_INLINE bool before(T x, int64_t i, T y, int64_t j) {
  if (x != x || y != y) return y != y && (x == x || i < j);
  return x < y || (x == y && i < j);
}

// Sorts the places 0 to n - 1 in place: for axes so long that counting would be slow.
template <class T>
void heap_sort(T* out, const T* in, int64_t n, int64_t stride) {
  const auto less = [&](T i, T j) {
    return before(in[int64_t(i) * stride], int64_t(i), in[int64_t(j) * stride], int64_t(j));
  };
  const auto sift = [&](int64_t hole, int64_t size) {
    const T moved = out[hole * stride];
    for (int64_t child; (child = 2 * hole + 1) < size; hole = child) {
      if (child + 1 < size && less(out[child * stride], out[(child + 1) * stride])) ++child;
      if (!less(moved, out[child * stride])) break;
      out[hole * stride] = out[child * stride];
    }
    out[hole * stride] = moved;
  };
  for (int64_t i = 0; i < n; ++i) out[i * stride] = T(i);
  for (int64_t i = n / 2 - 1; i >= 0; --i) sift(i, n);
  for (int64_t size = n - 1; size > 0; --size) {
    const T last = out[size * stride];
    out[size * stride] = out[0];
    out[0] = last;
    sift(0, size);
  }
}

// The place of element i in ascending order is the number of elements that come before it: n compares for each, which
// vectors do for many at once.
template <int L, class T>
void argsort(T* out, const T* in, Axis axis) {
  constexpr int W = full_lanes<T>;
  constexpr int64_t longest = 1024;
  using V = Full<T>;
  using I = typename Traits<V>::IntegerVector;
  const int64_t n = axis.n, inner = axis.inner * L;
  for (int64_t o = 0; o < axis.outer; ++o, in += n * inner, out += n * inner) {
    if (n > longest) {
      for (int64_t j = 0; j < inner; ++j) heap_sort(out + j, in + j, n, inner);
    } else if (L > 1 || inner > 1) {
      for (int64_t j = 0; j < inner; j += W) {
        const int count = int(min(W, inner - j));
        for (int64_t i = 0; i < n; ++i) {
          const V x = load<V>(in + i * inner + j);
          const I not_a_number = x != x;
          I rank{};  // counts down, for a mask is -1
          for (int64_t k = 0; k < i; ++k) rank += (load<V>(in + k * inner + j) <= x) | not_a_number;
          for (int64_t k = i + 1; k < n; ++k) {
            const V y = load<V>(in + k * inner + j);
            rank += (y < x) | (not_a_number & (y == y));
          }
          for (int l = 0; l < count; ++l) out[-int64_t(rank[l]) * inner + j + l] = T(i);
        }
      }
    } else {
      for (int64_t i = 0; i < n; i += W) {
        const V x = load<V>(in + i);
        const I not_a_number = x != x;
        const I number = lane_numbers<V>();
        I rank{};
        for (int64_t k = 0; k < n; ++k) {
          const V y = splat<V>(in[k]);
          const I earlier = number > (typename Traits<V>::I(k - i) - I{});
          rank += (y < x) | (earlier & (y == x)) | (not_a_number & (earlier | (y == y)));
        }
        for (int l = 0; l < min(W, n - i); ++l) out[-int64_t(rank[l])] = T(i + l);
      }
    }
  }
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
