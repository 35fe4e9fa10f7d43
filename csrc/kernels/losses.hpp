// Losses from logits, value and gradient in one pass. The value is summed in double.
#pragma once

#include "math.hpp"
#include "optim.hpp"
#include "table.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// Adds logarithms up as one of a product, taken when that grows large: a logarithm a row took most of the time.
struct LogSum {
  double sum = 0, product = 1;

  FUSEDRNN_INLINE void add(double x) {
    product *= x;
    if (product > 1e250) {
      sum += __builtin_log(product);
      product = 1;
    }
  }
  FUSEDRNN_INLINE double value() const { return sum + __builtin_log(product); }
};

// Two to four classes: many rows share a vector of exponentials, in pieces that stay in the L1 cache. Sums in the order
// in which a vector of its own would be summed.
template <int Classes, class T>
double few_classes(int64_t rows, const T* logits, const int64_t* targets, T* dlogits) {
  using V = Full<T>;
  constexpr int64_t piece = 256;
  LogSum logs;
  double rest = 0;
  for (int64_t first = 0; first < rows; first += piece) {
    const int64_t last = min(rows, first + piece);
    for (int64_t row = first; row < last; ++row) {
      const T* const x = logits + row * Classes;
      T highest = x[0];
#pragma GCC unroll 4
      for (int c = 1; c < Classes; ++c) highest = x[c] > highest ? x[c] : highest;
#pragma GCC unroll 4
      for (int c = 0; c < Classes; ++c) dlogits[row * Classes + c] = x[c] - highest;
      // The difference first: beside large logits the logarithm would be lost.
      rest += double(highest) - double(x[targets[row]]);
    }
    T* const flat = dlogits + first * Classes;
    for_vectors<T>((last - first) * Classes, [&](int64_t i, int n) { store(flat + i, exp(load<V>(flat + i, n)), n); });
    for (int64_t row = first; row < last; ++row) {
      T* const d = dlogits + row * Classes;
      const T sum = Classes == 2 ? d[0] + d[1] : (d[0] + d[2]) + (Classes == 3 ? d[1] : d[1] + d[Classes - 1]);
      logs.add(double(sum));
      const T scale = T(1) / sum;
#pragma GCC unroll 4
      for (int c = 0; c < Classes; ++c) d[c] *= scale;
      d[targets[row]] -= T(1);
    }
  }
  return rest + logs.value();
}

// exp(x - the largest) into e, [classes]; returns their sum.
template <class T>
FUSEDRNN_INLINE T exponentials(int64_t classes, const T* x, T* e, T& highest) {
  using V = Full<T>;
  highest = x[0];
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
    const V v = exp(load<V>(x + c, n) - splat<V>(highest));
    store(e + c, v, n);
    sums += n == lanes_of<V> ? v : load<V>(e + c, n);  // lanes beyond the last class do not count
  });
  return sum_lanes(sums);
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

// Rows that all count alike, without smoothing.
template <class T>
double plain_cross_entropy(int64_t rows, int64_t classes, const T* logits, const int64_t* targets, T* dlogits) {
  using V = Full<T>;
  if (classes == 2) return few_classes<2>(rows, logits, targets, dlogits);
  if (classes == 3) return few_classes<3>(rows, logits, targets, dlogits);
  if (classes == 4) return few_classes<4>(rows, logits, targets, dlogits);
  LogSum logs;
  double rest = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const T* x = logits + row * classes;
    T* d = dlogits + row * classes;
    T highest;
    const T sum = exponentials(classes, x, d, highest);
    const V scale = splat<V>(T(1) / sum);
    for_vectors<T>(classes, [&](int64_t c, int n) { store(d + c, load<V>(d + c, n) * scale, n); });
    logs.add(double(sum));
    rest += double(highest) - double(x[targets[row]]);
    d[targets[row]] -= T(1);
  }
  return rest + logs.value();
}

// Rows with weights, or targets of which a part is spread over all classes. A row of weight 0 is not looked at.
template <class T>
double weighted_cross_entropy(int64_t rows, int64_t classes, const T* logits, const int64_t* targets, const T* weights,
                              T smoothing, T* dlogits) {
  using V = Full<T>;
  double loss = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const T* x = logits + row * classes;
    T* d = dlogits + row * classes;
    const T weight = weights ? weights[row] : T(1);
    if (!(weight > 0)) {
      for_vectors<T>(classes, [&](int64_t c, int n) { store(d + c, V{}, n); });
      continue;
    }
    T highest;
    const T sum = exponentials(classes, x, d, highest);
    const V scale = splat<V>(weight / sum), spread = splat<V>(weight * smoothing / T(classes));
    double below = (1 - double(smoothing)) * (double(highest) - double(x[targets[row]]));
    if (smoothing > 0) {
      DoubleSum<V> all;
      for_vectors<T>(classes, [&](int64_t c, int n) { all.add(splat<V>(highest) - load<V>(x + c, n), n); });
      below += double(smoothing) * all.value() / double(classes);
    }
    for_vectors<T>(classes, [&](int64_t c, int n) { store(d + c, load<V>(d + c, n) * scale - spread, n); });
    d[targets[row]] -= weight * (T(1) - smoothing);
    loss += double(weight) * (below + __builtin_log(double(sum)));
  }
  return loss;
}

template <class T>
double softmax_cross_entropy(int64_t rows, int64_t classes, const T* logits, const int64_t* targets, const T* weights,
                             T smoothing, T* dlogits) {
  if (!weights && !(smoothing > 0)) return plain_cross_entropy(rows, classes, logits, targets, dlogits);
  return weighted_cross_entropy(rows, classes, logits, targets, weights, smoothing, dlogits);
}

// Calls each(i, n, weigh) for vectors of n elements; weigh multiplies a vector by its weights, and gives 0 where one is
// 0, whatever stands there.
template <class T, class F>
FUSEDRNN_INLINE void for_weighted_vectors(int64_t count, const T* weights, F each) {
  using V = Full<T>;
  if (!weights) return for_vectors<T>(count, [&](int64_t i, int n) { each(i, n, [](V v) { return v; }); });
  for_vectors<T>(count, [&](int64_t i, int n) {
    const V w = load<V>(weights + i, n);
    each(i, n, [w](V v) { return w > V{} ? w * v : V{}; });
  });
}

// softplus(x) - x t, whose derivative is sigmoid(x) - t.
template <class T>
double binary_cross_entropy(int64_t count, const T* logits, const T* targets, const T* weights, T* dlogits) {
  using V = Full<T>;
  DoubleSum<V> loss;
  for_weighted_vectors<T>(count, weights, [&](int64_t i, int n, auto weigh) {
    const V x = load<V>(logits + i, n), t = load<V>(targets + i, n);
    store(dlogits + i, weigh(sigmoid(x) - t), n);
    // max(x, 0) - x t first: both are large and cancel when the prediction is right.
    const V margin = (x < V{} ? V{} : x) - x * t;
    const V minus_magnitude = x < V{} ? x : -x;
    loss.add(weigh(margin + log1p_unit(exp(minus_magnitude))), n);
  });
  return loss.value();
}

template <class T>
double squared_error(int64_t count, const T* prediction, const T* target, const T* weights, T* dprediction) {
  using V = Full<T>;
  DoubleSum<V> loss;
  for_weighted_vectors<T>(count, weights, [&](int64_t i, int n, auto weigh) {
    const V e = load<V>(prediction + i, n) - load<V>(target + i, n);
    store(dprediction + i, weigh(e + e), n);
    loss.add(weigh(e * e), n);
  });
  return loss.value();
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
