#include "cells.hpp"
#include "dispatch.hpp"
#include "frozen.hpp"
#include "gemm.hpp"
#include "pack.hpp"
#include "sequence.hpp"

namespace fusedrnn {

template <class T>
struct PackedRnn {
  T *ih, *hh, *bias;

  template <class Owner>
  PackedRnn(Owner& memory, int64_t I, int64_t H, const T* weight_ih, const T* weight_hh, const T* bias_ih,
            const T* bias_hh, const KernelTable<T>& kernels) {
    const int64_t wide = padded(H, kernels.lanes);
    ih = memory.template take<T>(wide * I);
    hh = memory.template take<T>(wide * H);
    bias = memory.template take<T>(H);
    pack_rows(ih, weight_ih, I, H, kernels);
    pack_rows(hh, weight_hh, H, H, kernels);
    add_biases(bias, bias_ih, bias_hh, H);
  }
};

template <class T>
void rnn_forward(const RnnForward<T>& p, const PackedRnn<T>& packed, const KernelTable<T>& k) {
  const int64_t T_ = p.shape.steps, N = p.shape.batch, I = p.shape.inputs, H = p.shape.hidden;
  Scratch scratch;
  const T* const h0 = p.h0 ? p.h0 : scratch.zeros<T>(N * H);
  const bool separate = input_product_first<T>(p.shape, 1);
  const Sharing sharing(p.shape, 1, separate ? H : I + H, sizeof(T));
  const SpreadRows<T> x_rows(scratch, N, I, !sharing.by_units()), h_rows(scratch, N, H, !sharing.by_units());
  const Steps order(p.shape, p.reverse, H);
  const int64_t block = separate ? order.block() : T_;
  for (int64_t first = 0; first < T_; first += block) {
    const int64_t last = std::min(T_, first + block), from = order.time_from(first, last);
    if (separate)  // the partial sums wait in y
      parallel_rows((last - first) * N, 2.0 * double((last - first) * N) * double(I * H), [&](int64_t a, int64_t b) {
        k.rnn_forward({.rows = b - a,
                       .units = H,
                       .part = {},
                       .x = {p.x + (from * N + a) * I, I, packed.ih, I},
                       .h = {},
                       .bias = packed.bias,
                       .finish = false,
                       .relu = p.relu,
                       .y = p.y + (from * N + a) * H,
                       .y_stride = H});
      });
    const double flops = 2.0 * double((last - first) * N) * double((separate ? H : I + H) * H);
    sharing.walk(first, last, flops, [&](int64_t s, int64_t a, int64_t b, Part part) {
      const int64_t t = order.time(s);
      const T* const h_prev = (s == 0 ? h0 : p.y + order.time(s - 1) * N * H) + a * H;
      k.rnn_forward({.rows = b - a,
                     .units = H,
                     .part = part,
                     .x = separate ? Operand<T>{} : x_rows.operand(p.x + (t * N + a) * I, a, b - a, packed.ih),
                     .h = h_rows.operand(h_prev, a, b - a, packed.hh),
                     .bias = separate ? nullptr : packed.bias,
                     .finish = true,
                     .relu = p.relu,
                     .y = p.y + (t * N + a) * H,
                     .y_stride = H});
    });
  }
  copy(p.h_n, p.y + order.time(T_ - 1) * N * H, N * H);
}

template <class T>
void rnn_forward(const RnnForward<T>& p) {
  const KernelTable<T>& k = kernels<T>();
  Scratch scratch;
  const PackedRnn<T> packed(scratch, p.shape.inputs, p.shape.hidden, p.weight_ih, p.weight_hh, p.bias_ih, p.bias_hh, k);
  rnn_forward(p, packed, k);
}

template <class T>
void rnn_backward(const RnnBackward<T>& p) {
  const int64_t T_ = p.shape.steps, N = p.shape.batch, I = p.shape.inputs, H = p.shape.hidden;
  const KernelTable<T>& k = kernels<T>();
  Scratch scratch;
  T* const packed_hh = scratch.take<T>(padded(H, k.lanes) * H);
  pack_columns(packed_hh, p.weight_hh, H, H, k.lanes);
  T* packed_ih = nullptr;
  if (p.dx) pack_columns(packed_ih = scratch.take<T>(padded(I, k.lanes) * H), p.weight_ih, H, I, k.lanes);
  const T* const h0 = p.h0 ? p.h0 : scratch.zeros<T>(N * H);

  const Steps order(p.shape, p.reverse, H);
  const Sharing sharing(p.shape, 1, H, sizeof(T));
  T* dz = scratch.take<T>(order.block() * N * H);  // a block's times, ascending
  T* next = scratch.take<T>(N * H);                // dz of the step after the block
  T* const sums_ih = outer_sums(k, scratch, I, H);
  T* const sums_hh = outer_sums(k, scratch, H, H);
  T* const bias_sums = scratch.zeros<T>(H);

  for (int64_t last = T_; last > 0;) {
    const int64_t first = std::max<int64_t>(0, last - order.block()), from = order.time_from(first, last);
    const double flops = 2.0 * double((last - first) * N) * double(H * H);
    sharing.walk(first, last, flops, [&](int64_t index, int64_t a, int64_t b, Part part) {
      const int64_t s = last - 1 - (index - first), t = order.time(s);
      const T* following = s + 1 < last ? dz + (order.time(s + 1) - from) * N * H : next;
      k.rnn_backward({.rows = b - a,
                      .units = H,
                      .part = part,
                      .dz_next = {following + a * H, H, packed_hh, s == T_ - 1 ? 0 : H},
                      .dy = p.dy ? p.dy + (t * N + a) * H : nullptr,
                      .dy_stride = H,
                      .dh_n = s == T_ - 1 && p.dh_n ? p.dh_n + a * H : nullptr,
                      .y = p.y + (t * N + a) * H,
                      .y_stride = H,
                      .relu = p.relu,
                      .dz = dz + ((t - from) * N + a) * H,
                      .dz_stride = H});
    });
    std::vector<OuterProduct<T>> outers{{(last - first) * N, p.x + from * N * I, I, dz, H, H, sums_ih, bias_sums}};
    for_previous_states(p.shape, p.reverse, first, last, [&](int64_t steps, int64_t time, int64_t before) {
      outers.push_back(
          {steps * N, before < 0 ? h0 : p.y + before * N * H, H, dz + (time - from) * N * H, H, H, sums_hh, nullptr});
    });
    const AffineStep<T> dx{
        (last - first) * N, I, {}, {dz, H, packed_ih, H}, nullptr, false, p.dx ? p.dx + from * N * I : nullptr, I};
    gradient_products(k, outers, p.dx ? &dx : nullptr);
    hand_on(order, dz, next, (order.time(first) - from) * N * H, N * H);
    last = first;
  }
  k.affine({N, H, {}, {next, H, packed_hh, H}, nullptr, false, p.dh0, H});
  add_transposed(k, p.dweight_ih, sums_ih, H, 0, H, I);
  add_transposed(k, p.dweight_hh, sums_hh, H, 0, H, H);
  add(p.dbias_ih, bias_sums, H);
  add(p.dbias_hh, bias_sums, H);
}

template <class T>
class FrozenRnn final : public Frozen<T> {
 public:
  FrozenRnn(int64_t N, int64_t I, int64_t H, bool relu, const T* weight_ih, const T* weight_hh, const T* bias_ih,
            const T* bias_hh)
      : Frozen<T>(N, I, H),
        kernels_(kernels<T>()),
        packed_(this->memory_, I, H, weight_ih, weight_hh, bias_ih, bias_hh, kernels_),
        relu_(relu) {}

