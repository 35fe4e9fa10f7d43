// Activations by name. Their slopes follow from their values; at a kink the slope is 0.
#pragma once

#include "math.hpp"
#include "table.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

template <class V>
FUSEDRNN_INLINE V magnitude(V x) {
  return x < V{} ? -x : x;
}

// Those that few ask for: out of line, so that the usual ones leave little text where they are used.
template <class V>
FUSEDRNN_NOINLINE V activate_rare(Activation a, V z) {
  const V one = splat<V>(1);
  switch (a) {
    case Activation::hard_sigmoid:
      return clamp(fma(splat<V>(Scalar<V>(0.2)), z, splat<V>(Scalar<V>(0.5))), 0, 1);
    case Activation::hard_tanh:
      return clamp(z, -1, 1);
    case Activation::softsign:
      return z / (one + magnitude(z));
    case Activation::softplus:
      return softplus(z);
    default:
      return z;
  }
}

template <class V>
FUSEDRNN_INLINE V activate(Activation a, V z) {
  return a == Activation::sigmoid ? sigmoid(z)
         : a == Activation::tanh  ? tanh(z)
         : a == Activation::relu  ? relu(z)
                                  : activate_rare(a, z);
}

// y * 0 and not 0 where there is no slope: a NaN stays one.
template <class V>
FUSEDRNN_NOINLINE V slope_rare(Activation a, V y) {
  const V one = splat<V>(1);
  switch (a) {
    case Activation::hard_sigmoid:
      return y > V{} ? (y < one ? splat<V>(Scalar<V>(0.2)) : y * V{}) : y * V{};
    case Activation::hard_tanh:
      return magnitude(y) < one ? one : y * V{};
    case Activation::softsign: {
      const V left = one - magnitude(y);
      return left * left;
    }
    case Activation::softplus:
      return one - exp(-y);
    default:
      return one;
  }
}

// The derivative at the point whose value is y.
template <class V>
FUSEDRNN_INLINE V slope(Activation a, V y) {
  const V one = splat<V>(1);
  return a == Activation::sigmoid ? y * (one - y)
         : a == Activation::tanh  ? one - y * y
         : a == Activation::relu  ? (y > V{} ? one : y * V{})
                                  : slope_rare(a, y);
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
