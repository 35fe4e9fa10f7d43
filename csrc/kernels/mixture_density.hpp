// Mixture density loss (Bishop 1994) of bivariate Gaussians with correlation and an end flag, as Graves 2013 (section
// 4.1), from raw outputs; value and gradient in one pass over a row, in logarithms throughout.
//
// With s = z1 + z2 and d = z1 - z2 the exponent z' R^-1 z is s^2 / (2 (1 + rho)) + d^2 / (2 (1 - rho)), and for
// rho = tanh r those are 1 / (1 + rho) = (1 + exp(-2r)) / 2 and 1 / (1 - rho) = (1 + exp(2r)) / 2: nothing cancels
// where rho is near 1.
#pragma once

#include "math.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

struct MixtureLimits {
  // Of log sigma, and atanh(0.999). Beyond, the density stays what it is at the limit, and the gradient is zero.
  static constexpr double log_sigma_low = -7, log_sigma_high = 3, atanh_rho = 3.8002011672502;
};

// A residual of more standard deviations counts as so many: its square stays finite.
template <class T>
constexpr T largest_residual = sizeof(T) == 4 ? T(1e15) : T(1e150);

template <class V>
FUSEDRNN_INLINE V within(V x, double low, double high) {
  using T = Scalar<V>;
  return x < splat<V>(T(low)) ? V{} : x > splat<V>(T(high)) ? V{} : splat<V>(1);
}

// What one vector of components says of a point: its log density, and the derivatives of minus that.
template <class V>
struct Component {
  V log_density, dmu[2], dlog_sigma[2], dr;
};

template <class V>
FUSEDRNN_INLINE Component<V> component(const V* mu, const V* raw_log_sigma, V raw_r, const Scalar<V>* point) {
  using T = Scalar<V>;
  using L = MixtureLimits;
  V z[2], inverse[2], log_sigma[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    log_sigma[i] = clamp(raw_log_sigma[i], T(L::log_sigma_low), T(L::log_sigma_high));
    inverse[i] = exp(-log_sigma[i]);
    z[i] = clamp((splat<V>(point[i]) - mu[i]) * inverse[i], -largest_residual<T>, largest_residual<T>);
  }
  const V r = clamp(raw_r, T(-L::atanh_rho), T(L::atanh_rho)), one = splat<V>(1);
  const V p = exp(r + r), q = one / p;
  const V s = z[0] + z[1], d = z[0] - z[1];
  const V quarter = splat<V>(T(0.25));
  const V a = quarter * (one + q) * s, b = quarter * (one + p) * d;
  const V slope[2] = {a + b, a - b};  // of half the exponent, by z
  const V magnitude = r < V{} ? -r : r;
  const V log_cosh = magnitude + log1p_unit(exp(splat<V>(-2) * magnitude));  // plus log 2
  constexpr double log_4_pi = 2.5310242469692907;
  Component<V> c;
  c.log_density = log_cosh - splat<V>(T(log_4_pi)) - log_sigma[0] - log_sigma[1] - splat<V>(T(0.5)) * (a * s + b * d);
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    c.dmu[i] = -slope[i] * inverse[i];
    c.dlog_sigma[i] = (one - z[i] * slope[i]) * within(raw_log_sigma[i], L::log_sigma_low, L::log_sigma_high);
  }
  c.dr = (quarter * (p * d * d - q * s * s) - tanh(r)) * within(raw_r, -L::atanh_rho, L::atanh_rho);
  return c;
}

template <class T>
FUSEDRNN_INLINE T highest_of(int64_t count, const T* x) {
  T highest = x[0];
  for (int64_t i = 1; i < count; ++i) highest = x[i] > highest ? x[i] : highest;
  return highest;  // a NaN may be passed over, and comes back as the exponential of itself
}

// The point's part of one row: parameters and d [6 K] of it, point (x, y). Until the end d's logits hold the
// components' exponents.
template <class T>
double mixture_point(int64_t K, const T* parameters, const T* point, T weight, T* d) {
  using V = Full<T>;
  const T* const logits = parameters;
  const T *const mu = parameters + K, *const log_sigma = parameters + 3 * K, *const r = parameters + 5 * K;
  const T most = highest_of(K, logits);
  for_vectors_once<T>(K, [&](int64_t k, int n) {
    const V m[2] = {load<V>(mu + k, n), load<V>(mu + K + k, n)};
    const V l[2] = {load<V>(log_sigma + k, n), load<V>(log_sigma + K + k, n)};
    const Component<V> c = component(m, l, load<V>(r + k, n), point);
    // The difference first: beside large logits the density would be lost.
    store(d + k, load<V>(logits + k, n) - splat<V>(most) + c.log_density, n);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      store(d + (1 + i) * K + k, c.dmu[i], n);
      store(d + (3 + i) * K + k, c.dlog_sigma[i], n);
    }
    store(d + 5 * K + k, c.dr, n);
  });
  const T likeliest = highest_of(K, d);
  V joints{}, priors{};
  for_vectors_once<T>(K, [&](int64_t k, int n) {
    const V e = exp(load<V>(d + k, n) - splat<V>(likeliest));
    store(d + k, e, n);
    joints += first_lanes(e, n);
    priors += first_lanes(exp(load<V>(logits + k, n) - splat<V>(most)), n);
  });
  const T joint = sum_lanes(joints), prior = sum_lanes(priors);
  const V by_joint = splat<V>(weight / joint), by_prior = splat<V>(weight / prior);
  for_vectors_once<T>(K, [&](int64_t k, int n) {
    const V responsibility = load<V>(d + k, n) * by_joint;  // times the weight, as all gradients
    store(d + k, exp(load<V>(logits + k, n) - splat<V>(most)) * by_prior - responsibility, n);
#pragma GCC unroll 5
    for (int i = 1; i < 6; ++i) store(d + i * K + k, load<V>(d + i * K + k, n) * responsibility, n);
  });
  return double(weight) * (__builtin_log(double(prior) / double(joint)) - double(likeliest));
}

// The end flag's part: softplus(x) - x t, as binary_cross_entropy.
template <class T>
double end_flag(T logit, T target, T weight, T* d) {
  using V = Full<T>;
  const V x = splat<V>(logit), t = splat<V>(target);
  const V margin = (x < V{} ? V{} : x) - x * t;
  const V loss = margin + log1p_unit(exp(x < V{} ? x : -x)), slope = (sigmoid(x) - t) * splat<V>(weight);
  *d = slope[0];
  return double(weight) * double(loss[0]);
}

template <class T>
double mixture_density(int64_t rows, int64_t components, const T* parameters, const T* target, const T* weights,
                       int64_t weight_columns, T* dparameters) {
  const int64_t columns = 6 * components;
  double loss = 0;
  for (int64_t row = 0; row < rows; ++row, parameters += columns + 1, target += 3, dparameters += columns + 1) {
    const T* const w = weights ? weights + row * weight_columns : nullptr;
    const T point_weight = w ? w[0] : T(1), end_weight = w ? w[weight_columns - 1] : T(1);
    for (int64_t i = 0; point_weight == T(0) && i < columns; ++i) dparameters[i] = 0;
    if (point_weight != T(0)) loss += mixture_point(components, parameters, target, point_weight, dparameters);
    dparameters[columns] = 0;
    if (end_weight != T(0)) loss += end_flag(parameters[columns], target[2], end_weight, dparameters + columns);
  }
  return loss;
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
