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

  const bool keep = p.reserve != nullptr, separate = input_product_first<T>(p.shape, 4);
  const int64_t R = p.recompute ? H : 5 * H;  // elements of a reserve row, of which c is the last H
  const Sharing sharing(p.shape, 4, separate ? H : I + H, sizeof(T));
  const SpreadRows<T> x_rows(scratch, N, I, !sharing.by_units()), h_rows(scratch, N, H, !sharing.by_units());
  const Steps order(p.shape, p.reverse, 4 * H);
  const int64_t block = separate ? order.block() : T_;
  const int64_t sums_stride = spread<T>(4 * H);
  T* const sums =
      scratch.take<T>((separate ? block : 1) * N * sums_stride);  // of a step, or of a block's input product
  if (!keep) copy(p.c_n, c0, N * H);  // training writes gates and c to the reserve, inference keeps c in c_n

  for (int64_t first = 0; first < T_; first += block) {
    const int64_t last = std::min(T_, first + block), from = order.time_from(first, last);
    const auto sums_at = [&](int64_t t) { return sums + (separate ? t - from : 0) * N * sums_stride; };
    const auto reserve_at = [&](int64_t t, int64_t a) { return p.reserve + (t * N + a) * R; };
    if (separate)
      parallel_rows((last - first) * N, 8.0 * double((last - first) * N) * double(I * H), [&](int64_t a, int64_t b) {
        LstmForwardStep<T> step{};
        step.rows = b - a;
        step.units = H;
        step.x = {p.x + (from * N + a) * I, I, packed.ih, I};
        step.bias = packed.bias;
        step.partial = sums_at(from) + a * sums_stride;
        step.partial_stride = sums_stride;
        k.lstm_forward(step);
      });
    const double flops = 8.0 * double((last - first) * N) * double((separate ? H : I + H) * H);
    sharing.walk(first, last, flops, [&](int64_t s, int64_t a, int64_t b, Part part) {
      const int64_t t = order.time(s), before = order.time(s - 1);
      LstmForwardStep<T> step{};
      step.rows = b - a;
      step.units = H;
      step.part = part;
      if (!separate) step.x = x_rows.operand(p.x + (t * N + a) * I, a, b - a, packed.ih);
      step.h = h_rows.operand((s == 0 ? h0 : p.y + before * N * H) + a * H, a, b - a, packed.hh);
      step.bias = separate ? nullptr : packed.bias;
      step.finish = true;
      step.keep = keep && !p.recompute;
      step.partial = sums_at(t) + a * sums_stride;
      step.partial_stride = sums_stride;
      step.gates = step.keep ? reserve_at(t, a) : nullptr;
      step.gates_stride = R;
      step.c = keep ? reserve_at(t, a) + R - H : p.c_n + a * H;
      step.c_stride = keep ? R : H;
      step.c_prev = s == 0 ? (keep ? c0 : p.c_n) + a * H : keep ? reserve_at(before, a) + R - H : step.c;
      step.c_prev_stride = s == 0 ? H : step.c_stride;
      step.y = p.y + (t * N + a) * H;
      step.y_stride = H;
      k.lstm_forward(step);
    });
  }
  const int64_t end = order.time(T_ - 1);
  copy(p.h_n, p.y + end * N * H, N * H);
  if (keep)
    for (int64_t n = 0; n < N; ++n) copy(p.c_n + n * H, p.reserve + (end * N + n + 1) * R - H, H);
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
  T* dgates = scratch.take<T>(order.block() * N * D);  // a block's times, ascending
  T* next = scratch.take<T>(N * D);                    // dgates of the step after the block
  T* const sums_ih = outer_sums(k, scratch, I, G);
  T* const sums_hh = outer_sums(k, scratch, H, G);
  T* const bias_sums = scratch.zeros<T>(G);
  copy_or_zero(p.dc0, p.dc_n, N * H);  // dc of the running step lives here
  std::optional<PackedLstm<T>> forward_weights;
  if (p.recompute) forward_weights.emplace(scratch, I, H, p.weight_ih, p.weight_hh, p.bias_ih, p.bias_hh, k);
  T* const recomputed = p.recompute ? scratch.take<T>(order.block() * N * 5 * H) : nullptr;

  for (int64_t last = T_; last > 0;) {
    const int64_t first = std::max<int64_t>(0, last - order.block()), from = order.time_from(first, last);
    if (p.recompute)
      for_previous_states(p.shape, p.reverse, first, last, [&](int64_t steps, int64_t time, int64_t before) {
        const bool starts = before < 0;
        lstm_recompute(k, *forward_weights, steps * N, I, H, p.x + time * N * I, starts ? h0 : p.y + before * N * H,
                       starts ? c0 : p.reserve + before * N * H, recomputed + (time - from) * N * 5 * H);
      });
    const double flops = 8.0 * double((last - first) * N) * double(H * H);
    sharing.walk(first, last, flops, [&](int64_t index, int64_t a, int64_t b, Part part) {
      const int64_t s = last - 1 - (index - first), t = order.time(s);
      const T* following = s + 1 < last ? dgates + (order.time(s + 1) - from) * N * D : next;
      LstmBackwardStep<T> step{};
      step.rows = b - a;
      step.units = H;
      step.part = part;
      step.dgates_next = {following + a * D, D, packed_hh, s == T_ - 1 ? 0 : G};
      step.dy = p.dy ? p.dy + (t * N + a) * H : nullptr;
      step.dy_stride = H;
      step.dh_n = s == T_ - 1 && p.dh_n ? p.dh_n + a * H : nullptr;
      step.gates = p.recompute ? recomputed + ((t - from) * N + a) * 5 * H : p.reserve + (t * N + a) * 5 * H;
      step.gates_stride = 5 * H;
      step.c = step.gates + 4 * H;
      step.c_stride = 5 * H;
      step.c_prev = s == 0 ? c0 + a * H : p.reserve + (order.time(s - 1) * N + a + 1) * R - H;
      step.c_prev_stride = s == 0 ? H : R;
      step.dc = p.dc0 + a * H;
      step.dc_stride = H;
      step.dgates = dgates + ((t - from) * N + a) * D;
      step.dgates_stride = D;
      k.lstm_backward(step);
    });
    std::vector<OuterProduct<T>> outers{{(last - first) * N, p.x + from * N * I, I, dgates, D, G, sums_ih, bias_sums}};
    for_previous_states(p.shape, p.reverse, first, last, [&](int64_t steps, int64_t time, int64_t before) {
      outers.push_back({steps * N, before < 0 ? h0 : p.y + before * N * H, H, dgates + (time - from) * N * D, D, G,
                        sums_hh, nullptr});
    });
    const AffineStep<T> dx{
        (last - first) * N, I, {}, {dgates, D, packed_ih, G}, nullptr, false, p.dx ? p.dx + from * N * I : nullptr, I};
    gradient_products(k, outers, p.dx ? &dx : nullptr);
    hand_on(order, dgates, next, (order.time(first) - from) * N * D, N * D);
    last = first;
  }
  k.affine({N, H, {}, {next, D, packed_hh, G}, nullptr, false, p.dh0, H});
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
