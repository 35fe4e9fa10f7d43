// Losses from logits, value and gradient in one pass. The value is summed in double.
#pragma once

#include "math.hpp"
#include "optim.hpp"
#include "table.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

template <class T>
double softmax_cross_entropy(int64_t rows, int64_t classes, const T* logits, const int64_t* targets, T* dlogits) {
  using V = Full<T>;
  double loss = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const T* x = logits + row * classes;
    T* d = dlogits + row * classes;
    T highest = x[0];
    for (int64_t c = 1; c < classes; ++c) highest = x[c] > highest ? x[c] : highest;
    V sums{};
    for_vectors<T>(classes, [&](int64_t c, int n) {
      const V e = exp(load<V>(x + c, n) - splat<V>(highest));
      store(d + c, e, n);
      sums += n == lanes_of<V> ? e : load<V>(d + c, n);  // lanes beyond the last class do not count
    });
    const T sum = sum_lanes(sums);
    const V scale = splat<V>(T(1) / sum);
    for_vectors<T>(classes, [&](int64_t c, int n) { store(d + c, load<V>(d + c, n) * scale, n); });
    // The difference first: beside large logits the logarithm would be lost.
    loss += __builtin_log(double(sum)) + (double(highest) - double(x[targets[row]]));
    d[targets[row]] -= T(1);
  }
  return loss;
}

template <class V>
FUSEDRNN_INLINE double sum_as_double(V v, int count) {
  double sum = 0;
  for (int l = 0; l < count; ++l) sum += double(v[l]);
  return sum;
}

// softplus(x) - x t, whose derivative is sigmoid(x) - t.
template <class T>
double binary_cross_entropy(int64_t count, const T* logits, const T* targets, T* dlogits) {
  using V = Full<T>;
  double loss = 0;
  for_vectors<T>(count, [&](int64_t i, int n) {
    const V x = load<V>(logits + i, n), t = load<V>(targets + i, n);
    store(dlogits + i, sigmoid(x) - t, n);
    // max(x, 0) - x t first: both are large and cancel when the prediction is right.
    const V margin = (x < V{} ? V{} : x) - x * t;
    const V minus_magnitude = x < V{} ? x : -x;
    loss += sum_as_double(margin + log1p_unit(exp(minus_magnitude)), n);
  });
  return loss;
}

template <class T>
double squared_error(int64_t count, const T* prediction, const T* target, T* dprediction) {
  using V = Full<T>;
  double loss = 0;
  for_vectors<T>(count, [&](int64_t i, int n) {
    const V e = load<V>(prediction + i, n) - load<V>(target + i, n);
    store(dprediction + i, e + e, n);
    loss += sum_as_double(e * e, n);
  });
  return loss;
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
