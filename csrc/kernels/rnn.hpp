// The plain recurrent network (Elman 1990): h = f(x W_ih' + b_ih + h W_hh' + b_hh), f tanh or relu; and the
// affine product without recurrence, which linear layers, dx and dh0 are made of.
#pragma once

#include "math.hpp"
#include "tile.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// The p-th vector of a panel's bias [units], or zeros.
template <class Cell, class T>
FUSEDRNN_INLINE typename Cell::V bias_vector(const Cell& cell, const T* bias, int64_t unit, int p) {
  using V = typename Cell::V;
  return bias ? load<V>(bias + unit + p * Cell::W, cell.count(unit + p * Cell::W)) : V{};
}

template <class T, int Vectors>
struct AffineCell : DenseCell<T, Vectors, 0> {
  using Base = DenseCell<T, Vectors, 0>;
  using V = typename Base::V;
  const AffineStep<T>& step;

  explicit AffineCell(const AffineStep<T>& s) : Base{s.x, {}, s.units, s.out, s.out_stride}, step(s) {}

  FUSEDRNN_INLINE bool uniform() const { return !step.accumulate; }
  FUSEDRNN_INLINE V initial(int64_t unit, int p) const { return bias_vector(*this, step.bias, unit, p); }
  FUSEDRNN_INLINE void start(V* sums, int rows, int64_t unit, int64_t row) const {
    this->resume(sums, rows, unit, row);
  }

  FUSEDRNN_NOINLINE void finish(const V* sums, int rows, int64_t unit, int64_t row) const {
    this->suspend(sums, rows, unit, row);
  }
};

template <class T>
void affine(const AffineStep<T>& step) {
  walk_dense<AffineCell, T>(step);
}

template <class V>
FUSEDRNN_INLINE V rnn_pointwise_forward(V z, bool is_relu) {
  return is_relu ? relu(z) : tanh(z);
}

// The derivative follows from the output alone: 1 - h^2, or 1 where h > 0.
template <class V>
FUSEDRNN_INLINE V rnn_pointwise_backward(V dh, V h, bool is_relu) {
  const V one = splat<V>(1);
  return dh * (is_relu ? (h > V{} ? one : h * V{}) : one - h * h);  // h * 0 keeps a NaN
}

template <class T, int Vectors>
struct RnnForwardCell : DenseCell<T, Vectors, Vectors> {
  using Base = DenseCell<T, Vectors, Vectors>;
  using V = typename Base::V;
  const RnnForwardStep<T>& step;

  explicit RnnForwardCell(const RnnForwardStep<T>& s) : Base{s.x, s.h, s.units, s.y, s.y_stride}, step(s) {}

  FUSEDRNN_INLINE bool uniform() const { return step.bias; }
  FUSEDRNN_INLINE V initial(int64_t unit, int p) const { return bias_vector(*this, step.bias, unit, p); }
  FUSEDRNN_INLINE void start(V* sums, int rows, int64_t unit, int64_t row) const {
    this->resume(sums, rows, unit, row);
  }

  FUSEDRNN_NOINLINE void finish(const V* sums, int rows, int64_t unit, int64_t row) const {
    if (!step.finish) return this->suspend(sums, rows, unit, row);
    this->each(rows, unit, row, [&](int i, int64_t u, int64_t r, int n) {
      store(step.y + r * step.y_stride + u, rnn_pointwise_forward(sums[i], step.relu), n);
    });
  }
};

template <class T>
void rnn_forward(const RnnForwardStep<T>& step) {
  walk_dense<RnnForwardCell, T>(step);
}

template <class T, int Vectors>
struct RnnBackwardCell : DenseCell<T, Vectors, 0> {
  using Base = DenseCell<T, Vectors, 0>;
  using V = typename Base::V;
  const RnnBackwardStep<T>& step;

  explicit RnnBackwardCell(const RnnBackwardStep<T>& s) : Base{s.dz_next, {}, s.units, s.dz, s.dz_stride}, step(s) {}

  FUSEDRNN_INLINE bool uniform() const { return !step.dh_n; }
  FUSEDRNN_NOINLINE void start(V* sums, int rows, int64_t unit, int64_t row) const {
    this->start_from(step.dh_n, sums, rows, unit, row);
  }

  FUSEDRNN_NOINLINE void finish(const V* sums, int rows, int64_t unit, int64_t row) const {
    this->each(rows, unit, row, [&](int i, int64_t u, int64_t r, int n) {
      const V h = load<V>(step.y + r * step.y_stride + u, n);
      const V dh = add_dy(sums[i], step.dy, step.dy_stride, u, r, n);
      store(step.dz + r * step.dz_stride + u, rnn_pointwise_backward(dh, h, step.relu), n);
    });
  }
};

template <class T>
void rnn_backward(const RnnBackwardStep<T>& step) {
  walk_dense<RnnBackwardCell, T>(step);
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
