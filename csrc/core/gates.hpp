// The walk of a cell with options through steps and phases, forward and backward, and the sums that enter its gates:
// products with both weights, and their layer normalisation. What is left to a cell are its passes over rows, and for
// some a second product amid a step.
#pragma once

#include <algorithm>
#include <tuple>
#include <vector>

#include "options.hpp"

namespace fusedrnn {

// The sums of a cell's gates, and a row of its reserve: what the cell keeps; with layer normalisation then both
// products normalised, the inverse deviations of the two, and the moments of c.
struct GateLayout {
  int64_t kept;       // elements that the cell keeps
  int64_t sums;       // rows of the weights
  int64_t recurrent;  // the first of them, which h_(t-1) as it is has part in: all, but for the GRU with reset before
  bool joint;         // the product with h_(t-1) is added to the one with x_t
  bool norm;

  // Deviations fill a line, so that rows of the usual sizes begin where vectors do.
  int64_t row() const { return kept + (norm ? 2 * sums + 16 : 0); }
  template <class T>
  Rows<T> part(T* reserve_row, int64_t offset) const {
    return {reserve_row ? reserve_row + offset : nullptr, row()};
  }
  template <class T>
  Rows<T> normalized_x(T* reserve_row) const {
    return part(reserve_row, kept);
  }
  template <class T>
  Rows<T> normalized_h(T* reserve_row) const {
    return part(reserve_row, kept + sums);
  }
  template <class T>
  Rows<T> deviation_x(T* reserve_row) const {
    return part(reserve_row, kept + 2 * sums);
  }
  template <class T>
  Rows<T> deviation_h(T* reserve_row) const {
    return part(reserve_row, kept + 2 * sums + 1);
  }
  template <class T>
  Rows<T> moments_c(T* reserve_row) const {
    return norm ? part(reserve_row, kept + 2 * sums + 2) : Rows<T>{};
  }
};

template <class T, class Forward>
class ForwardCall : public OptionCall<T> {
 public:
  using OptionCall<T>::k, OptionCall<T>::o, OptionCall<T>::order, OptionCall<T>::N, OptionCall<T>::P;

  ForwardCall(const Forward& p, const Options<T>& options, const GateLayout& layout, Scratch& memory)
      : OptionCall<T>(p, options, layout.sums, memory),
        p_(p),
        layout_(layout),
        apart_(layout.norm || !layout.joint || layout.recurrent < layout.sums),
        ahead_(apart_ &&
               (layout.recurrent < layout.sums || input_product_first<T>(p.shape, layout.sums / p.shape.hidden))),
        I(p.shape.inputs),
        G(layout.sums),
        stride_(spread<T>(G)),
        weight_hh_(this->recurrent_weights(p.weight_hh, G)),
        sharing_(p.shape, G / p.shape.hidden, ahead_ ? P : I + P, sizeof(T)),
        x_rows_(memory, ahead_ ? 0 : N, I, !sharing_.by_units()),
        h_rows_(memory, N, P, !sharing_.by_units()) {
    pack_rows(packed_ih_ = memory.take<T>(padded(G, k.lanes) * I), p.weight_ih, I, G, k);
    pack_rows(packed_hh_ = memory.take<T>(padded(layout.recurrent, k.lanes) * P), weight_hh_, P, layout.recurrent, k);
    add_biases(bias_x_ = memory.take<T>(G), p.bias_ih, o.norm_bias_ih, G);
    add_biases(bias_h_ = memory.take<T>(G), p.bias_hh, o.norm_bias_hh, G);
    if (layout.joint) {
      add(bias_x_, bias_h_, G);
      bias_h_ = nullptr;
    }
    x_sums_ = memory.take<T>((ahead_ ? order.block_rows() : N) * stride_);
    if (layout.norm || !layout.joint) h_sums_ = memory.take<T>(N * stride_);
    if (this->masked()) dropped_ = memory.take<T>(N * P);
  }

