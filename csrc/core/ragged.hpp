// Sequences of uneven length. The core walks rows that lie side by side at every step, longest sequence first, from
// first step to last (batch_sizes in cells.hpp). Calls whose arrays lie otherwise go through copies in that order: [T,
// N, ...] with lengths, and packed rows that are walked backward.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "parallel.hpp"
#include "scratch.hpp"
#include "steps.hpp"

namespace fusedrnn {

class Ragged {
 public:
  // Arrays [steps, batch, ...]: lengths [batch] from 0 to steps.
  static Ragged of_lengths(int64_t steps, int64_t batch, const int64_t* lengths, bool reverse) {
    Ragged r;
    r.moved_ = true;
    r.dense_steps_ = steps;
    r.order_.resize(std::size_t(batch));
    std::iota(r.order_.begin(), r.order_.end(), int64_t(0));
    std::stable_sort(r.order_.begin(), r.order_.end(), [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
    for (const int64_t n : r.order_) r.lengths_.push_back(lengths[n]);
    r.sizes_.assign(std::size_t(std::max<int64_t>(1, batch > 0 ? r.lengths_[0] : 1)), 0);
    for (const int64_t length : r.lengths_)
      for (int64_t s = 0; s < length; ++s) ++r.sizes_[std::size_t(s)];
    for (int64_t s = 0; s < r.steps(); ++s)
      for (int64_t j = 0; j < r.sizes_[std::size_t(s)]; ++j)
        r.sources_.push_back((reverse ? r.lengths_[std::size_t(j)] - 1 - s : s) * batch + r.order_[std::size_t(j)]);
    return r;
  }

  // Packed arrays [sum of sizes, ...] with sizes [steps], never increasing.
  static Ragged of_sizes(int64_t steps, const int64_t* sizes, bool reverse) {
    Ragged r;
    r.sizes_.assign(sizes, sizes + steps);
    const int64_t batch = sizes[0];
    r.lengths_.assign(std::size_t(batch), 0);
    for (int64_t s = 0; s < steps; ++s)
      for (int64_t n = 0; n < sizes[s]; ++n) ++r.lengths_[std::size_t(n)];
    r.moved_ = reverse;
    if (!reverse) return r;
    std::vector<int64_t> starts(std::size_t(steps), 0);
    std::partial_sum(sizes, sizes + steps - 1, starts.begin() + 1);
    for (int64_t s = 0; s < steps; ++s)
      for (int64_t n = 0; n < sizes[s]; ++n)
        r.sources_.push_back(starts[std::size_t(r.lengths_[std::size_t(n)] - 1 - s)] + n);
    return r;
  }

  int64_t steps() const { return int64_t(sizes_.size()); }
  const int64_t* batch_sizes() const { return sizes_.data(); }
  const int64_t* lengths() const { return lengths_.data(); }  // of the rows, longest first
  const int64_t* row_numbers() const {
    return order_.empty() ? nullptr : order_.data();
  }  // the caller's; null: the same

  // The rows [.., width] of an array in the core's order; null stays null.
  template <class T>
  const T* gather(const T* from, int64_t width, Scratch& scratch) const {
    if (!from || !moved_) return from;
    T* const to = scratch.take<T>(rows() * width);
    each(rows(), width, [&](int64_t i) { copy(to + i * width, from + sources_[std::size_t(i)] * width, width); });
    return to;
  }

  // The same of an array of one type or another (Factor in low_precision.hpp).
  template <class Either>
    requires requires(const Either& e) { e.map([](const float* array) { return array; }); }
  Either gather(const Either& from, int64_t width, Scratch& scratch) const {
    return from.map([&](const auto* array) { return gather(array, width, scratch); });
  }

  // Room for an array that the core writes, and its way to where the caller wants it; steps past a row's end are zero.
  template <class T>
  T* room(T* to, int64_t width, Scratch& scratch) const {
    return !to || !moved_ ? to : scratch.take<T>(rows() * width);
  }
  template <class T>
  void scatter(const T* from, T* to, int64_t width) const {
    if (!to || from == to) return;
    each(rows(), width, [&](int64_t i) { copy(to + sources_[std::size_t(i)] * width, from + i * width, width); });
    const int64_t batch = int64_t(order_.size());
    each(batch, width * (dense_steps_ - rows() / std::max<int64_t>(1, batch)), [&](int64_t j) {
      for (int64_t t = lengths_[std::size_t(j)]; t < dense_steps_; ++t)
        zero(to + (t * batch + order_[std::size_t(j)]) * width, width);
    });
  }

  // The same for states [batch, width].
  template <class T>
  const T* gather_states(const T* from, int64_t width, Scratch& scratch) const {
    if (!from || order_.empty()) return from;
    T* const to = scratch.take<T>(int64_t(order_.size()) * width);
    for (std::size_t j = 0; j < order_.size(); ++j) copy(to + int64_t(j) * width, from + order_[j] * width, width);
    return to;
  }
  template <class T>
  T* state_room(T* to, int64_t width, Scratch& scratch) const {
    return !to || order_.empty() ? to : scratch.take<T>(int64_t(order_.size()) * width);
  }
  template <class T>
  void scatter_states(const T* from, T* to, int64_t width) const {
    if (!to || from == to) return;
    for (std::size_t j = 0; j < order_.size(); ++j) copy(to + order_[j] * width, from + int64_t(j) * width, width);
  }

 private:
  int64_t rows() const { return int64_t(sources_.size()); }
  template <class F>
  static void each(int64_t n, int64_t width, F f) {
    constexpr int64_t piece = 64;
    parallel_for((n + piece - 1) / piece, flops_per_element_moved * double(n * width), [&](int64_t i) {
      for (int64_t j = i * piece; j < std::min(n, (i + 1) * piece); ++j) f(j);
    });
  }

  bool moved_ = false;  // the rows of arrays lie otherwise than the core's
  int64_t dense_steps_ = 0;
  std::vector<int64_t> sizes_, lengths_;  // [steps], [batch]
  std::vector<int64_t> order_;            // the caller's row of each, longest first; empty: the same
  std::vector<int64_t> sources_;          // where moved: the caller's place of each packed row
};

// A call of one of the cells with its arrays in the core's order. The cells' structs have the same names for the same
// things, so one text serves them all; `width` is that of y and h.
template <class Forward, class F>
void forward_ragged(const Ragged& ragged, const Forward& p, int64_t width, F forward) {
  Scratch scratch;
  const int64_t I = p.shape.inputs, H = p.shape.hidden;
  Forward q = p;
  q.reverse = false;
  q.shape.steps = ragged.steps();
  q.shape.batch_sizes = ragged.batch_sizes();
  q.shape.resets = ragged.gather(p.shape.resets, 1, scratch);
  q.x = ragged.gather(p.x, I, scratch);
  q.h0 = ragged.gather_states(p.h0, width, scratch);
  q.y = ragged.room(p.y, width, scratch);
  q.h_n = ragged.state_room(p.h_n, width, scratch);
  if constexpr (requires { q.c0; }) {
    q.c0 = ragged.gather_states(p.c0, H, scratch);
    q.c_n = ragged.state_room(p.c_n, H, scratch);
  }
  if constexpr (requires { q.c; }) q.c = ragged.room(p.c, H, scratch);
  forward(q);
  ragged.scatter(q.y, p.y, width);
  ragged.scatter_states(q.h_n, p.h_n, width);
  if constexpr (requires { q.c0; }) ragged.scatter_states(q.c_n, p.c_n, H);
  if constexpr (requires { q.c; }) ragged.scatter(q.c, p.c, H);
}

template <class Backward, class F>
void backward_ragged(const Ragged& ragged, const Backward& p, int64_t width, F backward) {
  Scratch scratch;
  const int64_t I = p.shape.inputs, H = p.shape.hidden;
  Backward q = p;
  q.reverse = false;
  q.shape.steps = ragged.steps();
  q.shape.batch_sizes = ragged.batch_sizes();
  q.shape.resets = ragged.gather(p.shape.resets, 1, scratch);
  q.dy = ragged.gather(p.dy, width, scratch);
  q.dh_n = ragged.gather_states(p.dh_n, width, scratch);
  q.x = ragged.gather(p.x, I, scratch);
  q.y = ragged.gather(p.y, width, scratch);
  q.h0 = ragged.gather_states(p.h0, width, scratch);
  q.dx = ragged.room(p.dx, I, scratch);
  q.dh0 = ragged.state_room(p.dh0, width, scratch);
  if constexpr (requires { q.c0; }) {
    q.dc_n = ragged.gather_states(p.dc_n, H, scratch);
    if constexpr (requires { q.dc; }) q.dc = ragged.gather(p.dc, H, scratch);
    q.c0 = ragged.gather_states(p.c0, H, scratch);
    q.dc0 = ragged.state_room(p.dc0, H, scratch);
  }
  backward(q);
  ragged.scatter(q.dx, p.dx, I);
  ragged.scatter_states(q.dh0, p.dh0, width);
  if constexpr (requires { q.c0; }) ragged.scatter_states(q.dc0, p.dc0, H);
}

}  // namespace fusedrnn
