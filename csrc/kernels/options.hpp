// Passes over rows that the options of all cells are made of. They run between a step's products, on rows that were
// just written: beside a product over hundreds of terms a pass over its sums is little.
#pragma once

#include "math.hpp"
#include "table.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// f(row, offset, valid lanes) for each vector of the rows.
template <class T, class F>
FUSEDRNN_INLINE void for_row_vectors(int64_t rows, int64_t units, F f) {
  for (int64_t r = 0; r < rows; ++r) for_vectors_once<T>(units, [&](int64_t u, int n) { f(r, u, n); });
}

// Rows of the reserve lie kilobytes apart, too far for the hardware to see that they will be needed: a pass fetches
// those of the next group while it has its own (rows_together in core/options.hpp).
constexpr int64_t rows_ahead = 4;

template <class T>
FUSEDRNN_INLINE T inverse_deviation(T sum_of_squares, int64_t n) {
  const T variance = sum_of_squares / T(n) + T(1e-5);
  return T(1) / (sizeof(T) == 4 ? T(__builtin_sqrtf(float(variance))) : T(__builtin_sqrt(double(variance))));
}

template <class V>
struct Pair {
  V first, second;
};

// The sums of both parts of f(offset, valid lanes) over a row's vectors. Several chains hide the latency of adding; f
// is zero in the lanes that are not valid.
template <class T, class F>
FUSEDRNN_INLINE Pair<T> sum_row_pairs(int64_t units, F f) {
  using V = Full<T>;
  constexpr int64_t W = full_lanes<T>;
  Pair<V> sums[4] = {};
  const auto add = [&](int chain, int64_t u, int n) {
    const Pair<V> v = f(u, n);
    sums[chain] = {sums[chain].first + v.first, sums[chain].second + v.second};
  };
  int64_t u = 0;
  for (; u + 4 * W <= units; u += 4 * W)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) add(i, u + i * W, int(W));
  for (; u < units; u += W) add(0, u, int(min(W, units - u)));
  return {sum_lanes((sums[0].first + sums[1].first) + (sums[2].first + sums[3].first)),
          sum_lanes((sums[0].second + sums[1].second) + (sums[2].second + sums[3].second))};
}

template <class T, class F>
FUSEDRNN_INLINE T sum_row(int64_t units, F f) {
  return sum_row_pairs<T>(units, [&](int64_t u, int n) { return Pair<Full<T>>{f(u, n), {}}; }).first;
}

template <class T>
struct Moments {
  T mean, deviation;  // the deviation inverted
};

template <class T>
FUSEDRNN_INLINE Moments<T> row_moments(int64_t units, const T* row) {
  using V = Full<T>;
  const T mean = sum_row<T>(units, [&](int64_t u, int n) { return load<V>(row + u, n); }) / T(units);
  const T squares = sum_row<T>(units, [&](int64_t u, int n) {
    const V d = first_lanes(load<V>(row + u, n) - splat<V>(mean), n);
    return d * d;
  });
  return {mean, inverse_deviation(squares, units)};
}

template <class V>
FUSEDRNN_INLINE V normalized_by(const Moments<Scalar<V>>& m, V v) {
  return (v - splat<V>(m.mean)) * splat<V>(m.deviation);
}

template <class V, class T>
FUSEDRNN_INLINE V scaled(const T* gain, const T* bias, int64_t u, int n, V normalized) {
  const V g = load<V>(gain + u, n);
  return bias ? fma(g, normalized, load<V>(bias + u, n)) : g * normalized;
}

template <class T>
void normalize(const Normalize<T>& step) {
  const Normalize<T> s = step;  // a copy, whose fields stores to memory cannot change
  using V = Full<T>;
  for (int64_t r = 0; r < s.rows; ++r) {
    const T* const in = s.in.at(r);
    T *const normalized = s.normalized.at(r), *const out = s.out.at(r);
    const Moments<T> moments = row_moments(s.units, in);
    if (s.deviation.data) *s.deviation.at(r) = moments.deviation;
    T* const ahead = s.normalized.at(r + rows_ahead);
    for_vectors_once<T>(s.units, [&](int64_t u, int n) {
      prefetch_for_write(ahead + u);
      const V v = normalized_by(moments, load<V>(in + u, n));
      store(normalized + u, v, n);  // may be in or out
      const V y = scaled(s.gain, s.bias, u, n, v);
      store(out + u, s.add ? load<V>(out + u, n) + y : y, n);
    });
  }
}

// Backward, with g = gain dout: din = (g - mean g - normalized mean(g normalized)) / deviation. Here the sums of g and
// of g normalized.
template <class T>
FUSEDRNN_INLINE Pair<T> scaled_sums(int64_t units, const T* dout, const T* normalized, const T* gain, const T* ahead) {
  using V = Full<T>;
  return sum_row_pairs<T>(units, [&](int64_t u, int n) {
    prefetch(ahead + u);
    const V g = load<V>(gain + u, n) * load<V>(dout + u, n);
    return Pair<V>{g, g * load<V>(normalized + u, n)};
  });
}

