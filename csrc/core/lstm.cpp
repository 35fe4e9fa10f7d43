#include <optional>

#include "cells.hpp"
#include "dispatch.hpp"
#include "frozen.hpp"
#include "gemm.hpp"
#include "pack.hpp"
#include "sequence.hpp"

namespace fusedrnn {

template <class T>
struct PackedLstm {
  T *ih, *hh, *bias;

  template <class Owner>
  PackedLstm(Owner& memory, int64_t I, int64_t H, const T* weight_ih, const T* weight_hh, const T* bias_ih,
             const T* bias_hh, const KernelTable<T>& kernels) {
    const int64_t wide = padded(H, kernels.lanes);
    ih = memory.template take<T>(4 * wide * I);
    hh = memory.template take<T>(4 * wide * H);
    bias = memory.template take<T>(4 * wide);
    T* const biases = memory.template take<T>(4 * H);
    pack_gates(ih, weight_ih, I, H, 4, kernels, true);
    pack_gates(hh, weight_hh, H, H, 4, kernels, true);
    add_biases(biases, bias_ih, bias_hh, 4 * H);
    pack_bias(bias, biases, H, 4, kernels, true);
  }
};

template <class T>
void lstm_forward(const LstmForward<T>& p, const PackedLstm<T>& packed, const KernelTable<T>& k) {
  const int64_t T_ = p.shape.steps, N = p.shape.batch, I = p.shape.inputs, H = p.shape.hidden;
  Scratch scratch;
  const T* const h0 = p.h0 ? p.h0 : scratch.zeros<T>(N * H);
  const T* const c0 = p.c0 ? p.c0 : scratch.zeros<T>(N * H);
  const T* const zeros = p.shape.resets ? scratch.zeros<T>(H) : nullptr;

  const bool keep = p.reserve != nullptr, separate = input_product_first<T>(p.shape, 4);
  const int64_t R = p.recompute ? H : 5 * H;  // elements of a reserve row, of which c is the last H
  const Sharing sharing(p.shape, 4, separate ? H : I + H, sizeof(T));
  const SpreadRows<T> x_rows(scratch, N, I, !sharing.by_units()), h_rows(scratch, N, H, !sharing.by_units());
  const Steps order(p.shape, p.reverse, 4 * H);
  const int64_t sums_stride = spread<T>(4 * H);
  T* const sums = scratch.take<T>((separate ? order.block_rows() : N) * sums_stride);  // of a step, or of a block's x
  if (!keep) copy(p.c_n, c0, N * H);  // training writes gates and c to the reserve, inference keeps c in c_n

  for (int64_t first = 0, last; first < T_; first = last) {
    last = separate ? order.block_end(first) : T_;
    const int64_t from = order.row_from(first, last), rows = order.count(first, last);
    const auto reserve_at = [&](int64_t s, int64_t a) { return p.reserve + (order.row(s) + a) * R; };
    if (separate)
      parallel_rows(rows, 8.0 * double(rows) * double(I * H), [&](int64_t a, int64_t b) {
        LstmForwardStep<T> step{};
        step.rows = b - a;
        step.units = H;
        step.x = {p.x + (from + a) * I, I, packed.ih, I};
        step.bias = packed.bias;
        step.partial = sums + a * sums_stride;
        step.partial_stride = sums_stride;
        k.lstm_forward(step);
      });
    const double flops = 8.0 * double(rows) * double((separate ? H : I + H) * H);
    sharing.walk(first, last, flops, [&](int64_t s, int64_t slice, int64_t slice_end, Part part) {
      order.runs(s, slice, slice_end, [&](int64_t a, int64_t b, bool reset) {
        const int64_t row = order.row(s) + a;
        LstmForwardStep<T> step{};
        step.rows = b - a;
        step.units = H;
        step.part = part;
        if (!separate) step.x = x_rows.operand(p.x + row * I, a, b - a, packed.ih);
        if (!reset) step.h = h_rows.operand((s == 0 ? h0 : p.y + order.row(s - 1) * H) + a * H, a, b - a, packed.hh);
        step.bias = separate ? nullptr : packed.bias;
        step.finish = true;
        step.keep = keep && !p.recompute;
        step.partial = sums + (separate ? row - from : a) * sums_stride;
        step.partial_stride = sums_stride;
        step.gates = step.keep ? reserve_at(s, a) : nullptr;
        step.gates_stride = R;
        step.c = keep ? reserve_at(s, a) + R - H : p.c_n + a * H;
        step.c_stride = keep ? R : H;
        step.c_prev = s == 0 ? (keep ? c0 : p.c_n) + a * H : keep ? reserve_at(s - 1, a) + R - H : step.c;
        step.c_prev_stride = s == 0 ? H : step.c_stride;
        if (reset) {
          step.c_prev = zeros;
          step.c_prev_stride = 0;
        }
        step.y = p.y + row * H;
        step.y_stride = H;
        k.lstm_forward(step);
      });
    });
  }
  last_states(order, N, H, h0, p.y, H, p.h_n);
  if (keep) last_states(order, N, H, c0, p.reserve + R - H, R, p.c_n);
}

template <class T>
void lstm_forward(const LstmForward<T>& p) {
  const KernelTable<T>& k = kernels<T>();
  Scratch scratch;
  const PackedLstm<T> packed(scratch, p.shape.inputs, p.shape.hidden, p.weight_ih, p.weight_hh, p.bias_ih, p.bias_hh,
                             k);
  lstm_forward(p, packed, k);
}

// What forward would have kept of some rows of several steps, [rows, 5H], again; c_prev has rows of H. With all the
// states known they do not depend on each other.
template <class T>
void lstm_recompute(const KernelTable<T>& k, const PackedLstm<T>& packed, int64_t rows, int64_t I, int64_t H,
                    const T* x, const T* h_prev, const T* c_prev, T* kept) {
  parallel_rows(
      rows, 8.0 * double(rows) * double((I + H) * H),
      [&](int64_t a, int64_t b) {
        Scratch scratch;
        LstmForwardStep<T> step{};
        step.rows = b - a;
        step.units = H;
        step.x = {x + a * I, I, packed.ih, I};
        step.h = {h_prev + a * H, H, packed.hh, H};
        step.bias = packed.bias;
        step.finish = true;
        step.keep = true;
        step.partial_stride = spread<T>(4 * H);
        step.partial = scratch.take<T>((b - a) * step.partial_stride);
        step.gates = kept + a * 5 * H;
        step.gates_stride = step.c_stride = 5 * H;
        step.c = step.gates + 4 * H;
        step.c_prev = c_prev + a * H;
        step.c_prev_stride = H;
        step.y = scratch.take<T>((b - a) * H);
        step.y_stride = H;
        k.lstm_forward(step);
      },
      recompute_rows);
}

template <class T>
void lstm_backward(const LstmBackward<T>& p) {
  const int64_t T_ = p.shape.steps, N = p.shape.batch, I = p.shape.inputs, H = p.shape.hidden;
  const KernelTable<T>& k = kernels<T>();
  const int lanes = k.lanes;
  const int64_t G = 4 * H, D = spread<T>(G);  // elements of a row of dgates, and from row to row
  const int64_t R = p.recompute ? H : 5 * H;  // of a reserve row, of which c is the last H
  Scratch scratch;
  T* const packed_hh = scratch.take<T>(padded(H, lanes) * G);
  pack_columns(packed_hh, p.weight_hh, G, H, lanes);
  T* packed_ih = nullptr;
  if (p.dx) pack_columns(packed_ih = scratch.take<T>(padded(I, lanes) * G), p.weight_ih, G, I, lanes);
  const T* const h0 = p.h0 ? p.h0 : scratch.zeros<T>(N * H);
  const T* const c0 = p.c0 ? p.c0 : scratch.zeros<T>(N * H);

  const Steps order(p.shape, p.reverse, D);
  const Sharing sharing(p.shape, 4, H, sizeof(T));
  T* dgates = scratch.take<T>(order.block_rows() * D);  // a block's, as its steps lie in time
  T* next = scratch.take<T>(N * D);                     // dgates of the step after the block
  T* const sums_ih = outer_sums(k, scratch, I, G);
  T* const sums_hh = outer_sums(k, scratch, H, G);
  T* const bias_sums = scratch.zeros<T>(G);
  const T* const zeros = p.shape.resets ? scratch.zeros<T>(H) : nullptr;
  copy_or_zero(p.dh0, p.dh_n, N * H);  // of rows without steps
  copy_or_zero(p.dc0, p.dc_n, N * H);  // dc of the running step lives here
  std::optional<PackedLstm<T>> forward_weights;
  if (p.recompute) forward_weights.emplace(scratch, I, H, p.weight_ih, p.weight_hh, p.bias_ih, p.bias_hh, k);
  T* const recomputed = p.recompute ? scratch.take<T>(order.block_rows() * 5 * H) : nullptr;

  for (int64_t last = T_, first; last > 0; last = first) {
    first = order.block_begin(last);
    const int64_t from = order.row_from(first, last), rows = order.count(first, last);
    Scratch of_block;
    std::vector<OuterProduct<T>> outers{{rows, p.x + from * I, I, dgates, D, G, sums_ih, bias_sums}};
    order.previous(first, last, H, h0, p.y, of_block, [&](const T* h_prev, int64_t count, int64_t row) {
      outers.push_back({count, h_prev, H, dgates + (row - from) * D, D, G, sums_hh, nullptr});
    });
    if (p.recompute) {
      std::size_t piece = 1;
      order.previous(first, last, H, c0, p.reserve, of_block, [&](const T* c_prev, int64_t count, int64_t row) {
        lstm_recompute(k, *forward_weights, count, I, H, p.x + row * I, outers[piece++].inputs, c_prev,
                       recomputed + (row - from) * 5 * H);
      });
    }
    const double flops = 8.0 * double(rows) * double(H * H);
    sharing.walk(first, last, flops, [&](int64_t index, int64_t slice, int64_t slice_end, Part part) {
      const int64_t s = last - 1 - (index - first);
      order.runs_back(s, slice, slice_end, [&](int64_t a, int64_t b, Next what, bool reset) {
        const int64_t row = order.row(s) + a;
        const T* const following = s + 1 < last ? dgates + (order.row(s + 1) - from) * D : next;
        LstmBackwardStep<T> step{};
        step.rows = b - a;
        step.units = H;
        step.part = part;
        step.dgates_next = {following + a * D, D, packed_hh, what == Next::step ? G : 0};
        step.dy = p.dy ? p.dy + row * H : nullptr;
        step.dy_stride = H;
        step.dh_n = what == Next::end && p.dh_n ? p.dh_n + a * H : nullptr;
        step.gates = p.recompute ? recomputed + (row - from) * 5 * H : p.reserve + row * 5 * H;
        step.gates_stride = 5 * H;
        step.c = step.gates + 4 * H;
        step.c_stride = 5 * H;
        step.dc = p.dc0 + a * H;
        step.dc_stride = H;
        step.dc_next = what == Next::reset ? zeros : step.dc;
        step.dc_next_stride = what == Next::reset ? 0 : H;
        step.dgates = dgates + (row - from) * D;
        step.dgates_stride = D;
        step.c_prev = reset ? zeros : s == 0 ? c0 + a * H : p.reserve + (order.row(s - 1) + a + 1) * R - H;
        step.c_prev_stride = reset ? 0 : s == 0 ? H : R;
        k.lstm_backward(step);
      });
    });
    const AffineStep<T> dx{rows, I, {}, {dgates, D, packed_ih, G}, nullptr, false, p.dx ? p.dx + from * I : nullptr, I};
    gradient_products(k, outers, p.dx ? &dx : nullptr);
    hand_on(order, first, last, N, dgates, next, D);
  }
  order.runs(0, 0, N, [&](int64_t a, int64_t b, bool reset) {
    if (!reset) return k.affine({b - a, H, {}, {next + a * D, D, packed_hh, G}, nullptr, false, p.dh0 + a * H, H});
    zero(p.dh0 + a * H, (b - a) * H);
    zero(p.dc0 + a * H, (b - a) * H);
  });
  add_transposed(k, p.dweight_ih, sums_ih, G, 0, G, I);
  add_transposed(k, p.dweight_hh, sums_hh, G, 0, G, H);
  add(p.dbias_ih, bias_sums, G);
  add(p.dbias_hh, bias_sums, G);
}

template <class T>
class FrozenLstm final : public Frozen<T> {
 public:
  FrozenLstm(int64_t N, int64_t I, int64_t H, const T* weight_ih, const T* weight_hh, const T* bias_ih,
             const T* bias_hh)
      : Frozen<T>(N, I, H),
        kernels_(kernels<T>()),
        packed_(this->memory_, I, H, weight_ih, weight_hh, bias_ih, bias_hh, kernels_),
        sums_(this->memory_.template take<T>(N * 4 * H)),
        c_(this->memory_.template zeros<T>(N * H)) {}

