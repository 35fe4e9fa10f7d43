// What the loops of all cells with options share. They make a step of phases: products into memory, then passes over
// rows (kernels/options.hpp). Beside the plain loops, whose sums never leave the registers, that costs one more way to
// the cache and back, and no option needs a tile of its own.
#pragma once

#include <tuple>
#include <utility>
#include <vector>

#include "cells.hpp"
#include "gemm.hpp"
#include "pack.hpp"
#include "sequence.hpp"

namespace fusedrnn {

// Streams of random numbers: the last bits of the counter's fourth word.
enum class Draw : uint32_t { zoneout_h, zoneout_c, recurrent_dropout, dropconnect };

template <class T>
class OptionCall {
 public:
  // width: elements of h.
  OptionCall(const KernelTable<T>& kernels, const Options<T>& options, const Shape& shape, const Steps& order,
             int64_t width, Scratch& scratch)
      : k_(kernels), o_(options), batch_(shape.batch), width_(width), order_(order), scratch_(scratch) {
    zeros_ = scratch.zeros<T>(std::max(width, shape.hidden));
    if (!drops(o_.recurrent_dropout)) return;
    T* const mask = scratch.take<T>(batch_ * width);
    const T kept = T(1 / (1 - o_.recurrent_dropout));
    for (int64_t n = 0; n < batch_; ++n)
      draw(Draw::recurrent_dropout, o_.recurrent_dropout, row_number(n), 0, width, T(0), kept, mask + n * width);
    mask_ = mask;
    masked_ = scratch.take<T>(batch_ * width);
  }

  const T* zeros() const { return zeros_; }  // [width or H]
  bool masked() const { return mask_ != nullptr; }
  Rows<const T> mask(int64_t a) const { return mask_ ? Rows<const T>{mask_ + a * width_, width_} : Rows<const T>{}; }

  // h [rows, width] of the rows [a, b) as the products see them, with recurrent dropout; made by prepare.
  void prepare(const T* h, int64_t a, int64_t b) const {
    k_.multiply({b - a, width_, {h, width_}, mask(a), {masked_ + a * width_, width_}});
  }
  const T* operand(const T* h, int64_t a) const { return mask_ ? masked_ + a * width_ : h; }

  // weight_hh [rows, width] with dropconnect.
  const T* recurrent_weights(const T* weight_hh, int64_t rows) const {
    if (!drops(o_.dropconnect)) return weight_hh;
    T* const out = scratch_.template take<T>(rows * width_);
    masked_weights(weight_hh, rows, out, false);
    return out;
  }

  // dweight_hh [rows, width] from its transposed sums (gemm.hpp), of which it takes `rows` columns from `first` on.
  void add_recurrent_gradient(T* dweight_hh, const T* sums, int64_t columns, int64_t rows) const {
    if (!drops(o_.dropconnect)) return add_transposed(k_, dweight_hh, sums, columns, 0, rows, width_);
    Scratch scratch;
    T* const whole = scratch.zeros<T>(rows * width_);
    add_transposed(k_, whole, sums, columns, 0, rows, width_);
    masked_weights(whole, rows, dweight_hh, true);
  }

  // How much of the state before stays, for the rows [a, b) of step s: drawn into buffer [N, units] in training, else
  // the probability for all. Absent without zoneout.
  Rows<const T> zone(Draw kind, int64_t s, int64_t a, int64_t b, int64_t units, T* buffer) const {
    const double p = kind == Draw::zoneout_h ? o_.zoneout_h : o_.zoneout_c;
    if (p == 0) return {};
    if (!o_.training) return {buffer, 0};
    for (int64_t n = a; n < b; ++n) {
      const int64_t time = o_.lengths ? o_.lengths[n] - 1 - s : order_.time(s);
      draw(kind, p, row_number(n), uint32_t(time) + o_.step_offset, units, T(1), T(0), buffer + n * units);
    }
    return {buffer + a * units, units};
  }
  T* zone_buffer(double p, int64_t units) const {
    if (p == 0) return nullptr;
    T* const buffer = scratch_.template take<T>(o_.training ? batch_ * units : units);
    if (!o_.training) std::fill_n(buffer, units, T(p));
    return buffer;
  }

  // As Steps::previous, of the states as the products saw them.
  template <class F>
  void previous(int64_t first, int64_t last, const T* initial, const T* states, Scratch& scratch, F f) const {
    if (!mask_) return order_.previous(first, last, width_, initial, states, scratch, f);
    const int64_t from = order_.row_from(first, last);
    T* const gathered = scratch.take<T>(order_.count(first, last) * width_);
    for (int64_t s = first; s < last; ++s)
      order_.runs(s, 0, batch_, [&](int64_t a, int64_t b, bool reset) {
        T* const to = gathered + (order_.row(s) + a - from) * width_;
        const T* const h = (s == 0 ? initial : states + order_.row(s - 1) * width_) + a * width_;
        if (reset)
          std::fill_n(to, (b - a) * width_, T(0));
        else
          k_.multiply({b - a, width_, {h, width_}, mask(a), {to, width_}});
      });
    f(static_cast<const T*>(gathered), order_.count(first, last), from);
  }

  void column_sums(int64_t rows, int64_t units, Rows<const T> a, Rows<const T> b, T* out) const {
    fusedrnn::column_sums(k_, rows, units, a, b, out);
  }

 private:
  bool drops(double p) const { return p > 0 && o_.training; }
  uint32_t row_number(int64_t n) const { return uint32_t(o_.row_numbers ? o_.row_numbers[n] : n) + o_.row_offset; }

  void draw(Draw kind, double p, uint32_t row, uint32_t step, int64_t units, T dropped, T kept, T* out) const {
    k_.random_mask({units, o_.seed, row, step, o_.layer << 4 | o_.direction << 3 | uint32_t(kind),
                    uint64_t(p * 4294967296.0), dropped, kept, out});
  }

  // to = (to +) mask from.
  void masked_weights(const T* from, int64_t rows, T* to, bool add) const {
    Scratch scratch;
    T* const mask = scratch.take<T>(width_);
    for (int64_t r = 0; r < rows; ++r, from += width_, to += width_) {
      draw(Draw::dropconnect, o_.dropconnect, uint32_t(r), 0, width_, T(0), T(1 / (1 - o_.dropconnect)), mask);
      for (int64_t i = 0; i < width_; ++i) to[i] = (add ? to[i] : T(0)) + mask[i] * from[i];
    }
  }

  const KernelTable<T>& k_;
  const Options<T>& o_;
  int64_t batch_, width_;
  const Steps& order_;
  Scratch& scratch_;
  const T *zeros_, *mask_ = nullptr;
  T* masked_ = nullptr;
};

// Phases over rows (prepare, pointwise, finish) alternate with products, whose units threads may share.
enum class Phase { prepare, product, pointwise, project, finish };

inline bool over_rows(Phase phase) {
  return phase == Phase::prepare || phase == Phase::pointwise || phase == Phase::finish;
}

// A thread's share of a phase that goes over whole rows, where threads share the units.
inline std::pair<int64_t, int64_t> rows_of(Part part, int64_t a, int64_t b) {
  return {a + (b - a) * part.index / part.count, a + (b - a) * (part.index + 1) / part.count};
}

}  // namespace fusedrnn