  const T* weight_hh() const { return weight_hh_; }  // with dropconnect
  // h before a step as the products see it.
  Rows<const T> dropped(const Run& run) const {
    return run.reset || !dropped_ ? this->h_prev(run) : rows_at<const T>(dropped_, run.first, P);
  }
  // The gates' sums: all, or those of x_t and of h_(t-1) where they are not joint.
  Rows<T> x_sums(const Run& run) const { return rows_at(x_sums_, ahead_ ? run.row - from_ : run.first, stride_); }
  Rows<T> h_sums(const Run& run) const { return rows_at(layout_.joint ? nullptr : h_sums_, run.first, stride_); }
  // The run's first row of the reserve; null in inference.
  T* kept(const Run& run) const { return kept(run.row); }
  Rows<T> y(const Run& run) const { return rows_at(p_.y, run.row, P); }
  // The last pass of a step over y, which holds h.
  void zoneout(const Run& run) const {
    if (this->zoned()) k.zoneout({run.rows, P, this->zone_h(run), this->h_prev(run), y(run)});
  }

  // f(phase, run): the cell's phases, pointwise first, of each step in order. second: elements of a second product's
  // weights.
  template <class F>
  void walk(std::vector<Phase> phases, int64_t second, F f) {
    const int64_t T_ = p_.shape.steps;
    phases.insert(phases.begin(), Phase::product);
    if (dropped_) phases.insert(phases.begin(), Phase::prepare);
    for (int64_t first = 0, last; first < T_; first = last) {
      last = ahead_ ? order.block_end(first) : T_;
      from_ = order.row_from(first, last);
      const int64_t rows = order.count(first, last);
      if (ahead_)
        parallel_rows(rows, 2.0 * double(rows) * double(I * G), [&](int64_t a, int64_t b) { input_product(a, b); });
      const double flops = 2.0 * double(rows) * double((ahead_ ? 0 : I * G) + P * layout_.recurrent + second);
      const auto step = [&](int64_t s, int64_t index, int64_t slice, int64_t slice_end, Part part) {
        const Phase phase = phases[std::size_t(index)];
        if (over_rows(phase)) std::tie(slice, slice_end) = sharing_.rows_of(part, slice, slice_end);
        order.runs(s, slice, slice_end, [&](int64_t first_row, int64_t last_row, bool reset) {
          for_groups(phase, first_row, last_row, [&](int64_t a, int64_t b) {
            const Run run{s, a, b - a, order.row(s) + a, reset, Next::step, part};
            if (phase == Phase::prepare) return drop(run);
            if (phase == Phase::product) return product(run);
            if (phase == Phase::pointwise && layout_.norm) normalize(run);
            f(phase, run);
          });
        });
      };
      sharing_.walk_phases(first, last, int64_t(phases.size()), flops, step);
    }
    last_states(order, N, P, this->h0, p_.y, P, p_.h_n);
  }

 private:
  T* kept(int64_t row) const { return p_.reserve ? p_.reserve + row * layout_.row() : nullptr; }

  // Of the block's rows [a, b).
  void input_product(int64_t a, int64_t b) const {
    const T* const bias = layout_.norm ? nullptr : bias_x_;
    k.affine({b - a, G, {}, {p_.x + (from_ + a) * I, I, packed_ih_, I}, bias, false, x_sums_ + a * stride_, stride_});
  }

  void drop(const Run& run) const {
    if (!run.reset) k.multiply({run.rows, P, this->h_prev(run), this->mask(run), rows_at(dropped_, run.first, P)});
  }

  void product(const Run& run) const {
    const Operand<T> h = run.reset ? Operand<T>{} : h_rows_.operand(dropped(run).data, run.first, run.rows, packed_hh_);
    const Rows<T> x_sums = this->x_sums(run);
    if (!ahead_) {
      const Operand<T> x = x_rows_.operand(p_.x + run.row * I, run.first, run.rows, packed_ih_);
      if (!apart_) return k.rnn_forward({run.rows, G, run.part, x, h, bias_x_, false, false, x_sums.data, stride_});
      k.affine({run.rows, G, run.part, x, layout_.norm ? nullptr : bias_x_, false, x_sums.data, stride_});
    }
    T* const own = h_sums_ ? h_sums_ + run.first * stride_ : nullptr;
    const T* const bias = layout_.norm ? nullptr : bias_h_;
    k.affine({run.rows, layout_.recurrent, run.part, h, bias, !own, own ? own : x_sums.data, stride_});
  }

