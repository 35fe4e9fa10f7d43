// Cells whose units see no state but their own: the input's product for a block of steps at once, then time as passes
// over what it left. A cell is the number of its gates and its two kernels (kernels/elementwise_cells.hpp).

#include <algorithm>

#include "cells.hpp"
#include "dispatch.hpp"
#include "frozen.hpp"
#include "gemm.hpp"
#include "pack.hpp"
#include "steps.hpp"

namespace fusedrnn {
namespace {

// f(first row, last row, first unit, units) for pieces of the batch. Nobody waits for anybody: a thread takes a piece
// through all steps of a block, and pieces are so small that their states stay in its cache. They are made of whole
// rows where there are enough, of some of their units where not. `rows`: of the block.
template <class F>
void for_pieces(const Shape& shape, int64_t rows, int64_t gates, F f) {
  constexpr int64_t most_elements = 1 << 14, fewest_rows = 4, granule = 64;
  constexpr double flops_per_element = 2 * flops_per_element_moved;
  const int64_t N = shape.batch, H = shape.hidden, granules = (H + granule - 1) / granule;
  const double flops = flops_per_element * double(rows) * double(gates * H);
  const int64_t threads = flops < parallel_flops ? 1 : num_threads();
  // Of uneven lengths more pieces, the longest rows' first, so that all threads end together.
  const int64_t fewest = shape.batch_sizes ? 4 : 1,
                wanted = threads * std::max(fewest, N * H / most_elements / threads);
  const int64_t by_rows = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, N / fewest_rows));
  const int64_t by_units = std::clamp<int64_t>((wanted + by_rows - 1) / by_rows, 1, granules);
  parallel_for(by_rows * by_units, flops, [&](int64_t i) {
    const int64_t r = i / by_units, c = i % by_units, u = granules * c / by_units * granule;
    f(N * r / by_rows, N * (r + 1) / by_rows, u, std::min(H, granules * (c + 1) / by_units * granule) - u);
  });
}

template <class T>
void elementwise_forward(const KernelTable<T>& k, const ElementwiseForward<T>& p, const T* packed_ih) {
  const ElementwiseCell<T>& cell = k.elementwise[int(p.kind)];
  const int64_t T_ = p.shape.steps, N = p.shape.batch, I = p.shape.inputs, H = p.shape.hidden, width = cell.gates * H;
  if (N == 0) return;
  Scratch scratch;
  const T* const h0 = p.h0 ? p.h0 : scratch.zeros<T>(N * H);
  const Steps order(p.shape, p.reverse, width);
  // The products lie where the activated gates will; a single gate that nobody keeps, where h will.
  T* const of_block = p.reserve || cell.gates == 1 ? nullptr : scratch.take<T>(order.block_rows() * width);
  for (int64_t first = 0, last; first < T_; first = last) {
    last = order.block_end(first);
    const int64_t from = order.row_from(first, last), rows = order.count(first, last);
    T* const gates = p.reserve ? p.reserve + from * width : of_block ? of_block : p.y + from * H;
    parallel_rows(rows, 2.0 * double(rows) * double(I * width), [&](int64_t a, int64_t b) {
      const Operand<T> x{p.x + (from + a) * I, I, packed_ih, I};
      k.affine({b - a, width, {}, x, p.bias, false, gates + a * width, width});
    });
    for_pieces(p.shape, rows, cell.gates, [&](int64_t n, int64_t n_end, int64_t u, int64_t units) {
      for (int64_t s = first; s < last; ++s) {
        const T* const before = s == 0 ? h0 : p.y + order.row(s - 1) * H;
        order.runs(s, n, n_end, [&](int64_t a, int64_t b, bool reset) {
          const int64_t row = order.row(s) + a;
          cell.forward({.rows = b - a,
                        .units = units,
                        .hidden = H,
                        .weight_hh = p.weight_hh ? p.weight_hh + u : nullptr,
                        .activation = p.activation,
                        .keep = p.reserve != nullptr,
                        .gates = {gates + (row - from) * width + u, width},
                        .h_prev = reset ? Rows<const T>{} : Rows<const T>{before + a * H + u, H},
                        .h = {p.y + row * H + u, H}});
        });
      }
    });
  }
  last_states(order, N, H, h0, p.y, H, p.h_n);
}

}  // namespace

template <class T>
void elementwise_forward(const ElementwiseForward<T>& p) {
  const KernelTable<T>& k = kernels<T>();
  const int64_t I = p.shape.inputs, width = k.elementwise[int(p.kind)].gates * p.shape.hidden;
  Scratch scratch;
  T* const packed_ih = scratch.take<T>(padded(width, k.lanes) * I);
  pack_rows(packed_ih, p.weight_ih, I, width, k);
  elementwise_forward(k, p, packed_ih);
}

