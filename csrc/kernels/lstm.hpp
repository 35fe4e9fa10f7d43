// The LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000), gates in PyTorch's
// order i, f, g, o: formulas once over any value type, then the tiles that feed them.
#pragma once

#include "math.hpp"
#include "tile.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

template <class V>
struct LstmState {
  V i, f, g, o, c, h;
};

// c = f c_prev + i g;  h = o tanh(c).
template <class V>
FUSEDRNN_INLINE LstmState<V> lstm_pointwise_forward(V zi, V zf, V zg, V zo, V c_prev) {
  const V i = sigmoid(zi), f = sigmoid(zf), g = tanh(zg), o = sigmoid(zo);
  const V c = fma(f, c_prev, i * g);
  return {i, f, g, o, c, o * tanh(c)};
}

template <class V>
struct LstmGradient {
  V zi, zf, zg, zo, c_prev;
};

template <class V>
FUSEDRNN_INLINE LstmGradient<V> lstm_pointwise_backward(V dh, V dc, V i, V f, V g, V o, V c, V c_prev) {
  const V one = splat<V>(1);
  const V t = tanh(c);
  dc = fma(dh * o, one - t * t, dc);
  return {dc * g * (i * (one - i)), dc * c_prev * (f * (one - f)), dc * i * (one - g * g), dh * t * (o * (one - o)),
          dc * f};
}

template <class T>
struct LstmForwardCell : GateCell<T, 4, 4, 3, 4, 3> {
  using Base = GateCell<T, 4, 4, 3, 4, 3>;
  using V = typename Base::V;
  const LstmForwardStep<T>& step;

  explicit LstmForwardCell(const LstmForwardStep<T>& s)
      : Base{s.x, s.h, s.units, s.bias, s.gates, s.gates_stride}, step(s) {}

  FUSEDRNN_NOINLINE void finish(const V* sums, int rows, int64_t unit, int64_t row) const {
    if (!step.finish) return this->suspend(sums, rows, unit, row);
    const int n = this->count(unit);
    for (int r = 0; r < rows; ++r) {
      const int64_t q = row + r;
      const V* const z = sums + 4 * r;
      const V c_prev = load<V>(step.c_prev + q * step.c_prev_stride + unit, n);
      const LstmState<V> s = lstm_pointwise_forward(z[0], z[1], z[2], z[3], c_prev);
      store(step.c + q * step.c_stride + unit, s.c, n);
      store(step.y + q * step.y_stride + unit, s.h, n);
      if (step.keep) {
        T* gates = step.gates + q * step.gates_stride + unit;
        store(gates, s.i, n);
        store(gates + step.units, s.f, n);
        store(gates + 2 * step.units, s.g, n);
        store(gates + 3 * step.units, s.o, n);
      }
    }
  }
};

template <class T>
void lstm_forward(const LstmForwardStep<T>& step) {
  walk_gates(LstmForwardCell<T>(step), step.rows, step.units);
}

// dh = dy + dgates(t+1) weight_hh, then the gate gradients of this step. Partial sums rest in dgates' first slot.
template <class T, int Vectors>
struct LstmBackwardCell : DenseCell<T, Vectors, 0> {
  using Base = DenseCell<T, Vectors, 0>;
  using V = typename Base::V;
  const LstmBackwardStep<T>& step;

  explicit LstmBackwardCell(const LstmBackwardStep<T>& s)
      : Base{s.dgates_next, {}, s.units, s.dgates, s.dgates_stride}, step(s) {}

  FUSEDRNN_INLINE bool uniform() const { return !step.dh_n; }
  FUSEDRNN_NOINLINE void start(V* sums, int rows, int64_t unit, int64_t row) const {
    this->start_from(step.dh_n, sums, rows, unit, row);
  }

  FUSEDRNN_NOINLINE void finish(const V* sums, int rows, int64_t unit, int64_t row) const {
    this->each(rows, unit, row, [&](int i, int64_t u, int64_t r, int n) {
      const T* gates = step.gates + r * step.gates_stride + u;
      T* dc = step.dc + r * step.dc_stride + u;
      const V dh = add_dy(sums[i], step.dy, step.dy_stride, u, r, n);
      const LstmGradient<V> d = lstm_pointwise_backward(
          dh, load<V>(dc, n), load<V>(gates, n), load<V>(gates + step.units, n), load<V>(gates + 2 * step.units, n),
          load<V>(gates + 3 * step.units, n), load<V>(step.c + r * step.c_stride + u, n),
          load<V>(step.c_prev + r * step.c_prev_stride + u, n));
      T* dgates = step.dgates + r * step.dgates_stride + u;
      store(dgates, d.zi, n);
      store(dgates + step.units, d.zf, n);
      store(dgates + 2 * step.units, d.zg, n);
      store(dgates + 3 * step.units, d.zo, n);
      store(dc, d.c_prev, n);
    });
  }
};

template <class T>
void lstm_backward(const LstmBackwardStep<T>& step) {
  walk_dense<LstmBackwardCell, T>(step);
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
