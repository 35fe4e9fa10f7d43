// Instructions of programs that bring elements elsewhere, and the way of rows into blocks and out of them.
#pragma once

#include "program_table.hpp"
#include "random.hpp"
#include "transpose.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// n neighbours. What lies between them and `end` may be overwritten.
template <class T>
FUSEDRNN_INLINE void copy_run(T* out, const T* in, int64_t n, const T* end) {
  for (int64_t i = 0; i < n; i += full_lanes<T>) store_first(out + i, load<Full<T>>(in + i), end - out - i);
}

template <class T>
FUSEDRNN_INLINE void add_run(T* out, const T* in, int64_t n) {
  using V = Full<T>;
  for (int64_t i = 0; i < n; i += full_lanes<T>) store_first(out + i, load<V>(out + i) + load<V>(in + i), n - i);
}

template <class T>
FUSEDRNN_INLINE void fill_run(T* out, T value, int64_t n, const T* end) {
  const Full<T> v = splat<Full<T>>(value);
  for (int64_t i = 0; i < n; i += full_lanes<T>) store_first(out + i, v, end - out - i);
}

// n elements of L rows with strides in elements of T.
template <int L, class T>
FUSEDRNN_INLINE void move_run(T* out, int64_t out_stride, const T* in, int64_t in_stride, int64_t n, bool add) {
  if (in_stride == L && out_stride == L) {
    if (add)
      add_run(out, in, n * L);
    else
      copy_run(out, in, n * L, out + n * L);
  } else if (L > 1) {
    for (int64_t i = 0; i < n; ++i, out += out_stride, in += in_stride)
      if (add)
        add_run(out, in, L);
      else
        copy_run(out, in, L, out + L);
  } else if (!add && in_stride == 0 && out_stride == 1) {
    fill_run(out, *in, n, out + n);
  } else {
    for (int64_t i = 0; i < n; ++i, out += out_stride, in += in_stride) *out = add ? *out + *in : *in;
  }
}

// The axes of a move without those of one element, neighbours joined where both sides go on evenly.
struct Axes {
  int dims = 0;
  int64_t size[move_dims + 1], out[move_dims + 1], in[move_dims + 1];

  FUSEDRNN_INLINE void push(int64_t n, int64_t out_stride, int64_t in_stride) {
    if (n == 1) return;
    if (dims > 0 && out[dims - 1] == n * out_stride && in[dims - 1] == n * in_stride) {
      size[dims - 1] *= n;
      out[dims - 1] = out_stride;
      in[dims - 1] = in_stride;
      return;
    }
    size[dims] = n;
    out[dims] = out_stride;
    in[dims] = in_stride;
    ++dims;
  }
  FUSEDRNN_INLINE void swap(int a, int b) {
    const auto exchange = [&](int64_t* list) {
      const int64_t kept = list[a];
      list[a] = list[b];
      list[b] = kept;
    };
    exchange(size);
    exchange(out);
    exchange(in);
  }
};

// f(out offset, in offset) for each place of the first `dims` axes.
template <class F>
FUSEDRNN_INLINE void for_places_of(const Axes& axes, int dims, F f) {
  int64_t place[move_dims + 1] = {}, to = 0, from = 0;
  for (;;) {
    f(to, from);
    int d = dims - 1;
    for (; d >= 0; --d) {
      to += axes.out[d];
      from += axes.in[d];
      if (++place[d] < axes.size[d]) break;
      to -= place[d] * axes.out[d];
      from -= place[d] * axes.in[d];
      place[d] = 0;
    }
    if (d < 0) return;
  }
}