  // Both products.
  void normalize(const Run& run) const {
    T* const row = kept(run);
    const Rows<T> x = x_sums(run), h = rows_at(h_sums_, run.first, stride_);
    k.normalize({run.rows, G, x.read(), o.gain_ih, bias_x_, row ? layout_.normalized_x(row) : x,
                 layout_.deviation_x(row), x, false});
    k.normalize({run.rows, G, h.read(), o.gain_hh, bias_h_, row ? layout_.normalized_h(row) : h,
                 layout_.deviation_h(row), layout_.joint ? x : h, layout_.joint});
  }

  const Forward& p_;
  const GateLayout layout_;
  // The two products are apart. That of x is then a whole block's, ahead of its steps, where few rows of a step would
  // read wide weights, and with reset before, whose product with h_(t-1) is added to some of x's units.
  const bool apart_, ahead_;
  const int64_t I, G, stride_;
  const T* const weight_hh_;
  const Sharing sharing_;
  const SpreadRows<T> x_rows_, h_rows_;
  T *packed_ih_, *packed_hh_, *bias_x_, *bias_h_;
  T *x_sums_, *h_sums_ = nullptr;  // of a block, or of a step; of a step
  T* dropped_ = nullptr;           // [N, P]
  int64_t from_ = 0;               // the block's first row
};

template <class T, class Backward>
class BackwardCall : public OptionCall<T> {
 public:
  using OptionCall<T>::k, OptionCall<T>::o, OptionCall<T>::order, OptionCall<T>::N, OptionCall<T>::P;

  // carried: part of h's gradient passes by the weights, for the cell's own reasons; zoneout's does in any case.
  BackwardCall(const Backward& p, const Options<T>& options, const OptionGradients<T>& gradients,
               const GateLayout& layout, bool carried, Scratch& memory)
      : OptionCall<T>(p, options, spread<T>(layout.sums), memory),
        first(p.shape.batch > 0 ? p.shape.steps : 0),  // without rows there may be any number of steps
        p_(p),
        g_(gradients),
        layout_(layout),
        I(p.shape.inputs),
        G(layout.sums),
        stride_(spread<T>(G)),
        weight_hh_(this->recurrent_weights(p.weight_hh, G)),
        sharing_(p.shape, G / p.shape.hidden, P, sizeof(T), layout.norm ? rows_together : 1) {
    const int64_t recurrent = layout.recurrent, block = order.block_rows() * stride_;
    pack_columns(packed_hh_ = memory.take<T>(padded(P, k.lanes) * recurrent), weight_hh_, recurrent, P, k.lanes);
    if (p.dx) pack_columns(packed_ih_ = memory.take<T>(padded(I, k.lanes) * G), p.weight_ih, G, I, k.lanes);
    dx_sums_ = memory.take<T>(block);
    dh_sums_ = layout.joint ? dx_sums_ : memory.take<T>(block);
    dproduct_ = layout.norm ? memory.take<T>(block) : dh_sums_;
    dinput_ = layout.norm && gradients.dweight_peephole ? memory.take<T>(block) : dx_sums_;
    if (layout.norm) {
      for (T** const products : {&products_x_, &products_h_, &norm_sums_x_}) *products = group_sums(G);
      if (!layout.joint) norm_sums_h_ = group_sums(G);
    }
    next_ = memory.take<T>(N * stride_);
    recurrent_ = memory.take<T>(N * P);
    if (carried || this->zoned()) carry_ = memory.take<T>(N * P);
    sums_ih_ = outer_sums(k, memory, I, G);
    sums_hh_ = outer_sums(k, memory, P, recurrent);
    bias_x_ = memory.zeros<T>(G);
    bias_h_ = layout.joint ? bias_x_ : memory.zeros<T>(G);
    copy_or_zero(p.dh0, p.dh_n, N * P);  // of rows without steps
  }

  // The block of steps [first, last), and its rows: how many, and the first.
  int64_t first, last = 0, rows = 0, from = 0;

