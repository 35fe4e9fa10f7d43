// The GRU (Cho et al. 2014), gates in PyTorch's order r, z, n, in both readings:
//   reset after:  n = tanh(W_in x + b_in + r (W_hn h + b_hn))      PyTorch, cuDNN; two chains for n
//   reset before: n = tanh(W_in x + b_in + W_hn (r h) + b_hn)      the paper; two passes per step
// and h = (1 - z) n + z h_prev.
#pragma once

#include "math.hpp"
#include "tile.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

template <class V>
FUSEDRNN_INLINE V gru_blend(V z, V n, V h_prev) {
  return fma(z, h_prev, (splat<V>(1) - z) * n);
}

template <class V>
struct GruState {
  V r, z, n, h;
};

template <class V>
FUSEDRNN_INLINE GruState<V> gru_pointwise_forward(V zr, V zz, V n_x, V n_h, V h_prev) {
  const V r = sigmoid(zr), z = sigmoid(zz), n = tanh(fma(r, n_h, n_x));
  return {r, z, n, gru_blend(z, n, h_prev)};
}

template <class V>
struct GruGradient {
  V dn, dz, carry;  // before tanh and sigmoid; dh z
};

// The part that both readings share.
template <class V>
FUSEDRNN_INLINE GruGradient<V> gru_pointwise_backward(V dh, V z, V n, V h_prev) {
  const V one = splat<V>(1);
  return {dh * (one - z) * (one - n * n), dh * (h_prev - n) * (z * (one - z)), dh * z};
}

template <class T>
struct GruForwardCell : GateCell<T, 4, 3, 2, 3, 3> {
  using Base = GateCell<T, 4, 3, 2, 3, 3>;
  using V = typename Base::V;
  const GruForwardStep<T>& step;

  explicit GruForwardCell(const GruForwardStep<T>& s)
      : Base{s.x, s.h, s.units, s.bias, s.gates, s.gates_stride}, step(s) {}

  FUSEDRNN_NOINLINE void finish(const V* sums, int rows, int64_t unit, int64_t row) const {
    if (!step.finish) return this->suspend(sums, rows, unit, row);
    const int n = this->count(unit);
    for (int r = 0; r < rows; ++r) {
      const int64_t q = row + r;
      const V* const z = sums + 4 * r;
      const V h_prev = load<V>(step.h_prev + q * step.h_prev_stride + unit, n);
      const GruState<V> s = gru_pointwise_forward(z[0], z[1], z[2], z[3], h_prev);
      store(step.y + q * step.y_stride + unit, s.h, n);
      if (step.keep) {
        T* gates = step.gates + q * step.gates_stride + unit;
        store(gates, s.r, n);
        store(gates + step.units, s.z, n);
        store(gates + 2 * step.units, s.n, n);
        store(gates + 3 * step.units, z[3], n);
      }
    }
  }
};

template <class T>
void gru_forward(const GruForwardStep<T>& step) {
  walk_gates(GruForwardCell<T>(step), step.rows, step.units);
}

// First pass of reset-before: r and z activated, the candidate's input sum left as it is, r * h to y.
template <class T>
struct GruResetForwardCell : GateCell<T, 3, 3, 2, 2, 1> {
  using Base = GateCell<T, 3, 3, 2, 2, 1>;
  using V = typename Base::V;
  const GruForwardStep<T>& step;

  explicit GruResetForwardCell(const GruForwardStep<T>& s)
      : Base{s.x, s.h, s.units, s.bias, s.gates, s.gates_stride}, step(s) {}

  FUSEDRNN_NOINLINE void finish(const V* sums, int rows, int64_t unit, int64_t row) const {
    this->suspend(sums, rows, unit, row);
    if (!step.finish) return;
    const int n = this->count(unit);
    for (int r = 0; r < rows; ++r) {
      const V reset = sigmoid(sums[3 * r]), h_prev = load<V>(step.h_prev + (row + r) * step.h_prev_stride + unit, n);
      T* gates = step.gates + (row + r) * step.gates_stride + unit;
      store(gates, reset, n);
      store(gates + step.units, sigmoid(sums[3 * r + 1]), n);
      store(step.y + (row + r) * step.y_stride + unit, reset * h_prev, n);
    }
  }
};

template <class T>
void gru_reset_forward(const GruForwardStep<T>& step) {
  walk_gates(GruResetForwardCell<T>(step), step.rows, step.units);
}

template <class T, int Vectors>
struct GruCandidateCell : DenseCell<T, Vectors, 0> {
  using Base = DenseCell<T, Vectors, 0>;
  using V = typename Base::V;
  const GruCandidateStep<T>& step;

  explicit GruCandidateCell(const GruCandidateStep<T>& s)
      : Base{s.reset_h, {}, s.units, s.gates + 2 * s.units, s.gates_stride}, step(s) {}

  FUSEDRNN_INLINE bool uniform() const { return false; }
  FUSEDRNN_INLINE void start(V* sums, int rows, int64_t unit, int64_t row) const {
    this->resume(sums, rows, unit, row);
  }