  void sequence(const Sequence<T>& s) const override {
    RnnForward<T> p{};
    p.shape = {s.steps, s.batch, this->inputs, this->hidden};
    p.relu = relu_;
    p.reverse = s.reverse;
    p.x = s.x;
    p.h0 = s.h0;
    p.y = s.y;
    p.h_n = s.h_n;
    rnn_forward(p, packed_, kernels_);
  }

 private:
  void advance(const T* x, const T* h_prev, T* h) override {
    const int64_t I = this->inputs, H = this->hidden;
    kernels_.rnn_forward({.rows = this->batch,
                          .units = H,
                          .part = {},
                          .x = {x, I, packed_.ih, I},
                          .h = {h_prev, H, packed_.hh, H},
                          .bias = packed_.bias,
                          .finish = true,
                          .relu = relu_,
                          .y = h,
                          .y_stride = H});
  }

  const KernelTable<T>& kernels_;
  PackedRnn<T> packed_;
  bool relu_;
};

template <class T>
std::unique_ptr<Frozen<T>> frozen_rnn(int64_t N, int64_t I, int64_t H, bool relu, const T* weight_ih,
                                      const T* weight_hh, const T* bias_ih, const T* bias_hh) {
  return std::make_unique<FrozenRnn<T>>(N, I, H, relu, weight_ih, weight_hh, bias_ih, bias_hh);
}

template std::unique_ptr<Frozen<float>> frozen_rnn(int64_t, int64_t, int64_t, bool, const float*, const float*,
                                                   const float*, const float*);
template std::unique_ptr<Frozen<double>> frozen_rnn(int64_t, int64_t, int64_t, bool, const double*, const double*,
                                                    const double*, const double*);
template void rnn_forward(const RnnForward<float>&);
template void rnn_forward(const RnnForward<double>&);
template void rnn_backward(const RnnBackward<float>&);
template void rnn_backward(const RnnBackward<double>&);

}  // namespace fusedrnn
