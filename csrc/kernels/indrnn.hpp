// The IndRNN (Li et al. 2018): h = f(x W_ih' + b + u h_prev), u = weight_hh elementwise, f any activation.
#pragma once

#include "activations.hpp"
#include "elementwise.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

template <class V>
struct IndRnn {
  static constexpr int gates = 1;
  static constexpr bool from_gates = false;  // the slope follows from h
  V weight;
  Activation f;

  template <class Step>
  FUSEDRNN_INLINE IndRnn(const Step& s, int64_t u, int n) : weight(load<V>(s.weight_hh + u, n)), f(s.activation) {}

  FUSEDRNN_INLINE V forward(V* gate, V h_prev) const { return activate(f, fma(weight, h_prev, gate[0])); }

  FUSEDRNN_INLINE V backward(V* gate, V, V h, V dh) const {
    gate[0] = dh * slope(f, h);
    return weight * gate[0];
  }
};

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