  const T* weight_hh() const { return weight_hh_; }  // with dropconnect
  // Gradients of the gates' sums, of those of x_t and of h_(t-1): the same array where they are joint.
  Rows<T> dx_sums(const Run& run) const { return rows_at(dx_sums_, run.row - from, stride_); }
  Rows<T> dh_sums(const Run& run) const { return rows_at(dh_sums_, run.row - from, stride_); }
  Rows<T> dh_sums() const { return {dh_sums_, stride_}; }  // of the block's rows
  Rows<T> carry(const Run& run) const { return rows_at(carry_, run.first, P); }
  // What comes to h_(t-1) through the weights. A cell with a second product leaves that one's part here, to which the
  // first is added.
  Rows<T> recurrent(const Run& run) const { return rows_at(recurrent_, run.first, P); }
  const T* kept(const Run& run) const { return p_.reserve + run.row * layout_.row(); }

  // The gradient of h before zoneout, [rows, P].
  void state_gradient(const Run& run, Rows<T> out) const {
    const bool goes_on = run.next == Next::step;
    k.state_gradient({.rows = run.rows,
                      .units = P,
                      .recurrent = goes_on ? recurrent(run).read() : Rows<const T>{},
                      .mask = this->mask(run),
                      .carry_next = goes_on ? carry(run).read() : Rows<const T>{},
                      .dh_n = run.next == Next::end ? rows_at(p_.dh_n, run.first, P) : Rows<const T>{},
                      .dy = rows_at(p_.dy, run.row, P),
                      .zone = this->zone_h(run),
                      .clip = T(o.grad_clip),
                      .carry = carry(run),
                      .out = out});
  }

  // Sums over all steps that are made amid the walk: each group of rows has its own, whoever walks it, and in the end
  // they are added in order.
  T* group_sums(int64_t width) const { return this->scratch.template zeros<T>(groups() * width); }
  T* group_at(T* sums, const Run& run, int64_t width) const {
    return sums ? sums + run.first / rows_together * width : nullptr;
  }
  void add_groups(T* to, const T* sums, int64_t width) const {
    for (int64_t i = 0; i < groups(); ++i) add(to, sums + i * width, width);
  }

  // The block before; false when there is none.
  bool next_block() {
    if (first == 0) return false;
    last = first;
    first = order.block_begin(last);
    from = order.row_from(first, last);
    rows = order.count(first, last);
    return true;
  }

  // f(phase, run): the cell's phases of the block's steps, last step first; in `pointwise` the gates' gradients come.
  template <class F>
  void walk(std::vector<Phase> phases, int64_t second, F f) const {
    phases.insert(phases.begin(), Phase::product);
    const double flops = 2.0 * double(rows) * double(P * layout_.recurrent + second);
    const auto step = [&](int64_t back, int64_t index, int64_t slice, int64_t slice_end, Part part) {
      const int64_t s = last - 1 - (back - first);
      const Phase phase = phases[std::size_t(index)];
      if (over_rows(phase)) std::tie(slice, slice_end) = sharing_.rows_of(part, slice, slice_end);
      order.runs_back(s, slice, slice_end, [&](int64_t first_row, int64_t last_row, Next next, bool reset) {
        for_groups(phase, first_row, last_row, [&](int64_t a, int64_t b) {
          const Run run{s, a, b - a, order.row(s) + a, reset, next, part};
          if (phase == Phase::product) {
            if (next == Next::step)
              product(run, s + 1 < last ? dproduct_ + (order.row(s + 1) - from) * stride_ : next_);
            return;
          }
          f(phase, run);
          if (phase == Phase::pointwise && layout_.norm) normalize_backward(run);
        });
      });
    };
    sharing_.walk_phases(first, last, int64_t(phases.size()), flops, step);
  }

