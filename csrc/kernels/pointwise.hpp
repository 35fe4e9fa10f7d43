// The formulas of the cells, forward beside backward: written once over a value type, a vector of any instruction set
// or the scalar of csrc/cuda, free of memory access. Gates before their activation are z*, gradients of those come
// back.
#pragma once

#include "math.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// --- The plain recurrent network: h = tanh(z) or relu(z).

template <class V>
FUSEDRNN_INLINE V rnn_pointwise_forward(V z, bool is_relu) {
  return is_relu ? relu(z) : tanh(z);
}

// The derivative follows from the output alone: 1 - h^2, or 1 where h > 0.
template <class V>
FUSEDRNN_INLINE V rnn_pointwise_backward(V dh, V h, bool is_relu) {
  const V one = splat<V>(1);
  return dh * (is_relu ? (h > V{} ? one : h * V{}) : one - h * h);  // h * 0 keeps a NaN
}

// --- LSTM

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

// --- GRU

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

template <class V>
struct GruResetGradient {
  V dr, dn_h;  // before the sigmoid; of n_h = W_hn h + b_hn
};

// Reset after the product.
template <class V>
FUSEDRNN_INLINE GruResetGradient<V> gru_reset_after_backward(V dn, V r, V n_h) {
  return {dn * n_h * (r * (splat<V>(1) - r)), dn * r};
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
