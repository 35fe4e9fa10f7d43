// The minGRU (Feng et al. 2024): z = sigmoid(x W_z' + b_z), n = x W_n' + b_n, h = (1 - z) h_prev + z n.
#pragma once

#include "elementwise.hpp"
#include "math.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

template <class V>
struct MinGru {
  static constexpr int gates = 2;
  static constexpr bool from_gates = true;

  template <class Step>
  FUSEDRNN_INLINE MinGru(const Step&, int64_t, int) {}

  FUSEDRNN_INLINE V forward(V* gate, V h_prev) const {
    const V z = gate[0] = sigmoid(gate[0]);
    return fma(z, gate[1], (splat<V>(1) - z) * h_prev);
  }

  FUSEDRNN_INLINE V backward(V* gate, V h_prev, V, V dh) const {
    const V z = gate[0], rest = splat<V>(1) - z;
    gate[0] = dh * (gate[1] - h_prev) * (z * rest);
    gate[1] = dh * z;
    return dh * rest;
  }
};

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
