// The GRU (Cho et al. 2014), gates in PyTorch's order r, z, n, in both readings:
//   reset after:  n = tanh(W_in x + b_in + r (W_hn h + b_hn))      PyTorch, cuDNN; two chains for n
//   reset before: n = tanh(W_in x + b_in + W_hn (r h) + b_hn)      the paper; two passes per step
// and h = (1 - z) n + z h_prev.
#pragma once

#include "pointwise.hpp"
#include "tile.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// x W_in and h W_hn are sums of their own, so the gates of narrow tails would not fill vectors alike for x and h.
template <class T, int Lanes>
struct GruForwardCell : GateCell<T, Lanes, 4, 3, 2, 3, 3, false> {
  using Base = GateCell<T, Lanes, 4, 3, 2, 3, 3, false>;
  using V = typename Base::V;
  const GruForwardStep<T>& step;

  explicit GruForwardCell(const GruForwardStep<T>& s)
      : Base{s.x, s.h, s.units, s.bias, s.partial, s.partial_stride}, step(s) {}

  FUSEDRNN_NOINLINE void finish(const V* sums, int rows, int64_t unit, int64_t row) const {
    if (!step.finish) return this->suspend(sums, rows, unit, row);
    this->each(sums, rows, unit, row, [&](auto at, const V* z) {
      const V h_prev = at.read(step.h_prev, step.h_prev_stride);
      const GruState<V> s = gru_pointwise_forward(z[0], z[1], z[2], z[3], h_prev);
      at.write(step.y, step.y_stride, s.h);
      if (step.keep) {
        at.write(step.gates, step.gates_stride, s.r);
        at.write(step.gates + step.units, step.gates_stride, s.z);
        at.write(step.gates + 2 * step.units, step.gates_stride, s.n);
        at.write(step.gates + 3 * step.units, step.gates_stride, z[3]);
      }
    });
  }
};

template <class T>
void gru_forward(const GruForwardStep<T>& step) {
  walk_gates<GruForwardCell, T>(step);
}

// First pass of reset-before: r and z activated, the candidate's input sum left as it is, r * h to y.
template <class T, int Lanes>
struct GruResetForwardCell : GateCell<T, Lanes, 3, 3, 2, 2, 1, false> {
  using Base = GateCell<T, Lanes, 3, 3, 2, 2, 1, false>;
  using V = typename Base::V;
  const GruForwardStep<T>& step;

  explicit GruResetForwardCell(const GruForwardStep<T>& s)
      : Base{s.x, s.h, s.units, s.bias, s.partial, s.partial_stride}, step(s) {}

  FUSEDRNN_NOINLINE void finish(const V* sums, int rows, int64_t unit, int64_t row) const {
    this->suspend(sums, rows, unit, row);
    if (!step.finish) return;
    this->each(sums, rows, unit, row, [&](auto at, const V* z) {
      const V reset = sigmoid(z[0]), h_prev = at.read(step.h_prev, step.h_prev_stride);
      at.write(step.gates, step.gates_stride, reset);
      at.write(step.gates + step.units, step.gates_stride, sigmoid(z[1]));
      at.write(step.y, step.y_stride, reset * h_prev);
    });
  }
};

template <class T>
void gru_reset_forward(const GruForwardStep<T>& step) {
  walk_gates<GruResetForwardCell, T>(step);
}

template <class T>
struct GruCandidateEnds : DenseEnds<T> {
  using V = typename DenseEnds<T>::V;
  const GruCandidateStep<T>& step;

  explicit GruCandidateEnds(const GruCandidateStep<T>& s)
      : DenseEnds<T>{s.reset_h, {}, s.units, s.gates + 2 * s.units, s.gates_stride}, step(s) {}

  FUSEDRNN_INLINE bool uniform() const { return false; }
  FUSEDRNN_INLINE void start(V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    this->resume(sums, vectors, rows, unit, row);
  }

