// What the loops of all cells with options share. They make a step of phases: products into memory, then passes over
// rows (kernels/options.hpp). Beside the plain loops, whose sums never leave the registers, that costs one more way to
// the cache and back, and no option needs a tile of its own.
#pragma once

#include <utility>

#include "cells.hpp"
#include "dispatch.hpp"
#include "gemm.hpp"
#include "pack.hpp"
#include "sequence.hpp"

namespace fusedrnn {

// Phases over rows (prepare, pointwise, finish) alternate with products, whose units threads may share.
enum class Phase { prepare, product, pointwise, second_product, finish };

inline bool over_rows(Phase phase) { return phase != Phase::product && phase != Phase::second_product; }

// Rows that go through all passes of a phase together: they stay in the L1 cache. Each multiple begins a group.
constexpr int64_t rows_together = 4;

// f(first, last) for rows [a, b): all at once in products, else by groups.
template <class F>
void for_groups(Phase phase, int64_t a, int64_t b, F f) {
  if (!over_rows(phase)) return f(a, b);
  for (int64_t last; a < b; a = last) f(a, last = std::min(b, (a / rows_together + 1) * rows_together));
}

// Rows of a step that have the same past and the same future.
struct Run {
  int64_t step;
  int64_t first, rows;  // of the batch
  int64_t row;          // where they begin in arrays [T, N, ...]
  bool reset;           // their state is zero before the step
  Next next;            // what follows: for backward
  Part part;            // of the units of a product
};

// Rows of an array from the given one on; absent where the array is.
template <class T>
Rows<T> rows_at(T* array, int64_t row, int64_t width) {
  return {array ? array + row * width : nullptr, width};
}

// Its columns from the given one on.
template <class T>
Rows<T> columns_from(Rows<T> rows, int64_t column) {
  return {rows.data ? rows.data + column : nullptr, rows.stride};
}

// Streams of random numbers: the last bits of the counter's fourth word.
enum class Draw : uint32_t { zoneout_h, zoneout_c, recurrent_dropout, dropconnect };

// Masks, states and steps of a call, forward or backward.
template <class T>
class OptionCall {
 public:
  const KernelTable<T>& k;
  const Options<T>& o;
  const Steps order;
  Scratch& scratch;
  const int64_t N, P;    // P: elements of h
  const T* const zeros;  // [P or H]

  // row_elements: of the gates' sums or of their gradients, which bound a block of steps.
  template <class Call>
  OptionCall(const Call& p, const Options<T>& options, int64_t row_elements, Scratch& memory)
      : k(kernels<T>()),
        o(options),
        order(p.shape, p.reverse, row_elements),
        scratch(memory),
        N(p.shape.batch),
        P(options.projection),
        zeros(memory.zeros<T>(std::max(P, p.shape.hidden))),
        h0(p.h0 ? p.h0 : memory.zeros<T>(N * P)),
        y_(p.y),
        zone_h_(zone_buffer(o.zoneout_h, P)) {
    if (!drops(o.recurrent_dropout)) return;
    T* const mask = scratch.take<T>(N * P);
    const T kept = T(1 / (1 - o.recurrent_dropout));
    for (int64_t n = 0; n < N; ++n)
      draw(Draw::recurrent_dropout, o.recurrent_dropout, row_number(n), 0, P, T(0), kept, mask + n * P);
    mask_ = mask;
  }

  // h before a step, and the mask of recurrent dropout with which the products see it.
  Rows<const T> h_prev(const Run& run) const {
    if (run.reset) return {zeros, 0};
    return rows_at(run.step == 0 ? h0 : y_ + order.row(run.step - 1) * P, run.first, P);
  }
  Rows<const T> mask(const Run& run) const { return rows_at(mask_, run.first, P); }