  FUSEDRNN_NOINLINE void finish(const V* sums, int rows, int64_t unit, int64_t row) const {
    this->each(rows, unit, row, [&](int i, int64_t u, int64_t r, int count) {
      T* gates = step.gates + r * step.gates_stride + u;
      const V n = tanh(sums[i]);
      const V z = load<V>(gates + step.units, count);
      const V h_prev = load<V>(step.h_prev + r * step.h_prev_stride + u, count);
      store(step.y + r * step.y_stride + u, gru_blend(z, n, h_prev), count);
      if (step.keep) store(gates + 2 * step.units, n, count);
    });
  }
};

template <class T>
void gru_candidate(const GruCandidateStep<T>& step) {
  walk_dense<GruCandidateCell, T>(step);
}

// dh = dy + carry + dgates(t+1) weight_hh; then the gate gradients as far as they are known.
template <class T, int Vectors, bool ResetAfter>
struct GruBackwardCell : DenseCell<T, Vectors, 0> {
  using Base = DenseCell<T, Vectors, 0>;
  using V = typename Base::V;
  const GruBackwardStep<T>& step;

  explicit GruBackwardCell(const GruBackwardStep<T>& s)
      : Base{s.dgates_next, {}, s.units, s.dgates, s.dgates_stride}, step(s) {}

  FUSEDRNN_INLINE bool uniform() const { return false; }
  FUSEDRNN_NOINLINE void start(V* sums, int rows, int64_t unit, int64_t row) const {
    this->each(rows, unit, row, [&](int i, int64_t u, int64_t r, int n) {
      sums[i] = load<V>(step.carry + r * step.carry_stride + u, n);
    });
  }

  FUSEDRNN_NOINLINE void finish(const V* sums, int rows, int64_t unit, int64_t row) const {
    this->each(rows, unit, row, [&](int i, int64_t u, int64_t r, int count) {
      const T* gates = step.gates + r * step.gates_stride + u;
      const V z = load<V>(gates + step.units, count), n = load<V>(gates + 2 * step.units, count);
      const V h_prev = load<V>(step.h_prev + r * step.h_prev_stride + u, count);
      const V dh = add_dy(sums[i], step.dy, step.dy_stride, u, r, count);
      const GruGradient<V> d = gru_pointwise_backward(dh, z, n, h_prev);
      T* dgates = step.dgates + r * step.dgates_stride + u;
      if constexpr (ResetAfter) {
        const V reset = load<V>(gates, count), n_h = load<V>(gates + 3 * step.units, count);
        store(dgates + step.units, d.dn * n_h * (reset * (splat<V>(1) - reset)), count);
        store(dgates + 3 * step.units, d.dn * reset, count);
      }
      store(dgates, d.dn, count);
      store(dgates + 2 * step.units, d.dz, count);
      store(step.carry + r * step.carry_stride + u, d.carry, count);
    });
  }
};

template <class T, int Vectors>
using GruAfterBackwardCell = GruBackwardCell<T, Vectors, true>;
template <class T, int Vectors>
using GruBeforeBackwardCell = GruBackwardCell<T, Vectors, false>;

template <class T>
void gru_backward(const GruBackwardStep<T>& step) {
  walk_dense<GruAfterBackwardCell, T>(step);
}

template <class T>
void gru_before_backward(const GruBackwardStep<T>& step) {
  walk_dense<GruBeforeBackwardCell, T>(step);
}

template <class T, int Vectors>
struct GruResetBackwardCell : DenseCell<T, Vectors, 0> {
  using Base = DenseCell<T, Vectors, 0>;
  using V = typename Base::V;
  const GruResetBackwardStep<T>& step;

  explicit GruResetBackwardCell(const GruResetBackwardStep<T>& s)
      : Base{s.dn, {}, s.units, s.dr, s.dr_stride}, step(s) {}

  FUSEDRNN_INLINE bool uniform() const { return true; }
  FUSEDRNN_INLINE void start(V*, int, int64_t, int64_t) const {}

  FUSEDRNN_NOINLINE void finish(const V* sums, int rows, int64_t unit, int64_t row) const {
    this->each(rows, unit, row, [&](int i, int64_t u, int64_t r, int n) {
      const V d_reset_h = sums[i];
      const V reset = load<V>(step.gates + r * step.gates_stride + u, n);
      const V h_prev = load<V>(step.h_prev + r * step.h_prev_stride + u, n);
      T* carry = step.carry + r * step.carry_stride + u;
      store(step.dr + r * step.dr_stride + u, d_reset_h * h_prev * (reset * (splat<V>(1) - reset)), n);
      store(step.reset_h + r * step.reset_h_stride + u, reset * h_prev, n);
      store(carry, fma(d_reset_h, reset, load<V>(carry, n)), n);
    });
  }
};

template <class T>
void gru_reset_backward(const GruResetBackwardStep<T>& step) {
  walk_dense<GruResetBackwardCell, T>(step);
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