template <int L, class T>
void move(T* out, const T* in, const Move& m) {
  Axes axes;
  for (int d = 0; d < m.dims; ++d) {
    if (m.size[d] == 0) return;
    axes.push(m.size[d], m.out_stride[d] * L, m.in_stride[d] * L);
  }
  if (axes.dims == 0) return move_run<L>(out, L, in, L, 1, m.add);
  const int last = axes.dims - 1;
  if constexpr (L > 1) {  // writes far apart, in the same sets of the cache often, cost more than such reads
    const auto far = [&](int d) { return axes.out[d] < 0 ? -axes.out[d] : axes.out[d]; };
    for (int d = 0; d < last; ++d)
      if (far(d) < far(last)) axes.swap(d, last);
  } else {
    // One side contiguous along the last axis, the other along another one: transposes in registers.
    const bool gathers = axes.out[last] == 1 && axes.in[last] != 1,
               scatters = axes.in[last] == 1 && axes.out[last] != 1;
    int other = -1;
    if (gathers || scatters)
      for (int d = 0; d < last; ++d)
        if ((gathers ? axes.in[d] : axes.out[d]) == 1) other = d;
    if (other >= 0) {
      axes.swap(other, last - 1);
      const int rows = gathers ? last : last - 1, columns = gathers ? last - 1 : last;
      return for_places_of(axes, last - 1, [&](int64_t to, int64_t from) {
        transpose<T>({axes.size[rows], axes.size[columns], in + from, axes.in[rows], out + to, axes.out[columns],
                      axes.size[rows], m.add});
      });
    }
  }
  for_places_of(axes, last, [&](int64_t to, int64_t from) {
    move_run<L>(out + to, axes.out[last], in + from, axes.in[last], axes.size[last], m.add);
  });
}

// Of an array [.., n] of one row whose elements follow each other or are one: whole vectors, each over what the one
// before wrote too much. The last goes beyond `count`, for which a register has room.
template <class T>
FUSEDRNN_NOINLINE void broadcast_short_rows(T* out, const T* in, const Broadcast& p, int64_t first, int64_t count) {
  constexpr int W = full_lanes<T>;
  using V = Full<T>;
  const int64_t n = p.size[1];
  int64_t row = first / n, place = first - row * n;
  while (count > 0) {
    const int64_t m = min(count, n - place);
    const T* const from = in + row * p.stride[0];
    if (p.stride[1]) {
      for (int64_t i = 0; i < m; i += W) store(out + i, load<V>(from + place + i));
    } else {
      const V v = splat<V>(*from);
      for (int64_t i = 0; i < m; i += W) store(out + i, v);
    }
    out += m;
    count -= m;
    place = 0;
    ++row;
  }
}

// out is a register of a group: it may be written up to a vector beyond its end.
template <int L, class T>
void broadcast(T* out, const T* in, const Broadcast& pattern, int64_t first, int64_t count) {
  if constexpr (L == 1)
    if (pattern.dims == 2 && (pattern.stride[1] == 0 || pattern.stride[1] == 1))
      return broadcast_short_rows(out, in, pattern, first, count);
  Axes axes;
  for (int d = 0; d < pattern.dims; ++d) axes.push(pattern.size[d], 0, pattern.stride[d] * L);
  if (axes.dims == 0) axes.size[0] = 1, axes.in[0] = L, axes.dims = 1;
  const int last = axes.dims - 1;
  int64_t place[move_dims + 1], from = 0;
  for (int d = last; d > 0; --d) {
    const int64_t above = first / axes.size[d];
    place[d] = first - above * axes.size[d];
    first = above;
    from += place[d] * axes.in[d];
  }
  place[0] = first;
  from += first * axes.in[0];
  const int64_t stride = axes.in[last];
  const T* const end = out + count * L;
  while (count > 0) {
    const int64_t n = min(count, axes.size[last] - place[last]);
    const T* p = in + from;
    if (stride == L) {
      copy_run(out, p, n * L, end);
    } else if (L == 1 && stride == 0) {
      fill_run(out, *p, n, end);
    } else {
      for (int64_t i = 0; i < n; ++i, p += stride)
        if constexpr (L == 1)
          out[i] = *p;
        else
          copy_run(out + i * L, p, L, out + (i + 1) * L);
    }
    out += n * L;
    count -= n;
    from -= place[last] * stride;
    place[last] = 0;
    for (int d = last - 1; d >= 0; --d) {
      from += axes.in[d];
      if (++place[d] < axes.size[d]) break;
      from -= place[d] * axes.in[d];
      place[d] = 0;
    }
  }
}

