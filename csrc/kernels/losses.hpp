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
    if (classes < lanes_of<V>) {
      for (int64_t c = 1; c < classes; ++c) highest = x[c] > highest ? x[c] : highest;
    } else {
      // The last vector overlaps the one before. A NaN is passed over, and comes back as the exponential of itself.
      V most = load<V>(x);
      for (int64_t c = lanes_of<V>; c < classes; c += lanes_of<V>) {
        const V v = load<V>(x + min(c, classes - lanes_of<V>));
        most = v > most ? v : most;
      }
      for (int l = 0; l < lanes_of<V>; ++l) highest = most[l] > highest ? most[l] : highest;
    }
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

// A sum in double, a chain for each lane.
template <class V>
struct DoubleSum {
  using D = Vector<double, full_lanes<double>>;
  D low{}, high{};

  FUSEDRNN_INLINE void add(V v) {
    if constexpr (lanes_of<V> == lanes_of<D>) {
      low += v;
    } else {
      using Half = Vector<Scalar<V>, lanes_of<D>>;
      low += __builtin_convertvector((part_of<Half, 0>(v)), D);
      high += __builtin_convertvector((part_of<Half, lanes_of<D>>(v)), D);
    }
  }
  FUSEDRNN_INLINE void add(V v, int count) {
    if (count == lanes_of<V>) return add(v);
    V kept{};
    for (int l = 0; l < count; ++l) kept[l] = v[l];
    add(kept);
  }
  FUSEDRNN_INLINE double value() const { return sum_lanes(low + high); }
};

// softplus(x) - x t, whose derivative is sigmoid(x) - t.
template <class T>
double binary_cross_entropy(int64_t count, const T* logits, const T* targets, T* dlogits) {
  using V = Full<T>;
  DoubleSum<V> loss;
  for_vectors<T>(count, [&](int64_t i, int n) {
    const V x = load<V>(logits + i, n), t = load<V>(targets + i, n);
    store(dlogits + i, sigmoid(x) - t, n);
    // max(x, 0) - x t first: both are large and cancel when the prediction is right.
    const V margin = (x < V{} ? V{} : x) - x * t;
    const V minus_magnitude = x < V{} ? x : -x;
    loss.add(margin + log1p_unit(exp(minus_magnitude)), n);
  });
  return loss.value();
}

template <class T>
double squared_error(int64_t count, const T* prediction, const T* target, T* dprediction) {
  using V = Full<T>;
  DoubleSum<V> loss;
  for_vectors<T>(count, [&](int64_t i, int n) {
    const V e = load<V>(prediction + i, n) - load<V>(target + i, n);
    store(dprediction + i, e + e, n);
    loss.add(e * e, n);
  });
  return loss.value();
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
