// The order of steps, the rows that each has, blocks of steps that stay in the cache, and the states that enter them.
//
// All that is special about sequences of uneven length, packed rows, reversed time and states that are reset amid a
// sequence stands here: rows of a step that have the same past form a run, and a cell treats run after run.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "cells.hpp"
#include "parallel.hpp"
#include "scratch.hpp"

namespace fusedrnn {

// Elements of gates or of their gradients that a block of steps may hold: about a megabyte or two; more where the block
// would otherwise have fewer rows than this, since the gradients of wide weights pass through memory once a block.
constexpr int64_t block_elements = int64_t(1) << 18, fewest_block_rows = 512;

// What follows a step for some of its rows: the next one; the next one, but with a state that is reset to zero, so that
// no gradient comes back; nothing, so that it is h_n's gradient that comes.
enum class Next { step, reset, end };

class Steps {
 public:
  Steps(const Shape& shape, bool reverse, int64_t elements_per_row) : shape_(shape), reverse_(reverse) {
    const int64_t N = std::max<int64_t>(1, shape.batch);
    rows_ = std::max(block_elements / elements_per_row, fewest_block_rows);
    block_ = std::clamp<int64_t>(rows_ / N, 1, shape.steps);
    if (!shape.batch_sizes) {
      if (shape.batch == 0) block_ = shape.steps;  // of which there may be any number
      rows_ = block_ * shape.batch;
      return;
    }
    starts_.reserve(std::size_t(shape.steps) + 1);
    starts_.push_back(0);
    for (int64_t s = 0; s < shape.steps; ++s) starts_.push_back(starts_.back() + shape.batch_sizes[s]);
    rows_ = std::min(std::max(rows_, shape.batch), starts_.back());
  }

  // The time at which step s runs.
  int64_t time(int64_t s) const { return reverse_ ? shape_.steps - 1 - s : s; }
  // How many rows step s has; none after the last.
  int64_t rows(int64_t s) const {
    return s == shape_.steps ? 0 : shape_.batch_sizes ? shape_.batch_sizes[s] : shape_.batch;
  }
  // Where they begin, in rows of arrays [T, N, ...].
  int64_t row(int64_t s) const { return uneven() ? starts_[std::size_t(s)] : time(s) * shape_.batch; }
  // The rows of steps [first, last) lie side by side: where they begin, and how many there are.
  int64_t row_from(int64_t first, int64_t last) const {
    return uneven() ? row(first) : (reverse_ ? shape_.steps - last : first) * shape_.batch;
  }
  int64_t count(int64_t first, int64_t last) const {
    return uneven() ? starts_[std::size_t(last)] - row(first) : (last - first) * shape_.batch;
  }

  // Blocks of steps, which have at most block_rows() rows: where the one that begins at `first` ends, and where the one
  // that ends at `last` begins.
  int64_t block_rows() const { return rows_; }
  int64_t block_end(int64_t first) const {
    if (!uneven()) return std::min(shape_.steps, first + block_);
    int64_t last = first + 1;
    while (last < shape_.steps && count(first, last + 1) <= rows_) ++last;
    return last;
  }
  int64_t block_begin(int64_t last) const {
    if (!uneven()) return std::max<int64_t>(0, last - block_);
    int64_t first = last - 1;
    while (first > 0 && count(first - 1, last) <= rows_) --first;
    return first;
  }

  // f(first row, last row, reset) for the rows [a, b) of step s: which of them start it from a state of zero.
  template <class F>
  void runs(int64_t s, int64_t a, int64_t b, F f) const {
    b = std::min(b, rows(s));
    while (a < b) {
      const int64_t end = run_end(s, a, b);
      f(a, end, is_reset(s, a));
      a = end;
    }
  }

  // f(first row, last row, next, reset) for the rows [a, b) of step s: what follows it, and as in runs.
  template <class F>
  void runs_back(int64_t s, int64_t a, int64_t b, F f) const {
    const auto each = [&](int64_t i, int64_t j, Next next) {
      runs(s, i, j, [&](int64_t first, int64_t last, bool reset) { f(first, last, next, reset); });
    };
    const int64_t go_on = rows(s + 1);
    if (a < go_on)
      runs(s + 1, a, b, [&](int64_t i, int64_t j, bool reset) { each(i, j, reset ? Next::reset : Next::step); });
    each(std::max(a, go_on), b, Next::end);
  }