  T* c() override { return c_; }
  bool has_c() const override { return true; }

  void sequence(const Sequence<T>& s) const override {
    LstmForward<T> p{};
    p.shape = {s.steps, s.batch, this->inputs, this->hidden};
    p.reverse = s.reverse;
    p.x = s.x;
    p.h0 = s.h0;
    p.c0 = s.c0;
    p.y = s.y;
    p.h_n = s.h_n;
    p.c_n = s.c_n;
    lstm_forward(p, packed_, kernels_);
  }

 private:
  void advance(const T* x, const T* h_prev, T* h) override {
    const int64_t I = this->inputs, H = this->hidden;
    LstmForwardStep<T> step{};
    step.rows = this->batch;
    step.units = H;
    step.x = {x, I, packed_.ih, I};
    step.h = {h_prev, H, packed_.hh, H};
    step.bias = packed_.bias;
    step.finish = true;
    step.partial = sums_;
    step.partial_stride = 4 * H;
    step.c = c_;
    step.c_prev = c_;
    step.c_stride = step.c_prev_stride = H;
    step.y = h;
    step.y_stride = H;
    kernels_.lstm_forward(step);
  }

  const KernelTable<T>& kernels_;
  PackedLstm<T> packed_;
  T *sums_, *c_;
};

template <class T>
std::unique_ptr<Frozen<T>> frozen_lstm(int64_t N, int64_t I, int64_t H, const T* weight_ih, const T* weight_hh,
                                       const T* bias_ih, const T* bias_hh) {
  return std::make_unique<FrozenLstm<T>>(N, I, H, weight_ih, weight_hh, bias_ih, bias_hh);
}

template std::unique_ptr<Frozen<float>> frozen_lstm(int64_t, int64_t, int64_t, const float*, const float*, const float*,
                                                    const float*);
template std::unique_ptr<Frozen<double>> frozen_lstm(int64_t, int64_t, int64_t, const double*, const double*,
                                                     const double*, const double*);
template void lstm_forward(const LstmForward<float>&);
template void lstm_forward(const LstmForward<double>&);
template void lstm_backward(const LstmBackward<float>&);
template void lstm_backward(const LstmBackward<double>&);

}  // namespace fusedrnn
