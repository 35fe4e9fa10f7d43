#include <optional>

#include "cells.hpp"
#include "dispatch.hpp"
#include "frozen.hpp"
#include "gemm.hpp"
#include "pack.hpp"
#include "sequence.hpp"

namespace fusedrnn {
namespace {

// The input product, and with reset after also the recurrent one, start from these sums: r and z take both
// biases; n takes both where one chain makes it (reset before), else b_in, and b_hn starts the chain of W_hn h.
template <class T>
void gru_biases(T* dst, const T* ih, const T* hh, int64_t units, bool reset_after) {
  const int64_t shared = (reset_after ? 2 : 3) * units;
  add_biases(dst, ih, hh, shared);
  if (!reset_after) return;
  copy_or_zero(dst + 2 * units, ih ? ih + 2 * units : nullptr, units);
  copy_or_zero(dst + 3 * units, hh ? hh + 2 * units : nullptr, units);
}

}  // namespace

template <class T>
struct PackedGru {
  bool after;
  T *ih, *hh, *hn, *bias;  // hn with reset before alone, where hh has r and z

  template <class Owner>
  PackedGru(Owner& memory, int64_t I, int64_t H, bool reset_after, const T* weight_ih, const T* weight_hh,
            const T* bias_ih, const T* bias_hh, const KernelTable<T>& kernels)
      : after(reset_after), hn(nullptr) {
    const int64_t wide = padded(H, kernels.lanes);
    const int kept = after ? 4 : 3;  // sums per unit
    ih = memory.template take<T>(3 * wide * I);
    hh = memory.template take<T>((after ? 3 : 2) * wide * H);
    bias = memory.template take<T>(kept * wide);
    T* const biases = memory.template take<T>(kept * H);
    pack_gates(ih, weight_ih, I, H, 3, kernels, false);
    pack_gates(hh, weight_hh, H, H, after ? 3 : 2, kernels, false);
    if (!after) pack_rows(hn = memory.template take<T>(wide * H), weight_hh + 2 * H * H, H, H, kernels);
    gru_biases(biases, bias_ih, bias_hh, H, after);
    pack_bias(bias, biases, H, kept, kernels, false);
  }
};

// One step of some rows. With reset before there are two phases: the first leaves r * h in reset_h [rows, H], and from
// all of its units the second makes y.
template <class T>
void gru_step(const KernelTable<T>& k, const PackedGru<T>& packed, GruForwardStep<T> step, T* reset_h, int64_t phase) {
  if (packed.after) return k.gru_forward(step);
  const int64_t H = step.units;
  T* const y = step.y;
  step.y = reset_h;
  if (phase == 0) return k.gru_reset_forward(step);
  k.gru_candidate({.rows = step.rows,
                   .units = H,
                   .part = step.part,
                   .reset_h = {reset_h, H, packed.hn, H},
                   .keep = step.keep,
                   .gates = step.gates,
                   .gates_stride = step.gates_stride,
                   .h_prev = step.h_prev,
                   .h_prev_stride = step.h_prev_stride,
                   .y = y,
                   .y_stride = H});
}

template <class T>
void gru_forward(const GruForward<T>& p, const PackedGru<T>& packed, const KernelTable<T>& k) {
  const int64_t T_ = p.shape.steps, N = p.shape.batch, I = p.shape.inputs, H = p.shape.hidden;
  const bool after = p.reset_after;
  const int G = after ? 4 : 3;  // values kept per unit
  const int64_t phases = after ? 1 : 2;
  Scratch scratch;
  const T* const h0 = p.h0 ? p.h0 : scratch.zeros<T>(N * H);
  T* const reset_h = after ? nullptr : scratch.take<T>(N * H);

  const T* const zeros = p.shape.resets ? scratch.zeros<T>(H) : nullptr;
  const bool keep = p.reserve != nullptr, separate = input_product_first<T>(p.shape, 3);
  const Sharing sharing(p.shape, 3, separate ? H : I + H, sizeof(T));
  const SpreadRows<T> x_rows(scratch, N, I, !sharing.by_units()), h_rows(scratch, N, H, !sharing.by_units());
  const Steps order(p.shape, p.reverse, G * H);
  const int64_t stride = G * H;
  // Sums rest by themselves, of a step or of a block's input product; with reset before they become the gates.
  const int64_t sums_stride = after ? spread<T>(stride) : stride;
  T* const sums = !after && keep ? p.reserve : scratch.take<T>((separate ? order.block_rows() : N) * sums_stride);

  for (int64_t first = 0, last; first < T_; first = last) {
    last = separate ? order.block_end(first) : T_;
    const int64_t from = order.row_from(first, last), rows = order.count(first, last);
    const auto sums_at = [&](int64_t row, int64_t a) {
      return sums + (!after && keep ? row : separate ? row - from : a) * sums_stride;
    };
    if (separate)
      parallel_rows(rows, 6.0 * double(rows) * double(I * H), [&](int64_t a, int64_t b) {
        GruForwardStep<T> step{};
        step.rows = b - a;
        step.units = H;
        step.x = {p.x + (from + a) * I, I, packed.ih, I};
        step.bias = packed.bias;
        step.partial = step.gates = sums_at(from + a, a);
        step.partial_stride = step.gates_stride = sums_stride;
        gru_step(k, packed, step, reset_h, 0);
      });
    const double flops = 6.0 * double(rows) * double((separate ? H : I + H) * H);
    sharing.walk_phases(first, last, phases, flops,
                        [&](int64_t s, int64_t phase, int64_t slice, int64_t slice_end, Part part) {
                          order.runs(s, slice, slice_end, [&](int64_t a, int64_t b, bool reset) {
                            const int64_t row = order.row(s) + a;
                            const T* const before = (s == 0 ? h0 : p.y + order.row(s - 1) * H) + a * H;
                            GruForwardStep<T> step{};
                            step.rows = b - a;
                            step.units = H;
                            step.part = part;
                            if (!separate) step.x = x_rows.operand(p.x + row * I, a, b - a, packed.ih);
                            if (!reset) step.h = h_rows.operand(before, a, b - a, packed.hh);
                            step.bias = separate ? nullptr : packed.bias;
                            step.finish = true;
                            step.keep = keep;
                            step.partial = sums_at(row, a);
                            step.partial_stride = sums_stride;
                            step.gates = keep ? p.reserve + row * stride : step.partial;
                            step.gates_stride = stride;
                            step.h_prev = reset ? zeros : before;
                            step.h_prev_stride = reset ? 0 : H;
                            step.y = p.y + row * H;
                            step.y_stride = H;
                            gru_step(k, packed, step, after ? nullptr : reset_h + a * H, phase);
                          });
                        });
  }
  last_states(order, N, H, h0, p.y, H, p.h_n);
}

template <class T>
void gru_forward(const GruForward<T>& p) {
  const KernelTable<T>& k = kernels<T>();
  Scratch scratch;
  const PackedGru<T> packed(scratch, p.shape.inputs, p.shape.hidden, p.reset_after, p.weight_ih, p.weight_hh, p.bias_ih,
                            p.bias_hh, k);
  gru_forward(p, packed, k);
}

// What forward would have kept of some rows of several steps, [rows, 4H or 3H], again. With all the states known they
// do not depend on each other.
template <class T>
void gru_recompute(const KernelTable<T>& k, const PackedGru<T>& packed, int64_t rows, int64_t I, int64_t H, const T* x,
                   const T* h_prev, T* kept) {
  const int64_t G = (packed.after ? 4 : 3) * H;
  parallel_rows(
      rows, 6.0 * double(rows) * double((I + H) * H),
      [&](int64_t a, int64_t b) {
        Scratch scratch;
        T* const reset_h = packed.after ? nullptr : scratch.take<T>((b - a) * H);
        GruForwardStep<T> step{};
        step.rows = b - a;
        step.units = H;
        step.x = {x + a * I, I, packed.ih, I};
        step.h = {h_prev + a * H, H, packed.hh, H};
        step.bias = packed.bias;
        step.finish = true;
        step.keep = true;
        step.gates = kept + a * G;
        step.gates_stride = G;
        step.partial_stride = packed.after ? spread<T>(G) : G;  // with reset before, the sums become the gates
        step.partial = packed.after ? scratch.take<T>((b - a) * step.partial_stride) : step.gates;
        step.h_prev = h_prev + a * H;
        step.h_prev_stride = H;
        step.y = scratch.take<T>((b - a) * H);
        step.y_stride = H;
        for (int64_t phase = 0; phase < (packed.after ? 1 : 2); ++phase) gru_step(k, packed, step, reset_h, phase);
      },
      recompute_rows);
}

template <class T>
void gru_backward(const GruBackward<T>& p) {
  const int64_t T_ = p.shape.steps, N = p.shape.batch, I = p.shape.inputs, H = p.shape.hidden;
  const KernelTable<T>& k = kernels<T>();
  const int lanes = k.lanes;
  const bool after = p.reset_after;
  const int64_t G = (after ? 4 : 3) * H;  // of a reserve row and of a dgates row
  const int64_t S = spread<T>(G);         // from one dgates row to the next
  const int64_t phases = after ? 1 : 2;
  const int64_t D = (after ? 3 : 2) * H;  // terms of the recurrent product: dr, dz, (dnh)
  const int64_t HH = H * H, IH = H * I;
  Scratch scratch;
  T* const packed_hh = scratch.take<T>(padded(H, lanes) * D);
  pack_columns(packed_hh, p.weight_hh, D, H, lanes);
  T* packed_hn = nullptr;
  if (!after) pack_columns(packed_hn = scratch.take<T>(padded(H, lanes) * H), p.weight_hh + 2 * HH, H, H, lanes);
  T* packed_ih = nullptr;
  if (p.dx) {
    // dgates rows begin with dn, dr, dz: the weights follow that order.
    T* const ordered = scratch.take<T>(3 * IH);
    copy(ordered, p.weight_ih + 2 * IH, IH);
    copy(ordered + IH, p.weight_ih, 2 * IH);
    pack_columns(packed_ih = scratch.take<T>(padded(I, lanes) * 3 * H), ordered, 3 * H, I, lanes);
  }
  const T* const h0 = p.h0 ? p.h0 : scratch.zeros<T>(N * H);

  const Steps order(p.shape, p.reverse, S);
  const Sharing sharing(p.shape, 3, H, sizeof(T));
  T* dgates = scratch.take<T>(order.block_rows() * S);                           // a block's, as its steps lie in time
  T* next = scratch.take<T>(N * S);                                              // dgates of the step after the block
  T* const reset_h = after ? nullptr : scratch.take<T>(order.block_rows() * H);  // r * h_prev
  T* const sums_ih = outer_sums(k, scratch, I, 3 * H);
  T* const sums_hh = outer_sums(k, scratch, H, D);
  T* const sums_hn = after ? nullptr : outer_sums(k, scratch, H, H);
  T* const bias_ih = scratch.zeros<T>(3 * H);
  T* const bias_hh = scratch.zeros<T>(D);
  const T* const zeros = p.shape.resets ? scratch.zeros<T>(H) : nullptr;
  T* const carry = p.dh0;  // what passes by the weights from step to step
  copy_or_zero(carry, p.dh_n, N * H);
  std::optional<PackedGru<T>> forward_weights;
  if (p.recompute) forward_weights.emplace(scratch, I, H, after, p.weight_ih, p.weight_hh, p.bias_ih, p.bias_hh, k);
  T* const recomputed = p.recompute ? scratch.take<T>(order.block_rows() * G) : nullptr;

  for (int64_t last = T_, first; last > 0; last = first) {
    first = order.block_begin(last);
    const int64_t from = order.row_from(first, last), rows = order.count(first, last);
    Scratch of_block;
    std::vector<OuterProduct<T>> outers{{rows, p.x + from * I, I, dgates, S, 3 * H, sums_ih, bias_ih}};
    order.previous(first, last, H, h0, p.y, of_block, [&](const T* h_prev, int64_t count, int64_t row) {
      outers.push_back({count, h_prev, H, dgates + (row - from) * S + H, S, D, sums_hh, bias_hh});
      if (p.recompute)
        gru_recompute(k, *forward_weights, count, I, H, p.x + row * I, h_prev, recomputed + (row - from) * G);
    });
    if (!after) outers.push_back({rows, reset_h, H, dgates, S, H, sums_hn, nullptr});
    const double flops = 6.0 * double(rows) * double(HH);
    sharing.walk_phases(first, last, phases, flops,
                        [&](int64_t index, int64_t phase, int64_t slice, int64_t slice_end, Part part) {
                          const int64_t s = last - 1 - (index - first);
                          order.runs_back(s, slice, slice_end, [&](int64_t a, int64_t b, Next what, bool reset) {
                            const int64_t row = order.row(s) + a;
                            const T* const following = s + 1 < last ? dgates + (order.row(s + 1) - from) * S : next;
                            GruBackwardStep<T> step{};
                            step.rows = b - a;
                            step.units = H;
                            step.part = part;
                            step.dgates_next = {following + a * S + H, S, packed_hh, what == Next::step ? D : 0};
                            step.dy = p.dy ? p.dy + row * H : nullptr;
                            step.dy_stride = H;
                            step.gates = p.recompute ? recomputed + (row - from) * G : p.reserve + row * G;
                            step.gates_stride = G;
                            step.h_prev = reset ? zeros : (s == 0 ? h0 : p.y + order.row(s - 1) * H) + a * H;
                            step.h_prev_stride = reset ? 0 : H;
                            step.carry = carry + a * H;
                            step.carry_stride = H;
                            step.carry_next = what == Next::reset ? zeros : step.carry;
                            step.carry_next_stride = what == Next::reset ? 0 : H;
                            step.dgates = dgates + (row - from) * S;
                            step.dgates_stride = S;
                            if (phase == 0)
                              (after ? k.gru_backward : k.gru_before_backward)(step);
                            else
                              k.gru_reset_backward({.rows = b - a,
                                                    .units = H,
                                                    .part = part,
                                                    .dn = {step.dgates, S, packed_hn, H},
                                                    .gates = step.gates,
                                                    .gates_stride = G,
                                                    .h_prev = step.h_prev,
                                                    .h_prev_stride = step.h_prev_stride,
                                                    .carry = step.carry,
                                                    .carry_stride = H,
                                                    .dr = step.dgates + H,
                                                    .dr_stride = S,
                                                    .reset_h = reset_h + (row - from) * H,
                                                    .reset_h_stride = H});
                          });
                        });
    const AffineStep<T> dx{rows, I, {}, {dgates, S, packed_ih, 3 * H}, nullptr, false, p.dx ? p.dx + from * I : nullptr,
                           I};
    gradient_products(k, outers, p.dx ? &dx : nullptr);
    hand_on(order, first, last, N, dgates, next, S);
  }
  order.runs(0, 0, N, [&](int64_t a, int64_t b, bool reset) {
    if (reset) return zero(p.dh0 + a * H, (b - a) * H);
    k.affine({b - a, H, {}, {next + a * S + H, S, packed_hh, D}, nullptr, true, p.dh0 + a * H, H});
  });
  add_transposed(k, p.dweight_ih, sums_ih, 3 * H, H, 2 * H, I);
  add_transposed(k, p.dweight_ih + 2 * IH, sums_ih, 3 * H, 0, H, I);
  add_transposed(k, p.dweight_hh, sums_hh, D, 0, D, H);
  if (!after) add_transposed(k, p.dweight_hh + 2 * HH, sums_hn, H, 0, H, H);
  if (p.dbias_ih) {
    add(p.dbias_ih, bias_ih + H, 2 * H);
    add(p.dbias_ih + 2 * H, bias_ih, H);
  }
  if (p.dbias_hh) {
    add(p.dbias_hh, bias_hh, D);
    if (!after) add(p.dbias_hh + 2 * H, bias_ih, H);
  }
}

template <class T>
class FrozenGru final : public Frozen<T> {
 public:
  FrozenGru(int64_t N, int64_t I, int64_t H, bool reset_after, const T* weight_ih, const T* weight_hh, const T* bias_ih,
            const T* bias_hh)
      : Frozen<T>(N, I, H),
        kernels_(kernels<T>()),
        packed_(this->memory_, I, H, reset_after, weight_ih, weight_hh, bias_ih, bias_hh, kernels_),
        gates_(this->memory_.template take<T>(N * 4 * H)),
        reset_h_(this->memory_.template take<T>(N * H)) {}