  // f(step, first row, last row): rows whose last step it is.
  template <class F>
  void for_last(F f) const {
    for (int64_t s = uneven() ? 0 : shape_.steps - 1; s < shape_.steps; ++s)
      if (rows(s + 1) < rows(s)) f(s, rows(s + 1), rows(s));
  }

  // The states that entered the steps [first, last), [rows, width] in pieces: f(states, rows, first row of them). They
  // lie in `states`, those before the first step in `initial`, or are gathered into scratch.
  template <class T, class F>
  void previous(int64_t first, int64_t last, int64_t width, const T* initial, const T* states, Scratch& scratch,
                F f) const {
    if (count(first, last) == 0) return f(initial, 0, row_from(first, last));
    if (uneven() || shape_.resets) {
      T* const gathered = scratch.take<T>(count(first, last) * width);
      parallel_for(last - first, flops_per_element_moved * double(count(first, last) * width), [&](int64_t i) {
        const int64_t s = first + i;
        T* const to = gathered + (row(s) - row_from(first, last)) * width;
        const T* const from = s == 0 ? initial : states + row(s - 1) * width;
        runs(s, 0, shape_.batch, [&](int64_t a, int64_t b, bool reset) {
          if (reset)
            zero(to + a * width, (b - a) * width);
          else
            std::copy(from + a * width, from + b * width, to + a * width);
        });
      });
      return f(static_cast<const T*>(gathered), count(first, last), row_from(first, last));
    }
    const int64_t N = shape_.batch, starts = first == 0 ? 1 : 0, rest = last - first - starts;
    if (starts) f(initial, N, row(0));
    if (rest == 0) return;
    const int64_t time = reverse_ ? shape_.steps - last : first + starts;
    f(states + (reverse_ ? time + 1 : time - 1) * N * width, rest * N, time * N);
  }

 private:
  bool uneven() const { return shape_.batch_sizes != nullptr; }
  bool is_reset(int64_t s, int64_t n) const { return shape_.resets && shape_.resets[row(s) + n] != 0; }
  int64_t run_end(int64_t s, int64_t a, int64_t b) const {
    if (!shape_.resets) return b;
    int64_t end = a + 1;
    while (end < b && is_reset(s, end) == is_reset(s, a)) ++end;
    return end;
  }

  Shape shape_;
  bool reverse_;
  int64_t block_, rows_;
  std::vector<int64_t> starts_;  // of uneven steps: the rows before each, and all
};

template <class T>
void copy_or_zero(T* to, const T* from, int64_t n) {
  if (from)
    copy(to, from, n);
  else
    zero(to, n);
}

// h_n or c_n [N, width]: the state after each row's last step, of states in rows of `stride` elements; the initial one
// of a row without steps.
template <class T>
void last_states(const Steps& order, int64_t batch, int64_t width, const T* initial, const T* states, int64_t stride,
                 T* out) {
  order.for_last([&](int64_t s, int64_t a, int64_t b) {
    const T* const from = states + order.row(s) * stride;
    if (stride == width) return copy(out + a * width, from + a * width, (b - a) * width);
    for (int64_t n = a; n < b; ++n) copy(out + n * width, from + n * stride, width);
  });
  const int64_t without = order.rows(0);
  copy(out + without * width, initial + without * width, (batch - without) * width);
}

// The gradients of a block's first step become those that the block before goes on from: rows of `stride` elements.
template <class T>
void hand_on(const Steps& order, int64_t first, int64_t last, int64_t batch, T*& block, T*& next, int64_t stride) {
  if (last - first == 1 && order.block_rows() == batch)
    std::swap(next, block);
  else
    copy(next, block + (order.row(first) - order.row_from(first, last)) * stride, order.rows(first) * stride);
}

}  // namespace fusedrnn