// Rows and a block: transposes of W by W elements.
template <int L, class T>
void load_rows(T* block, const T* from, int64_t stride, int64_t rows, int64_t width, const T* alive) {
  constexpr int W = full_lanes<T>;
  using V = Full<T>;
  if constexpr (L == 1) {
    if (alive && *alive == T(0))
      fill_run(block, T(0), width, block + width);
    else
      for_vectors_once<T>(width, [&](int64_t i, int n) { store(block + i, load<V>(from + i, n), n); });
  } else {
    const T* row[L];
    bool lives[L];
    for (int l = 0; l < L; ++l) {
      const int64_t r = min(l, rows - 1);
      row[l] = from + r * stride;
      lives[l] = !alive || alive[r] != T(0);
    }
    int64_t w = 0;
    for (; w + W <= width; w += W)
      for (int l = 0; l < L; l += W) {
        V v[W];
#pragma GCC unroll 16
        for (int i = 0; i < W; ++i) v[i] = lives[l + i] ? load<V>(row[l + i] + w) : V{};
        transpose_block(v);
#pragma GCC unroll 16
        for (int i = 0; i < W; ++i) store(block + (w + i) * L + l, v[i]);
      }
    for (; w < width; ++w)
      for (int l = 0; l < L; ++l) block[w * L + l] = lives[l] ? row[l][w] : T(0);
  }
}

// The first rows of a transposed block, zeros where a row is not alive.
template <class V, class T>
FUSEDRNN_NOINLINE void store_some(T* to, int64_t stride, const V (&v)[lanes_of<V>], int64_t rows, const T* alive) {
  for (int64_t i = 0; i < rows; ++i, to += stride) store(to, alive && alive[i] == T(0) ? V{} : v[i]);
}

template <int L, class T>
void store_rows(T* to, int64_t stride, int64_t rows, const T* block, int64_t width, const T* alive) {
  constexpr int W = full_lanes<T>;
  using V = Full<T>;
  if constexpr (L == 1) {
    if (alive && *alive == T(0))
      fill_run(to, T(0), width, to + width);
    else
      copy_run(to, block, width, to + width);
  } else {
    int64_t w = 0;
    for (; w + W <= width; w += W)
      for (int l = 0; l < rows; l += W) {
        V v[W];
#pragma GCC unroll 16
        for (int i = 0; i < W; ++i) v[i] = load<V>(block + (w + i) * L + l);
        transpose_block(v);
        T* p = to + l * stride + w;
        if (!alive && l + W <= rows) {  // without a question for each row, all stay in registers
#pragma GCC unroll 16
          for (int i = 0; i < W; ++i, p += stride) store(p, v[i]);
        } else {
          store_some(p, stride, v, min(W, rows - l), alive ? alive + l : nullptr);
        }
      }
    for (int l = 0; l < rows; ++l)
      for (int64_t i = w; i < width; ++i) to[l * stride + i] = alive && alive[l] == T(0) ? T(0) : block[i * L + l];
  }
}

template <int L, class T>
void select(T* out, const T* alive, const T* a, const T* b, int64_t width) {
  constexpr int W = full_lanes<T>;
  using V = Full<T>;
  if constexpr (L == 1) {
    const T* const chosen = *alive != T(0) ? a : b;
    if (out != chosen) copy_run(out, chosen, width, out + width);
  } else {
    for (int l = 0; l < L; l += W) {
      const auto lives = load<V>(alive + l) != V{};
      for (int64_t i = l; i < width * L; i += L) store(out + i, lives ? load<V>(a + i) : load<V>(b + i));
    }
  }
}

template <int L, class T>
void uniform(T* out, int64_t width, uint64_t seed, uint32_t row, uint32_t step, uint32_t stream) {
  uint32_t words[64];
  for (int64_t unit = 0; unit < width; unit += 64)
    for (int l = 0; l < L; ++l) {
      philox(seed, uint32_t(unit / 64), row + uint32_t(l), step, stream, words);
      for (int64_t u = 0; u < min(64, width - unit); ++u)
        out[(unit + u) * L + l] = T(int32_t(words[u] >> 8)) * T(1.0 / 16777216);
    }
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
