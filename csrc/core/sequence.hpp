// How threads share the loop over time, whatever the cell.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "../kernels/table.hpp"
#include "cells.hpp"
#include "parallel.hpp"
#include "steps.hpp"

namespace fusedrnn {

// Rows of a block that compute their gates again together: they share weights, and their partial sums stay near.
constexpr int64_t recompute_rows = 64;

// A step of few rows reads all weights for little work, and where the input's do not stay in the cache beside the
// recurrent ones it is better to compute the input's share of all steps of a block first, with all their rows.
// Otherwise one loop over [x, h] is faster: partial sums need not be written and read again.
constexpr int64_t separate_rows = 24, separate_bytes = 384 << 10;

template <class T>
bool input_product_first(const Shape& s, int64_t gates) {
  const int64_t bytes = gates * s.hidden * s.inputs * int64_t(sizeof(T));
  return s.batch < separate_rows && bytes > separate_bytes && s.steps > 1;
}

// How threads share a recurrence. Rows do not depend on each other: where there are enough, every thread takes its rows
// through all steps and never waits. Few rows would make each thread read all weights for little work, and wide weights
// do not fit one core's cache: there threads share the units, keep their weights, and meet after every step.
class Sharing {
 public:
  // gates: products of a unit with each of the depth inputs of a step. together: rows that no cut separates, from every
  // multiple on.
  Sharing(const Shape& shape, int64_t gates, int64_t depth, std::size_t element, int64_t together = 1)
      : shape_(shape),
        together_(together),
        slice_(std::max(fewest_rows, slice_bytes / int64_t(element) / (2 * gates * shape.hidden + depth))) {
    const int64_t threads = num_threads(), weights = gates * shape.hidden * depth;
    if (threads == 1 || shape.steps == 1 || 2 * weights * shape.batch < step_flops) return;
    const bool few = shape.batch<few_rows * threads, wide = weights * int64_t(element)> cached_bytes;
    if (few || wide) parts_ = std::min(threads, (shape.hidden + fewest_units - 1) / fewest_units);
  }

  bool by_units() const { return parts_ > 1; }

  // A thread's share of rows [a, b) in a phase that goes over whole rows, where threads share the units.
  std::pair<int64_t, int64_t> rows_of(Part part, int64_t a, int64_t b) const {
    const auto cut = [&](int64_t i) {
      return i == part.count ? b : (a + (b - a) * i / part.count) / together_ * together_;
    };
    return {cut(part.index), cut(part.index + 1)};
  }

  // f(step, first row, last row, part) for steps [first, last), in this order.
  template <class F>
  void walk(int64_t first, int64_t last, double flops, F f) const {
    walk_phases(first, last, 1, flops, [&](int64_t s, int64_t, int64_t a, int64_t b, Part part) { f(s, a, b, part); });
  }

  // f(step, phase, first row, last row, part), for a cell whose phases each need all units of the one before.
  template <class F>
  void walk_phases(int64_t first, int64_t last, int64_t phases, double flops, F f) const {
    if (by_units())
      return parallel_steps((last - first) * phases, parts_, flops, [&](int64_t i, int64_t part) {
        f(first + i / phases, i % phases, int64_t(0), shape_.batch, Part{part, parts_});
      });
    const auto slice = [&](int64_t a, int64_t b) {
      for (int64_t i = 0; i < (last - first) * phases; ++i) f(first + i / phases, i % phases, a, b, Part{});
    };
    if (!shape_.batch_sizes)
      return parallel_rows((shape_.batch + together_ - 1) / together_, flops,
                           [&](int64_t a, int64_t b) { slice(a * together_, std::min(shape_.batch, b * together_)); },
                           slice_ / together_);
    const std::vector<int64_t> cuts = even_cuts(first, last, flops < parallel_flops ? 1 : num_threads());
    parallel_for(int64_t(cuts.size()) - 1, flops,
                 [&](int64_t i) { slice(cuts[std::size_t(i)], cuts[std::size_t(i) + 1]); });
  }

 private:
  // Flops of a step that are worth a meeting; rows a thread that share what it reads; weights that fit an L2 cache.
  static constexpr int64_t step_flops = 60'000, few_rows = 4, cached_bytes = 3 << 19, fewest_units = 32;

  // A slice of rows whose gates and states of a step stay in the L2 cache; rows that still share weights well.
  static constexpr int64_t slice_bytes = 3 << 18, fewest_rows = 64;

  // Where the rows of steps [first, last) are cut so that each slice has its share of the work: the first rows take
  // part in the most steps.
  std::vector<int64_t> even_cuts(int64_t first, int64_t last, int64_t slices) const {
    int64_t total = 0, done = 0;
    for (int64_t s = first; s < last; ++s) total += shape_.batch_sizes[s];
    std::vector<int64_t> cuts{0};
    int64_t steps = last - first;  // that the row takes part in
    for (int64_t n = 0; n < shape_.batch_sizes[first]; ++n) {
      while (shape_.batch_sizes[first + steps - 1] <= n) --steps;
      if (n % together_ == 0 && (done * slices >= total * int64_t(cuts.size()) || n - cuts.back() >= slice_))
        cuts.push_back(n);
      done += steps;
    }
    cuts.push_back(shape_.batch_sizes[first]);
    return cuts;
  }

  Shape shape_;
  int64_t together_, slice_, parts_ = 1;
};

// A stride for rows of so many elements that does not put all of them into the same few sets of the L1 cache, as
// multiples of 1 KiB do: at H = 1024 that cost a quarter of the speed.
template <class T>
int64_t spread(int64_t elements) {
  constexpr int64_t line = 64 / int64_t(sizeof(T)), distance = 16 * line;
  return elements % distance == 0 ? elements + line : elements;
}

// Rows of one factor of a step's product, copied apart where their own stride is a bad one.
template <class T>
class SpreadRows {
 public:
  SpreadRows(Scratch& scratch, int64_t rows, int64_t depth, bool wanted)
      : depth_(depth),
        stride_(spread<T>(depth)),
        buffer_(stride_ == depth || rows < fewest || !wanted ? nullptr : scratch.take<T>(rows * stride_)) {}

  // Of `count` rows [count, depth], the first of which is the given one of the batch.
  Operand<T> operand(const T* rows, int64_t first, int64_t count, const T* panels) const {
    if (!buffer_) return {rows, depth_, panels, depth_};
    T* const to = buffer_ + first * stride_;
    for (int64_t r = 0; r < count; ++r) copy(to + r * stride_, rows + r * depth_, depth_);
    return {to, stride_, panels, depth_};
  }

 private:
  static constexpr int64_t fewest = 8;  // a tile's

  int64_t depth_, stride_;
  T* buffer_;
};

}  // namespace fusedrnn
