// Cells whose units see no state but their own: after the input's product a step is one pass over memory. A cell is its
// formulas over a value type (indrnn.hpp, mingru.hpp):
//
//   static constexpr int gates;       products with the input that a unit has
//   static constexpr bool from_gates; whether backward needs the gates that forward kept
//   Cell(step, unit, lanes)           reads the unit's parameters
//   V forward(V* gates, V h_prev)     activates the gates in place and returns h
//   V backward(V* gates, V h_prev, V h, V dh)
//                                     their gradients before activation in place of them; returns that of h_prev
#pragma once

#include "options.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

template <template <class> class Cell, class T>
void elementwise_forward(const ElementwiseForwardStep<T>& s) {
  using V = Full<T>;
  constexpr int G = Cell<V>::gates;
  for_row_vectors<T>(s.rows, s.units, [&](int64_t r, int64_t u, int n) {
    T* const gates = s.gates.at(r) + u;
    V gate[G];
    for (int g = 0; g < G; ++g) gate[g] = load<V>(gates + g * s.hidden, n);
    const V h = Cell<V>(s, u, n).forward(gate, s.h_prev.data ? load<V>(s.h_prev.at(r) + u, n) : V{});
    if (s.keep)
      for (int g = 0; g < G; ++g) store(gates + g * s.hidden, gate[g], n);
    store(s.h.at(r) + u, h, n);
  });
}

template <template <class> class Cell, class T>
void elementwise_backward(const ElementwiseBackwardStep<T>& s) {
  using V = Full<T>;
  constexpr int G = Cell<V>::gates;
  for_row_vectors<T>(s.rows, s.units, [&](int64_t r, int64_t u, int n) {
    V gate[G];
    if constexpr (Cell<V>::from_gates)
      for (int g = 0; g < G; ++g) gate[g] = load<V>(s.gates.at(r) + g * s.hidden + u, n);
    V dh = load<V>(s.dh.at(r) + u, n);
    if (s.dy.data) dh = dh + load<V>(s.dy.at(r) + u, n);
    const V h_prev = s.h_prev.data ? load<V>(s.h_prev.at(r) + u, n) : V{};
    const V dh_prev = Cell<V>(s, u, n).backward(gate, h_prev, load<V>(s.h.at(r) + u, n), dh);
    for (int g = 0; g < G; ++g) store(s.dgates.at(r) + g * s.hidden + u, gate[g], n);
    store(s.dh.at(r) + u, s.h_prev.data ? dh_prev : V{}, n);
  });
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
