// What the time loops of all cells share: the order of steps, blocks of steps that stay in the cache, and the
// rows that enter each step.
#pragma once

#include <algorithm>
#include <cstring>

#include "cells.hpp"

namespace fusedrnn {

// Elements of gates or of their gradients that a block of steps may hold: about a megabyte or two.
constexpr int64_t block_elements = int64_t(1) << 18;

// A gate product with few rows cannot reuse its weights from the cache, so the input's share of all steps of a
// block is computed first. With more rows one loop over [x, h] is as fast and touches less memory.
constexpr int64_t separate_input_rows = 16, separate_inputs = 8;

inline bool input_product_first(const Shape& s) {
  return s.batch < separate_input_rows && s.inputs >= separate_inputs && s.steps > 1;
}

class Steps {
 public:
  Steps(const Shape& shape, bool reverse, int64_t elements_per_row)
      : steps_(shape.steps),
        reverse_(reverse),
        block_(std::clamp<int64_t>(block_elements / std::max<int64_t>(1, shape.batch * elements_per_row), 1,
                                   shape.steps)) {}

  // The time at which step s runs.
  int64_t time(int64_t s) const { return reverse_ ? steps_ - 1 - s : s; }
  int64_t block() const { return block_; }
  // Steps [first, last) cover the times [time_from, time_from + last - first).
  int64_t time_from(int64_t first, int64_t last) const { return reverse_ ? steps_ - last : first; }

 private:
  int64_t steps_;
  bool reverse_;
  int64_t block_;
};

template <class T>
void copy(T* to, const T* from, int64_t n) {
  if (n > 0) std::memcpy(to, from, std::size_t(n) * sizeof(T));
}

template <class T>
void copy_or_zero(T* to, const T* from, int64_t n) {
  if (from)
    copy(to, from, n);
  else
    std::fill_n(to, n, T(0));
}

}  // namespace fusedrnn