  FUSEDRNN_NOINLINE void finish(const V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    this->each(sums, vectors, rows, unit, row, [&](auto at, V sum) {
      const V n = tanh(sum), z = at.read(step.gates + step.units, step.gates_stride);
      const V h_prev = at.read(step.h_prev, step.h_prev_stride);
      at.write(step.y, step.y_stride, gru_blend(z, n, h_prev));
      if (step.keep) at.write(step.gates + 2 * step.units, step.gates_stride, n);
    });
  }
};

template <class T>
void gru_candidate(const GruCandidateStep<T>& step) {
  walk_dense<GruCandidateEnds, T>(step);
}

// dh = dy + carry + dgates(t+1) weight_hh; then the gate gradients as far as they are known.
template <class T, bool ResetAfter>
struct GruBackwardEnds : DenseEnds<T> {
  using V = typename DenseEnds<T>::V;
  const GruBackwardStep<T>& step;

  explicit GruBackwardEnds(const GruBackwardStep<T>& s)
      : DenseEnds<T>{s.dgates_next, {}, s.units, s.dgates, s.dgates_stride}, step(s) {}

  FUSEDRNN_INLINE bool uniform() const { return false; }
  FUSEDRNN_INLINE void start(V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    this->fetch(sums, vectors, rows, unit, row, step.carry_next, step.carry_next_stride);
  }

  FUSEDRNN_NOINLINE void finish(const V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    this->each(sums, vectors, rows, unit, row, [&](auto at, V sum) {
      const int64_t H = step.units;
      const V z = at.read(step.gates + H, step.gates_stride), n = at.read(step.gates + 2 * H, step.gates_stride);
      const V dh = add_dy(sum, step.dy, step.dy_stride, at);
      const GruGradient<V> d = gru_pointwise_backward(dh, z, n, at.read(step.h_prev, step.h_prev_stride));
      if constexpr (ResetAfter) {
        const V reset = at.read(step.gates, step.gates_stride);
        const V n_h = at.read(step.gates + 3 * H, step.gates_stride);
        const GruResetGradient<V> of_reset = gru_reset_after_backward(d.dn, reset, n_h);
        at.write(step.dgates + H, step.dgates_stride, of_reset.dr);
        at.write(step.dgates + 3 * H, step.dgates_stride, of_reset.dn_h);
      }
      at.write(step.dgates, step.dgates_stride, d.dn);
      at.write(step.dgates + 2 * H, step.dgates_stride, d.dz);
      at.write(step.carry, step.carry_stride, d.carry);
    });
  }
};

template <class T>
using GruAfterBackwardEnds = GruBackwardEnds<T, true>;
template <class T>
using GruBeforeBackwardEnds = GruBackwardEnds<T, false>;

template <class T>
void gru_backward(const GruBackwardStep<T>& step) {
  walk_dense<GruAfterBackwardEnds, T>(step);
}

template <class T>
void gru_before_backward(const GruBackwardStep<T>& step) {
  walk_dense<GruBeforeBackwardEnds, T>(step);
}

template <class T>
struct GruResetBackwardEnds : DenseEnds<T> {
  using V = typename DenseEnds<T>::V;
  const GruResetBackwardStep<T>& step;

  explicit GruResetBackwardEnds(const GruResetBackwardStep<T>& s)
      : DenseEnds<T>{s.dn, {}, s.units, s.dr, s.dr_stride}, step(s) {}

  FUSEDRNN_INLINE bool uniform() const { return true; }
  FUSEDRNN_INLINE void start(V*, int, int, int64_t, int64_t) const {}

  FUSEDRNN_NOINLINE void finish(const V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    this->each(sums, vectors, rows, unit, row, [&](auto at, V d_reset_h) {
      const V reset = at.read(step.gates, step.gates_stride), h_prev = at.read(step.h_prev, step.h_prev_stride);
      at.write(step.dr, step.dr_stride, d_reset_h * h_prev * (reset * (splat<V>(1) - reset)));
      at.write(step.reset_h, step.reset_h_stride, reset * h_prev);
      at.write(step.carry, step.carry_stride, fma(d_reset_h, reset, at.read(step.carry, step.carry_stride)));
    });
  }
};

template <class T>
void gru_reset_backward(const GruResetBackwardStep<T>& step) {
  walk_dense<GruResetBackwardEnds, T>(step);
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