// Some rows at a time, so that the sums of columns are read and written less often; each column's terms by ascending
// row.
template <class T>
void normalize_backward(const NormalizeBackward<T>& step) {
  const NormalizeBackward<T> s = step;
  using V = Full<T>;
  constexpr int64_t group = 4;
  for (int64_t first = 0; first < s.rows; first += group) {
    const int64_t last = min(s.rows, first + group);
    V mean[group], product[group], deviation[group];
    for (int64_t r = first; r < last; ++r) {
      const Pair<T> sums =
          scaled_sums(s.units, s.dout.at(r), s.normalized.at(r), s.gain, s.normalized.at(r + rows_ahead));
      mean[r - first] = splat<V>(sums.first / T(s.units));
      product[r - first] = splat<V>(sums.second / T(s.units));
      deviation[r - first] = splat<V>(*s.deviation.at(r));
    }
    for_vectors_once<T>(s.units, [&](int64_t u, int n) {
      const V gain = load<V>(s.gain + u, n);
      V products = load<V>(s.products + u, n), sums = s.sums ? load<V>(s.sums + u, n) : V{};
      for (int64_t r = first; r < last; ++r) {
        const V d = load<V>(s.dout.at(r) + u, n), normalized = load<V>(s.normalized.at(r) + u, n);
        const int64_t i = r - first;
        store(s.din.at(r) + u, (gain * d - mean[i] - normalized * product[i]) * deviation[i], n);
        products = fma(d, normalized, products);
        sums = sums + d;
      }
      store(s.products + u, products, n);
      if (s.sums) store(s.sums + u, sums, n);
    });
  }
}

// Some rows at a time, so that the sums are read and written less often; each column's terms by ascending row.
template <class T>
void column_sums(const ColumnSums<T>& step) {
  const ColumnSums<T> s = step;
  using V = Full<T>;
  constexpr int64_t group = 8;
  for (int64_t first = 0; first < s.rows; first += group) {
    const int64_t last = min(s.rows, first + group);
    for_vectors<T>(s.units, [&](int64_t u, int n) {
      V products = s.products ? load<V>(s.products + u, n) : V{}, sums = s.sums ? load<V>(s.sums + u, n) : V{};
      for (int64_t r = first; r < last; ++r) {
        const V a = load<V>(s.a.at(r) + u, n);
        if (s.products) products = fma(a, load<V>(s.b.at(r) + u, n), products);
        sums = sums + a;
      }
      if (s.products) store(s.products + u, products, n);
      if (s.sums) store(s.sums + u, sums, n);
    });
  }
}

// `before` to the bit where zone is 1, `state` where it is 0.
template <class V>
FUSEDRNN_INLINE V zoned(V zone, V before, V state) {
  return fma(zone, before, state - zone * state);
}

template <class T>
void zoneout(const Zoneout<T>& step) {
  const Zoneout<T> s = step;
  using V = Full<T>;
  for_row_vectors<T>(s.rows, s.units, [&](int64_t r, int64_t u, int n) {
    const V state = load<V>(s.state.at(r) + u, n);
    store(s.state.at(r) + u, zoned(load<V>(s.zone.at(r) + u, n), load<V>(s.before.at(r) + u, n), state), n);
  });
}

template <class T>
void state_gradient(const StateGradient<T>& step) {
  const StateGradient<T> s = step;
  using V = Full<T>;
  const auto add = [](V dh, const Rows<const T>& rows, int64_t r, int64_t u, int n) {
    return rows.data ? dh + load<V>(rows.at(r) + u, n) : dh;
  };
  for_row_vectors<T>(s.rows, s.units, [&](int64_t r, int64_t u, int n) {
    V dh{};
    if (s.recurrent.data) {
      dh = load<V>(s.recurrent.at(r) + u, n);
      if (s.mask.data) dh = dh * load<V>(s.mask.at(r) + u, n);
      if (s.clip > 0) dh = clamp(dh, -s.clip, s.clip);
    }
    dh = add(add(add(dh, s.carry_next, r, u, n), s.dh_n, r, u, n), s.dy, r, u, n);
    if (s.carry.data) {
      const V carry = s.zone.data ? load<V>(s.zone.at(r) + u, n) * dh : V{};
      store(s.carry.at(r) + u, carry, n);
      dh = dh - carry;
    }
    store(s.out.at(r) + u, dh, n);
  });
}

template <class T>
void multiply(const Multiply<T>& step) {
  const Multiply<T> s = step;
  using V = Full<T>;
  for_row_vectors<T>(s.rows, s.units, [&](int64_t r, int64_t u, int n) {
    store(s.out.at(r) + u, load<V>(s.a.at(r) + u, n) * load<V>(s.b.at(r) + u, n), n);
  });
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