template <class T>
void elementwise_backward(const ElementwiseBackward<T>& p) {
  const KernelTable<T>& k = kernels<T>();
  const ElementwiseCell<T>& cell = k.elementwise[int(p.kind)];
  const int64_t N = p.shape.batch, I = p.shape.inputs, H = p.shape.hidden, width = cell.gates * H;
  if (N == 0) return;
  Scratch scratch;
  T* packed_ih = nullptr;
  if (p.dx) pack_columns(packed_ih = scratch.take<T>(padded(I, k.lanes) * width), p.weight_ih, width, I, k.lanes);
  const T* const h0 = p.h0 ? p.h0 : scratch.zeros<T>(N * H);
  const Steps order(p.shape, p.reverse, width);
  T* const dgates = scratch.take<T>(order.block_rows() * width);  // a block's, as its steps lie in time
  T* const sums_ih = outer_sums(k, scratch, I, width);
  T* const bias_sums = scratch.zeros<T>(width);
  T* const sums_hh = p.dweight_hh ? scratch.zeros<T>(H) : nullptr;
  T* const dh = p.dh0;  // of each row's state, from its last back to the initial one
  copy_or_zero(dh, p.dh_n, N * H);

  for (int64_t last = p.shape.steps, first; last > 0; last = first) {
    first = order.block_begin(last);
    const int64_t from = order.row_from(first, last), rows = order.count(first, last);
    for_pieces(p.shape, rows, cell.gates, [&](int64_t n, int64_t n_end, int64_t u, int64_t units) {
      for (int64_t s = last - 1; s >= first; --s) {
        const T* const before = s == 0 ? h0 : p.y + order.row(s - 1) * H;
        order.runs(s, n, n_end, [&](int64_t a, int64_t b, bool reset) {
          const int64_t row = order.row(s) + a;
          cell.backward({.rows = b - a,
                         .units = units,
                         .hidden = H,
                         .weight_hh = p.weight_hh ? p.weight_hh + u : nullptr,
                         .activation = p.activation,
                         .gates = {p.reserve ? p.reserve + row * width + u : nullptr, width},
                         .h_prev = reset ? Rows<const T>{} : Rows<const T>{before + a * H + u, H},
                         .h = {p.y + row * H + u, H},
                         .dy = {p.dy ? p.dy + row * H + u : nullptr, H},
                         .dh = {dh + a * H + u, H},
                         .dgates = {dgates + (row - from) * width + u, width}});
        });
      }
    });
    const AffineStep<T> dx{
        rows, I, {}, {dgates, width, packed_ih, width}, nullptr, false, p.dx ? p.dx + from * I : nullptr, I};
    gradient_products<T>(k, {{rows, p.x + from * I, I, dgates, width, width, sums_ih, bias_sums}},
                         p.dx ? &dx : nullptr);
    if (!sums_hh) continue;
    Scratch of_block;
    order.previous(first, last, H, h0, p.y, of_block, [&](const T* h_prev, int64_t count, int64_t row) {
      const Rows<const T> of_gate{dgates + (row - from) * width, width}, of_h{h_prev, H};
      column_sums<T>(k, count, H, of_gate, of_h, sums_hh, nullptr);
    });
  }
  add_transposed(k, p.dweight_ih, sums_ih, width, 0, width, I);
  add(p.dbias, bias_sums, width);
  if (sums_hh) add(p.dweight_hh, sums_hh, H);
}

namespace {

// Such a layer with its weights packed once.
template <class T>
class FrozenElementwise final : public Frozen<T> {
 public:
  FrozenElementwise(int64_t N, const ElementwiseForward<T>& p)
      : Frozen<T>(N, p.shape.inputs, p.shape.hidden),
        kind_(p.kind),
        k_(kernels<T>()),
        cell_(k_.elementwise[int(kind_)]),
        activation_(p.activation) {
    const int64_t I = this->inputs, H = this->hidden, width = cell_.gates * H;
    packed_ih_ = this->memory_.template take<T>(padded(width, k_.lanes) * I);
    pack_rows(packed_ih_, p.weight_ih, I, width, k_);
    weight_hh_ = kept(p.weight_hh, H);
    bias_ = kept(p.bias, width);
    gates_ = this->memory_.template take<T>(N * width);
  }

  void sequence(const Sequence<T>& s) const override {
    ElementwiseForward<T> p{};
    p.kind = kind_;
    p.shape = {s.steps, s.batch, this->inputs, this->hidden};
    p.reverse = s.reverse;
    p.x = s.x;
    p.h0 = s.h0;
    p.weight_hh = weight_hh_;
    p.bias = bias_;
    p.activation = activation_;
    p.y = s.y;
    p.h_n = s.h_n;
    elementwise_forward(k_, p, packed_ih_);
  }

 private:
  void advance(const T* x, const T* h_prev, T* h) override {
    const int64_t N = this->batch, I = this->inputs, H = this->hidden, width = cell_.gates * H;
    k_.affine({N, width, {}, {x, I, packed_ih_, I}, bias_, false, gates_, width});
    cell_.forward({.rows = N,
                   .units = H,
                   .hidden = H,
                   .weight_hh = weight_hh_,
                   .activation = activation_,
                   .keep = false,
                   .gates = {gates_, width},
                   .h_prev = {h_prev, H},
                   .h = {h, H}});
  }

  const T* kept(const T* from, int64_t n) {
    if (!from) return nullptr;
    T* const to = this->memory_.template take<T>(n);
    copy(to, from, n);
    return to;
  }

  const ElementwiseKind kind_;
  const KernelTable<T>& k_;  // of the instruction set that the weights are packed for
  const ElementwiseCell<T>& cell_;
  const Activation activation_;
  T *packed_ih_, *gates_;
  const T *weight_hh_, *bias_;
};

}  // namespace

template <class T>
std::unique_ptr<Frozen<T>> frozen_elementwise(int64_t N, const ElementwiseForward<T>& p) {
  return std::make_unique<FrozenElementwise<T>>(N, p);
}

int64_t elementwise_kept(ElementwiseKind kind) {
  const ElementwiseCell<float>& cell = kernels<float>().elementwise[int(kind)];
  return cell.kept ? cell.gates : 0;
}

template void elementwise_forward(const ElementwiseForward<float>&);
template void elementwise_forward(const ElementwiseForward<double>&);
template void elementwise_backward(const ElementwiseBackward<float>&);
template void elementwise_backward(const ElementwiseBackward<double>&);
template std::unique_ptr<Frozen<float>> frozen_elementwise(int64_t, const ElementwiseForward<float>&);
template std::unique_ptr<Frozen<double>> frozen_elementwise(int64_t, const ElementwiseForward<double>&);

}  // namespace fusedrnn
