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

// Gate cells: for each vector of units [k][gates][lanes], from w [gates * units, depth] rows gate * units + unit.
// With narrow tails the last panel has only the lanes that its units need, so that its gates share vectors.
// dst holds padded(units) * gates * depth elements.
template <class T>
void pack_gates(T* dst, const T* w, int64_t depth, int64_t units, int gates, const KernelTable<T>& kernels,
                bool narrow_tail) {
  const int lanes = kernels.lanes;
  const double elements = double(units * gates) * double(depth);
  parallel_for(padded(units, lanes) / lanes, flops_per_element_moved * elements, [&](int64_t panel) {
    const int64_t unit = panel * lanes;
    const int64_t width = narrow_tail ? tail_lanes<T>(units - unit, lanes) : lanes;
    const int64_t count = std::min<int64_t>(width, units - unit);
    T* const to = dst + unit * depth * gates;
    for (int g = 0; g < gates; ++g)
      kernels.transpose(
          {count, depth, w + (g * units + unit) * depth, depth, to + g * width, gates * width, width, false});
  });
}

// Dense cells, for each panel of consecutive units [k][width]; dst holds padded(units) * depth elements, the panel of
// `unit` at unit * depth. y = x w': w [units, depth].
template <class T>
void pack_rows(T* dst, const T* w, int64_t depth, int64_t units, const KernelTable<T>& kernels) {
  for_panels(units, kernels.lanes, double(units * depth), [&](int64_t unit, int64_t width, int64_t count) {
    kernels.transpose({count, depth, w + unit * depth, depth, dst + unit * depth, width, width, false});
  });
}

// dx = dy w: w [depth, units].
template <class T>
void pack_columns(T* dst, const T* w, int64_t depth, int64_t units, int lanes) {
  for_panels(units, lanes, double(units * depth), [&](int64_t unit, int64_t width, int64_t count) {
    T* to = dst + unit * depth;
    for (int64_t k = 0; k < depth; ++k, to += width)
      std::fill(std::copy_n(w + k * units + unit, count, to), to + width, T(0));
  });
}

// Sum of two optional biases, [n].
template <class T>
void add_biases(T* dst, const T* a, const T* b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) dst[i] = (a ? a[i] : T(0)) + (b ? b[i] : T(0));
}

// Start values of the gate cells, [panel][gates][lanes], from gates * units values.
template <class T>
void pack_bias(T* dst, const T* bias, int64_t units, int gates, const KernelTable<T>& kernels, bool narrow_tail) {
  pack_gates(dst, bias, 1, units, gates, kernels, narrow_tail);
}

}  // namespace fusedrnn
