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
  for (int64_t first = 0, last; first < T_; first = last) {
    last = separate ? order.block_end(first) : T_;
    const int64_t from = order.row_from(first, last), rows = order.count(first, last);
    if (separate)  // the partial sums wait in y
      parallel_rows(rows, 2.0 * double(rows) * double(I * H), [&](int64_t a, int64_t b) {
        k.rnn_forward({.rows = b - a,
                       .units = H,
                       .part = {},
                       .x = {p.x + (from + a) * I, I, packed.ih, I},
                       .h = {},
                       .bias = packed.bias,
                       .finish = false,
                       .relu = p.relu,
                       .y = p.y + (from + a) * H,
                       .y_stride = H});
      });
    const double flops = 2.0 * double(rows) * double((separate ? H : I + H) * H);
    sharing.walk(first, last, flops, [&](int64_t s, int64_t slice, int64_t slice_end, Part part) {
      order.runs(s, slice, slice_end, [&](int64_t a, int64_t b, bool reset) {
        const int64_t row = order.row(s) + a;
        const T* const h_prev = (s == 0 ? h0 : p.y + order.row(s - 1) * H) + a * H;
        k.rnn_forward({.rows = b - a,
                       .units = H,
                       .part = part,
                       .x = separate ? Operand<T>{} : x_rows.operand(p.x + row * I, a, b - a, packed.ih),
                       .h = reset ? Operand<T>{} : h_rows.operand(h_prev, a, b - a, packed.hh),
                       .bias = separate ? nullptr : packed.bias,
                       .finish = true,
                       .relu = p.relu,
                       .y = p.y + row * H,
                       .y_stride = H});
      });
    });
  }
  last_states(order, N, H, h0, p.y, H, p.h_n);
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
  T* dz = scratch.take<T>(order.block_rows() * H);  // a block's, as its steps lie in time
  T* next = scratch.take<T>(N * H);                 // dz of the step after the block
  T* const sums_ih = outer_sums(k, scratch, I, H);
  T* const sums_hh = outer_sums(k, scratch, H, H);
  T* const bias_sums = scratch.zeros<T>(H);
  copy_or_zero(p.dh0, p.dh_n, N * H);  // of rows without steps

  for (int64_t last = T_, first; last > 0; last = first) {
    first = order.block_begin(last);
    const int64_t from = order.row_from(first, last), rows = order.count(first, last);
    const double flops = 2.0 * double(rows) * double(H * H);
    sharing.walk(first, last, flops, [&](int64_t index, int64_t slice, int64_t slice_end, Part part) {
      const int64_t s = last - 1 - (index - first);
      order.runs_back(s, slice, slice_end, [&](int64_t a, int64_t b, Next what, bool) {
        const int64_t row = order.row(s) + a;
        const T* const following = s + 1 < last ? dz + (order.row(s + 1) - from) * H : next;
        k.rnn_backward({.rows = b - a,
                        .units = H,
                        .part = part,
                        .dz_next = {following + a * H, H, packed_hh, what == Next::step ? H : 0},
                        .dy = p.dy ? p.dy + row * H : nullptr,
                        .dy_stride = H,
                        .dh_n = what == Next::end && p.dh_n ? p.dh_n + a * H : nullptr,
                        .y = p.y + row * H,
                        .y_stride = H,
                        .relu = p.relu,
                        .dz = dz + (row - from) * H,
                        .dz_stride = H});
      });
    });
    Scratch of_block;
    std::vector<OuterProduct<T>> outers{{rows, p.x + from * I, I, dz, H, H, sums_ih, bias_sums}};
    order.previous(first, last, H, h0, p.y, of_block, [&](const T* h_prev, int64_t count, int64_t row) {
      outers.push_back({count, h_prev, H, dz + (row - from) * H, H, H, sums_hh, nullptr});
    });
    const AffineStep<T> dx{rows, I, {}, {dz, H, packed_ih, H}, nullptr, false, p.dx ? p.dx + from * I : nullptr, I};
    gradient_products(k, outers, p.dx ? &dx : nullptr);
    hand_on(order, first, last, N, dz, next, H);
  }
  order.runs(0, 0, N, [&](int64_t a, int64_t b, bool reset) {
    if (reset) return zero(p.dh0 + a * H, (b - a) * H);
    k.affine({b - a, H, {}, {next + a * H, H, packed_hh, H}, nullptr, false, p.dh0 + a * H, H});
  });
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
