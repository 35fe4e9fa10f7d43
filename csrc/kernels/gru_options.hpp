// The GRU with options, from the sums of its gates on, in both readings (gru.hpp). Reset after has both passes of a
// step at once; reset before has the product of W_hn between them. Equations: python/fusedrnn/reference/gru.py.
#pragma once

#include "activations.hpp"
#include "gru.hpp"
#include "options.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

template <class T>
void gru_gates(const GruGates<T>& step) {
  const GruGates<T> s = step;
  using V = Full<T>;
  for (int64_t r = 0; r < s.rows; ++r) {
    T* const gates = s.gates.at(r);
    for_vectors_once<T>(2 * s.units, [&](int64_t u, int n) {
      prefetch_for_write(s.gates.at(r + rows_ahead) + u);
      V z = load<V>(s.x.at(r) + u, n);
      if (s.h.data) z = z + load<V>(s.h.at(r) + u, n);
      store(gates + u, activate(s.gate, z), n);
    });
    if (!s.reset_h.data) continue;
    for_vectors_once<T>(s.units, [&](int64_t u, int n) {
      store(s.reset_h.at(r) + u, load<V>(gates + u, n) * load<V>(s.dropped.at(r) + u, n), n);
    });
  }
}

template <class T>
void gru_output(const GruOutput<T>& step) {
  const GruOutput<T> s = step;
  using V = Full<T>;
  for_row_vectors<T>(s.rows, s.units, [&](int64_t r, int64_t u, int n) {
    V sum = load<V>(s.x.at(r) + u, n);
    if (s.h.data) {
      const V h = load<V>(s.h.at(r) + u, n);
      sum = fma(load<V>(s.gates.at(r) + u, n), h, sum);
      if (s.kept.data) store(s.kept.at(r) + s.units + u, h, n);
    }
    if (s.kept.data)
      for (int i = 0; i < 2; ++i) prefetch_for_write(s.kept.at(r + rows_ahead) + i * s.units + u);
    const V candidate = activate(s.candidate, sum), z = load<V>(s.gates.at(r) + s.units + u, n);
    if (s.kept.data) store(s.kept.at(r) + u, candidate, n);
    store(s.y.at(r) + u, gru_blend(z, candidate, load<V>(s.h_prev.at(r) + u, n)), n);
  });
}

template <class T>
void gru_output_backward(const GruOutputBackward<T>& step) {
  const GruOutputBackward<T> s = step;
  using V = Full<T>;
  for_row_vectors<T>(s.rows, s.units, [&](int64_t r, int64_t u, int n) {
    const int64_t H = s.units;
    for (int g = 0; g < 4; ++g) prefetch(s.kept.at(r + rows_ahead) + g * H + u);
    const V z = load<V>(s.kept.at(r) + H + u, n), candidate = load<V>(s.kept.at(r) + 2 * H + u, n);
    const V dh = load<V>(s.dh.at(r) + u, n), h_prev = load<V>(s.h_prev.at(r) + u, n);
    const V dz = dh * (h_prev - candidate) * slope(s.gate, z);
    store(s.carry.at(r) + u, fma(dh, z, load<V>(s.carry.at(r) + u, n)), n);
    store(s.dx.at(r) + H + u, dz, n);
    store(s.dh_sums.at(r) + H + u, dz, n);
    store(s.dx.at(r) + 2 * H + u, dh * (splat<V>(1) - z) * slope(s.candidate, candidate), n);
  });
}

template <class T>
void gru_gates_backward(const GruGatesBackward<T>& step) {
  const GruGatesBackward<T> s = step;
  using V = Full<T>;
  for_row_vectors<T>(s.rows, s.units, [&](int64_t i, int64_t u, int n) {
    const V r = load<V>(s.r.at(i) + u, n), d = load<V>(s.dproduct.at(i) + u, n);
    V gated = load<V>(s.gated.at(i) + u, n);
    if (s.mask.data) gated = gated * load<V>(s.mask.at(i) + u, n);
    const V dr = d * gated * slope(s.gate, r);
    store(s.dr.at(i) + u, dr, n);
    if (s.dr_hidden.data) store(s.dr_hidden.at(i) + u, dr, n);
    store(s.dgated.at(i) + u, d * r, n);
    if (s.product.data) store(s.product.at(i) + u, r * gated, n);
  });
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
