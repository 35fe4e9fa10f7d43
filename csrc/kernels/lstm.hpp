// The LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000), gates in PyTorch's
// order i, f, g, o: the tiles that feed the formulas of pointwise.hpp.
#pragma once

#include "pointwise.hpp"
#include "tile.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

template <class T, int Lanes>
struct LstmForwardCell : GateCell<T, Lanes, 4, 4, 3, 4, 3, true> {
  using Base = GateCell<T, Lanes, 4, 4, 3, 4, 3, true>;
  using V = typename Base::V;
  const LstmForwardStep<T>& step;

  explicit LstmForwardCell(const LstmForwardStep<T>& s)
      : Base{s.x, s.h, s.units, s.bias, s.partial, s.partial_stride}, step(s) {}

  FUSEDRNN_INLINE void expect(int rows, int64_t unit, int64_t row) const {
    if (!step.keep) return;
    for (int r = 0; r < rows; ++r) {
      T* const gates = step.gates + (row + r) * step.gates_stride + unit;
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) prefetch_for_write(gates + g * step.units);
      prefetch_for_write(step.c + (row + r) * step.c_stride + unit);
    }
  }

  FUSEDRNN_NOINLINE void finish(const V* sums, int rows, int64_t unit, int64_t row) const {
    if (!step.finish) return this->suspend(sums, rows, unit, row);
    this->each(sums, rows, unit, row, [&](auto at, const V* z) {
      const V c_prev = at.read(step.c_prev, step.c_prev_stride);
      const LstmState<V> s = lstm_pointwise_forward(z[0], z[1], z[2], z[3], c_prev);
      at.write(step.c, step.c_stride, s.c);
      at.write(step.y, step.y_stride, s.h);
      if (step.keep) {
        at.write(step.gates, step.gates_stride, s.i);
        at.write(step.gates + step.units, step.gates_stride, s.f);
        at.write(step.gates + 2 * step.units, step.gates_stride, s.g);
        at.write(step.gates + 3 * step.units, step.gates_stride, s.o);
      }
    });
  }
};

template <class T>
void lstm_forward(const LstmForwardStep<T>& step) {
  walk_gates<LstmForwardCell, T>(step);
}

// dh = dy + dgates(t+1) weight_hh, then the gate gradients of this step. Partial sums rest in dgates' first slot.
template <class T>
struct LstmBackwardEnds : DenseEnds<T> {
  using V = typename DenseEnds<T>::V;
  const LstmBackwardStep<T>& step;

  explicit LstmBackwardEnds(const LstmBackwardStep<T>& s)
      : DenseEnds<T>{s.dgates_next, {}, s.units, s.dgates, s.dgates_stride}, step(s) {}

  FUSEDRNN_INLINE void expect(int vectors, int rows, int64_t unit, int64_t row) const {
    for (int r = 0; r < rows; ++r) {
      const T* const gates = step.gates + (row + r) * step.gates_stride + unit;
      const T* const c_prev = step.c_prev + (row + r) * step.c_prev_stride + unit;
      for (int p = 0; p < vectors; ++p) {
#pragma GCC unroll 4
        for (int g = 0; g < 4; ++g) prefetch(gates + g * step.units + p * this->W);
        prefetch(c_prev + p * this->W);
      }
    }
  }

  FUSEDRNN_INLINE bool uniform() const { return !step.dh_n; }
  FUSEDRNN_INLINE void start(V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    this->fetch(sums, vectors, rows, unit, row, step.dh_n, step.units);
  }

  FUSEDRNN_NOINLINE void finish(const V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    this->each(sums, vectors, rows, unit, row, [&](auto at, V sum) {
      const int64_t H = step.units, stride = step.gates_stride;
      const V dh = add_dy(sum, step.dy, step.dy_stride, at);
      const LstmGradient<V> d = lstm_pointwise_backward(
          dh, at.read(step.dc_next, step.dc_next_stride), at.read(step.gates, stride), at.read(step.gates + H, stride),
          at.read(step.gates + 2 * H, stride), at.read(step.gates + 3 * H, stride), at.read(step.c, step.c_stride),
          at.read(step.c_prev, step.c_prev_stride));
      at.write(step.dgates, step.dgates_stride, d.zi);
      at.write(step.dgates + H, step.dgates_stride, d.zf);
      at.write(step.dgates + 2 * H, step.dgates_stride, d.zg);
      at.write(step.dgates + 3 * H, step.dgates_stride, d.zo);
      at.write(step.dc, step.dc_stride, d.c_prev);
    });
  }
};

template <class T>
void lstm_backward(const LstmBackwardStep<T>& step) {
  walk_dense<LstmBackwardEnds, T>(step);
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
