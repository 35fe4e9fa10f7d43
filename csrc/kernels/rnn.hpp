// The plain recurrent network (Elman 1990): h = f(x W_ih' + b_ih + h W_hh' + b_hh), f tanh or relu; and the
// affine product without recurrence, which linear layers, dx and dh0 are made of.
#pragma once

#include "pointwise.hpp"
#include "tile.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// The p-th vector of a panel's bias [units], or zeros.
template <class Ends, class T>
FUSEDRNN_INLINE typename Ends::V bias_vector(const Ends& ends, const T* bias, int64_t unit, int p) {
  using V = typename Ends::V;
  return bias ? load<V>(bias + unit + p * Ends::W, ends.count(unit + p * Ends::W)) : V{};
}

template <class T>
struct AffineEnds : DenseEnds<T> {
  using V = typename DenseEnds<T>::V;
  const AffineStep<T>& step;

  explicit AffineEnds(const AffineStep<T>& s) : DenseEnds<T>{s.x, {}, s.units, s.out, s.out_stride}, step(s) {}

  FUSEDRNN_INLINE bool uniform() const { return !step.accumulate; }
  FUSEDRNN_INLINE V initial(int64_t unit, int p) const { return bias_vector(*this, step.bias, unit, p); }
  FUSEDRNN_INLINE void start(V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    this->resume(sums, vectors, rows, unit, row);
  }
  FUSEDRNN_INLINE void finish(const V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    this->suspend(sums, vectors, rows, unit, row);
  }
};

template <class T>
void affine(const AffineStep<T>& step) {
  walk_dense<AffineEnds, T>(step);
}

template <class T>
struct RnnForwardEnds : DenseEnds<T> {
  using V = typename DenseEnds<T>::V;
  static constexpr bool recurrent = true;
  const RnnForwardStep<T>& step;

  explicit RnnForwardEnds(const RnnForwardStep<T>& s) : DenseEnds<T>{s.x, s.h, s.units, s.y, s.y_stride}, step(s) {}

  FUSEDRNN_INLINE bool uniform() const { return step.bias; }
  FUSEDRNN_INLINE V initial(int64_t unit, int p) const { return bias_vector(*this, step.bias, unit, p); }
  FUSEDRNN_INLINE void start(V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    this->resume(sums, vectors, rows, unit, row);
  }

  FUSEDRNN_NOINLINE void finish(const V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    if (!step.finish) return this->suspend(sums, vectors, rows, unit, row);
    this->each(sums, vectors, rows, unit, row,
               [&](auto at, V sum) { at.write(step.y, step.y_stride, rnn_pointwise_forward(sum, step.relu)); });
  }
};

template <class T>
void rnn_forward(const RnnForwardStep<T>& step) {
  walk_dense<RnnForwardEnds, T>(step);
}

template <class T>
struct RnnBackwardEnds : DenseEnds<T> {
  using V = typename DenseEnds<T>::V;
  const RnnBackwardStep<T>& step;

  explicit RnnBackwardEnds(const RnnBackwardStep<T>& s)
      : DenseEnds<T>{s.dz_next, {}, s.units, s.dz, s.dz_stride}, step(s) {}

  FUSEDRNN_INLINE bool uniform() const { return !step.dh_n; }
  FUSEDRNN_INLINE void start(V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    this->fetch(sums, vectors, rows, unit, row, step.dh_n, step.units);
  }

  FUSEDRNN_NOINLINE void finish(const V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    this->each(sums, vectors, rows, unit, row, [&](auto at, V sum) {
      const V dh = add_dy(sum, step.dy, step.dy_stride, at);
      at.write(step.dz, step.dz_stride, rnn_pointwise_backward(dh, at.read(step.y, step.y_stride), step.relu));
    });
  }
};

template <class T>
void rnn_backward(const RnnBackwardStep<T>& step) {
  walk_dense<RnnBackwardEnds, T>(step);
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