  // Gradients of the block's inputs and parameters. outers: those of the cell's own weights.
  void end_block(std::vector<OuterProduct<T>> outers = {}) {
    const bool norm = layout_.norm, joint = layout_.joint;
    outers.push_back({rows, p_.x + from * I, I, dinput_, stride_, G, sums_ih_, norm ? nullptr : bias_x_});
    Scratch own;
    this->previous(first, last, own, [&](const T* h_prev, int64_t count, int64_t row) {
      outers.push_back({count, h_prev, P, dproduct_ + (row - from) * stride_, stride_, layout_.recurrent, sums_hh_,
                        norm || joint ? nullptr : bias_h_});
    });
    T* const to = p_.dx ? p_.dx + from * I : nullptr;
    const AffineStep<T> dx{rows, I, {}, {dinput_, stride_, packed_ih_, G}, nullptr, false, to, I};
    gradient_products(k, outers, to ? &dx : nullptr);
    copy(next_, dproduct_ + (order.row(first) - from) * stride_, order.rows(first) * stride_);
  }

  // dh0, and the gradients of the parameters that all cells have.
  void end() const {
    order.runs(0, 0, N, [&](int64_t a, int64_t b, bool reset) {
      if (reset) return zero(p_.dh0 + a * P, (b - a) * P);
      const Run run{0, a, b - a, 0, reset, Next::step, {}};
      product(run, next_);
      k.state_gradient({.rows = run.rows,
                        .units = P,
                        .recurrent = recurrent(run).read(),
                        .mask = this->mask(run),
                        .carry_next = carry(run).read(),
                        .clip = T(o.grad_clip),
                        .out = rows_at(p_.dh0, a, P)});
    });
    add_transposed(k, p_.dweight_ih, sums_ih_, G, 0, G, I);
    this->add_recurrent_gradient(p_.dweight_hh, sums_hh_, 0, layout_.recurrent);
    if (layout_.norm) {
      add_groups(g_.dgain_ih, products_x_, G);
      add_groups(g_.dgain_hh, products_h_, G);
      add_groups(bias_x_, norm_sums_x_, G);
      if (!layout_.joint) add_groups(bias_h_, norm_sums_h_, G);
    }
    for (T* const bias : {p_.dbias_ih, g_.dnorm_bias_ih}) add(bias, bias_x_, G);
    for (T* const bias : {p_.dbias_hh, g_.dnorm_bias_hh}) add(bias, bias_h_, G);
  }

 private:
  int64_t groups() const { return (N + rows_together - 1) / rows_together; }

  void product(const Run& run, const T* dproduct) const {
    const Operand<T> following{dproduct + run.first * stride_, stride_, packed_hh_, layout_.recurrent};
    k.affine({run.rows, P, run.part, following, nullptr, layout_.recurrent < G, recurrent(run).data, P});
  }

  // Of both products; that of x last, since its gradient may take the place of the sums'.
  void normalize_backward(const Run& run) const {
    const T* const row = kept(run);
    k.normalize_backward({run.rows, G, dh_sums(run).read(), layout_.normalized_h(row), layout_.deviation_h(row),
                          o.gain_hh, rows_at(dproduct_, run.row - from, stride_), group_at(products_h_, run, G),
                          group_at(norm_sums_h_, run, G)});
    k.normalize_backward({run.rows, G, dx_sums(run).read(), layout_.normalized_x(row), layout_.deviation_x(row),
                          o.gain_ih, rows_at(dinput_, run.row - from, stride_), group_at(products_x_, run, G),
                          group_at(norm_sums_x_, run, G)});
  }

  const Backward& p_;
  const OptionGradients<T>& g_;
  const GateLayout layout_;
  const int64_t I, G, stride_;
  const T* const weight_hh_;
  const Sharing sharing_;
  T *packed_hh_, *packed_ih_ = nullptr;
  T *dx_sums_, *dh_sums_;            // a block's, as its steps lie in time
  T *dinput_, *dproduct_;            // the same of the products with x and h
  T* next_;                          // dproduct of the step after the block
  T *recurrent_, *carry_ = nullptr;  // [N, P]
  T *sums_ih_, *sums_hh_, *bias_x_, *bias_h_;
  T *products_x_ = nullptr, *products_h_ = nullptr, *norm_sums_x_ = nullptr, *norm_sums_h_ = nullptr;  // of groups
};

}  // namespace fusedrnn
