// Optimizers: each one fused pass over flat buffers of parameters, gradients and state. PyTorch's forms, with
// epsilon inside the root where a published recipe has it there (Karpathy's Adagrad, Graves' RMSprop).
#pragma once

#include "math.hpp"
#include "table.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// buffer = momentum buffer + g;  p -= lr (g + momentum buffer | buffer).
template <class T>
void sgd(const SgdStep<T>& s) {
  using V = Full<T>;
  for_vectors<T>(s.n, [&](int64_t i, int n) {
    V p = load<V>(s.data + i, n);
    V g = fma(splat<V>(s.weight_decay), p, load<V>(s.grad + i, n));
    if (s.momentum_buffer) {
      const V m = splat<V>(s.momentum);
      const V buffer = fma(m, load<V>(s.momentum_buffer + i, n), g);
      store(s.momentum_buffer + i, buffer, n);
      g = s.nesterov ? fma(m, buffer, g) : buffer;
    }
    store(s.data + i, fma(splat<V>(-s.lr), g, p), n);
  });
}

// Duchi et al. 2011: sum += g^2;  p -= lr g / (sqrt(sum) + eps).
template <class T>
void adagrad(const AdagradStep<T>& s) {
  using V = Full<T>;
  const V eps = splat<V>(s.eps);
  for_vectors<T>(s.n, [&](int64_t i, int n) {
    V p = load<V>(s.data + i, n);
    const V g = fma(splat<V>(s.weight_decay), p, load<V>(s.grad + i, n));
    const V sum = fma(g, g, load<V>(s.sum + i, n));
    store(s.sum + i, sum, n);
    const V denominator = s.eps_inside ? square_root(sum + eps) : square_root(sum) + eps;
    store(s.data + i, p - splat<V>(s.lr) * (g / denominator), n);
  });
}

// Tieleman and Hinton 2012; centred with momentum as Graves 2013 (arXiv 1308.0850), equations 38 to 41.
template <class T>
void rmsprop(const RmspropStep<T>& s) {
  using V = Full<T>;
  const V eps = splat<V>(s.eps), alpha = splat<V>(s.alpha), rest = splat<V>(T(1) - s.alpha), lr = splat<V>(s.lr);
  for_vectors<T>(s.n, [&](int64_t i, int n) {
    V p = load<V>(s.data + i, n);
    const V g = fma(splat<V>(s.weight_decay), p, load<V>(s.grad + i, n));
    V square = fma(rest * g, g, alpha * load<V>(s.square_avg + i, n));
    store(s.square_avg + i, square, n);
    if (s.grad_avg) {
      const V mean = fma(rest, g, alpha * load<V>(s.grad_avg + i, n));
      store(s.grad_avg + i, mean, n);
      square = square - mean * mean;
      square = square < V{} ? V{} : square;  // a variance that rounding left below zero
    }
    V step = g / (s.eps_inside ? square_root(square + eps) : square_root(square) + eps);
    if (s.momentum_buffer) {
      step = fma(splat<V>(s.momentum), load<V>(s.momentum_buffer + i, n), step);
      store(s.momentum_buffer + i, step, n);
    }
    store(s.data + i, p - lr * step, n);
  });
}

// Kingma and Ba 2015, bias-corrected; decoupled decay as Loshchilov and Hutter 2019 (AdamW).
template <class T>
void adam(const AdamStep<T>& s) {
  using V = Full<T>;
  const V b1 = splat<V>(s.beta1), b2 = splat<V>(s.beta2);
  const V rest1 = splat<V>(T(1) - s.beta1), rest2 = splat<V>(T(1) - s.beta2);
  for_vectors<T>(s.n, [&](int64_t i, int n) {
    V p = load<V>(s.data + i, n), g = load<V>(s.grad + i, n);
    if (s.decoupled)
      p = p - splat<V>(s.lr * s.weight_decay) * p;
    else
      g = fma(splat<V>(s.weight_decay), p, g);
    const V m = fma(rest1, g, b1 * load<V>(s.exp_avg + i, n));
    const V v = fma(rest2 * g, g, b2 * load<V>(s.exp_avg_sq + i, n));
    store(s.exp_avg + i, m, n);
    store(s.exp_avg_sq + i, v, n);
    const V denominator = fma(square_root(v), splat<V>(s.inverse_sqrt_correction2), splat<V>(s.eps));
    store(s.data + i, p - splat<V>(s.step_size) * (m / denominator), n);
  });
}

template <class T>
void clip_value(int64_t count, T* grad, T limit) {
  using V = Full<T>;
  for_vectors<T>(count, [&](int64_t i, int n) { store(grad + i, clamp(load<V>(grad + i, n), -limit, limit), n); });
}

template <class T>
void scale(int64_t count, T* grad, T factor) {
  using V = Full<T>;
  for_vectors<T>(count, [&](int64_t i, int n) { store(grad + i, load<V>(grad + i, n) * splat<V>(factor), n); });
}

// In double, eight chains by position: the same bits on every instruction set.
template <class T>
double squared_norm(int64_t n, const T* grad) {
  double sum[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int l = 0; l < 8; ++l) sum[l] += double(grad[i + l]) * double(grad[i + l]);
  for (int l = 0; i < n; ++i, ++l) sum[l] += double(grad[i]) * double(grad[i]);
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