  // How much of the state before stays: drawn into buffer [N, units] in training, else the probability for all. Absent
  // without zoneout.
  Rows<const T> zone(Draw kind, const Run& run, int64_t units, T* buffer) const {
    if (!buffer) return {};
    if (!o.training) return {buffer, 0};
    const double p = kind == Draw::zoneout_h ? o.zoneout_h : o.zoneout_c;
    for (int64_t n = run.first; n < run.first + run.rows; ++n) {
      const int64_t time = o.lengths ? o.lengths[n] - 1 - run.step : order.time(run.step);
      draw(kind, p, row_number(n), uint32_t(time) + o.step_offset, units, T(1), T(0), buffer + n * units);
    }
    return rows_at<const T>(buffer, run.first, units);
  }
  Rows<const T> zone_h(const Run& run) const { return zone(Draw::zoneout_h, run, P, zone_h_); }
  T* zone_buffer(double p, int64_t units) const {
    if (p == 0) return nullptr;
    T* const buffer = scratch.take<T>(o.training ? N * units : units);
    if (!o.training) std::fill_n(buffer, units, T(p));
    return buffer;
  }

  // weight_hh [rows, P] with dropconnect.
  const T* recurrent_weights(const T* weight_hh, int64_t rows) const {
    if (!drops(o.dropconnect)) return weight_hh;
    T* const out = scratch.zeros<T>(rows * P);
    add_masked_weights(weight_hh, 0, rows, out);
    return out;
  }

  // The rows [first, first + rows) of dweight_hh from their transposed sums (gemm.hpp).
  void add_recurrent_gradient(T* dweight_hh, const T* sums, int64_t first, int64_t rows) const {
    T* const to = dweight_hh + first * P;
    if (!drops(o.dropconnect)) return add_transposed(k, to, sums, rows, 0, rows, P);
    Scratch own;
    T* const whole = own.zeros<T>(rows * P);
    add_transposed(k, whole, sums, rows, 0, rows, P);
    add_masked_weights(whole, first, rows, to);
  }

  // As Steps::previous, of the states as the products saw them.
  template <class F>
  void previous(int64_t first, int64_t last, Scratch& own, F f) const {
    if (!mask_) return order.previous(first, last, P, h0, y_, own, f);
    const int64_t from = order.row_from(first, last), rows = order.count(first, last);
    T* const gathered = own.take<T>(rows * P);
    for (int64_t s = first; s < last; ++s)
      order.runs(s, 0, N, [&](int64_t a, int64_t b, bool reset) {
        const Run run{s, a, b - a, order.row(s) + a, reset, Next::step, {}};
        k.multiply({run.rows, P, h_prev(run), mask(run), rows_at(gathered, run.row - from, P)});
      });
    f(static_cast<const T*>(gathered), rows, from);
  }

  void column_sums(int64_t rows, int64_t units, Rows<const T> a, Rows<const T> b, T* products,
                   T* sums = nullptr) const {
    fusedrnn::column_sums(k, rows, units, a, b, products, sums);
  }

 protected:
  const T* const h0;  // [N, P]

  bool masked() const { return mask_ != nullptr; }
  bool zoned() const { return zone_h_ != nullptr; }

 private:
  bool drops(double p) const { return p > 0 && o.training; }
  uint32_t row_number(int64_t n) const { return uint32_t(o.row_numbers ? o.row_numbers[n] : n) + o.row_offset; }

  void draw(Draw kind, double p, uint32_t row, uint32_t step, int64_t units, T dropped, T kept, T* out) const {
    k.random_mask({units, o.seed, row, step, o.layer << 4 | o.direction << 3 | uint32_t(kind),
                   uint64_t(p * 4294967296.0), dropped, kept, out});
  }

  // to += mask from, of the rows of weight_hh from `first` on.
  void add_masked_weights(const T* from, int64_t first, int64_t rows, T* to) const {
    Scratch own;
    T* const mask = own.take<T>(P);
    for (int64_t r = 0; r < rows; ++r, from += P, to += P) {
      draw(Draw::dropconnect, o.dropconnect, uint32_t(first + r), 0, P, T(0), T(1 / (1 - o.dropconnect)), mask);
      for (int64_t i = 0; i < P; ++i) to[i] += mask[i] * from[i];
    }
  }

  const T *const y_, *mask_ = nullptr;
  T* const zone_h_;
};

}  // namespace fusedrnn
