// Weights in the order in which the tiles read them: panel by panel, and within a panel all the vectors for
// k = 0, then k = 1, ... Units beyond the last are zero.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../kernels/table.hpp"
#include "parallel.hpp"

namespace fusedrnn {

inline int64_t padded(int64_t units, int lanes) { return (units + lanes - 1) / lanes * lanes; }

// f(first unit, width, units of it that exist) for each panel of a dense product over `units` units; on several threads
// where that many elements in all are moved.
template <class F>
void for_panels(int64_t units, int lanes, double elements, F f) {
  const int64_t n = padded(units, lanes) / lanes;
  parallel_for(dense_panels(n), flops_per_element_moved * elements, [&](int64_t i) {
    const int64_t first = dense_panel_first(n, i) * lanes, width = dense_panel_first(n, i + 1) * lanes - first;
    f(first, width, std::min(width, units - first));
  });
}

// dst[k * dst_stride + l] = w[l * unit_stride + k * k_stride], zero for l from count to width. In blocks of k, since a
// walk across rows that lie a power of two apart would find one set of the cache again and again.
template <class T>
void pack_panel(T* dst, int64_t dst_stride, const T* w, int64_t unit_stride, int64_t k_stride, int64_t depth,
                int64_t count, int64_t width) {
  constexpr int64_t block = 16;
  for (int64_t k0 = 0; k0 < depth; k0 += block) {
    const int64_t k1 = std::min(depth, k0 + block);
    for (int64_t l = 0; l < count; ++l)
      for (int64_t k = k0; k < k1; ++k) dst[k * dst_stride + l] = w[l * unit_stride + k * k_stride];
    for (int64_t k = k0; k < k1; ++k)
      for (int64_t l = count; l < width; ++l) dst[k * dst_stride + l] = T(0);
  }
}

// Gate cells: for each vector of units [k][gates][lanes], from w [gates * units, depth] rows gate * units + unit.
// With narrow tails the last panel has only the lanes that its units need, so that its gates share vectors.
// dst holds padded(units) * gates * depth elements.
template <class T>
void pack_gates(T* dst, const T* w, int64_t depth, int64_t units, int gates, int lanes, bool narrow_tail) {
  const double elements = double(units * gates) * double(depth);
  parallel_for(padded(units, lanes) / lanes, flops_per_element_moved * elements, [&](int64_t panel) {
    const int64_t unit = panel * lanes;
    const int64_t width = narrow_tail ? tail_lanes<T>(units - unit, lanes) : lanes;
    const int64_t count = std::min<int64_t>(width, units - unit);
    T* const to = dst + unit * depth * gates;
    for (int g = 0; g < gates; ++g)
      pack_panel(to + g * width, gates * width, w + (g * units + unit) * depth, depth, 1, depth, count, width);
  });
}

// Dense cells: for each panel of consecutive units [k][width]; element (unit, k) of the weights is
// w[unit * unit_stride + k * k_stride]. dst holds padded(units) * depth elements, the panel of `unit` at unit * depth.
template <class T>
void pack_dense(T* dst, const T* w, int64_t unit_stride, int64_t k_stride, int64_t depth, int64_t units, int lanes) {
  for_panels(units, lanes, double(units * depth), [&](int64_t unit, int64_t width, int64_t count) {
    pack_panel(dst + unit * depth, width, w + unit * unit_stride, unit_stride, k_stride, depth, count, width);
  });
}

// y = x w': w [units, depth].
template <class T>
void pack_rows(T* dst, const T* w, int64_t depth, int64_t units, int lanes) {
  pack_dense(dst, w, depth, 1, depth, units, lanes);
}

// dx = dy w: w [depth, units].
template <class T>
void pack_columns(T* dst, const T* w, int64_t depth, int64_t units, int lanes) {
  pack_dense(dst, w, 1, units, depth, units, lanes);
}

// Sum of two optional biases, [n].
template <class T>
void add_biases(T* dst, const T* a, const T* b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) dst[i] = (a ? a[i] : T(0)) + (b ? b[i] : T(0));
}

// Start values of the gate cells, [panel][gates][lanes], from gates * units values.
template <class T>
void pack_bias(T* dst, const T* bias, int64_t units, int gates, int lanes, bool narrow_tail) {
  pack_gates(dst, bias, 1, units, gates, lanes, narrow_tail);
}

}  // namespace fusedrnn