  void sequence(const Sequence<T>& s) const override {
    GruForward<T> p{};
    p.shape = {s.steps, s.batch, this->inputs, this->hidden};
    p.reset_after = packed_.after;
    p.reverse = s.reverse;
    p.x = s.x;
    p.h0 = s.h0;
    p.y = s.y;
    p.h_n = s.h_n;
    gru_forward(p, packed_, kernels_);
  }

 private:
  void advance(const T* x, const T* h_prev, T* h) override {
    const int64_t I = this->inputs, H = this->hidden;
    GruForwardStep<T> step{};
    step.rows = this->batch;
    step.units = H;
    step.x = {x, I, packed_.ih, I};
    step.h = {h_prev, H, packed_.hh, H};
    step.bias = packed_.bias;
    step.finish = true;
    step.partial = step.gates = gates_;
    step.partial_stride = step.gates_stride = 4 * H;
    step.h_prev = h_prev;
    step.h_prev_stride = H;
    step.y = h;
    step.y_stride = H;
    for (int64_t phase = 0; phase < (packed_.after ? 1 : 2); ++phase)
      gru_step(kernels_, packed_, step, reset_h_, phase);
  }

  const KernelTable<T>& kernels_;
  PackedGru<T> packed_;
  T *gates_, *reset_h_;
};

template <class T>
std::unique_ptr<Frozen<T>> frozen_gru(int64_t N, int64_t I, int64_t H, bool reset_after, const T* weight_ih,
                                      const T* weight_hh, const T* bias_ih, const T* bias_hh) {
  return std::make_unique<FrozenGru<T>>(N, I, H, reset_after, weight_ih, weight_hh, bias_ih, bias_hh);
}

template std::unique_ptr<Frozen<float>> frozen_gru(int64_t, int64_t, int64_t, bool, const float*, const float*,
                                                   const float*, const float*);
template std::unique_ptr<Frozen<double>> frozen_gru(int64_t, int64_t, int64_t, bool, const double*, const double*,
                                                    const double*, const double*);
template void gru_forward(const GruForward<float>&);
template void gru_forward(const GruForward<double>&);
template void gru_backward(const GruBackward<float>&);
template void gru_backward(const GruBackward<double>&);

}  // namespace fusedrnn
