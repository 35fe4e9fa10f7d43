// The LSTM with options, from the sums of its gates on: peepholes (Gers and Schmidhuber 2000), coupled gates (Greff et
// al. 2017), clipped c, zoneout of c (Krueger et al. 2017), layer normalisation of c (Ba et al. 2016), other
// activations. Equations: python/fusedrnn/reference/lstm.py.
#pragma once

#include "activations.hpp"
#include "options.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// c~ before it is clipped, from activated gates.
template <class V>
FUSEDRNN_INLINE V candidate_state(V i, V f, V g, V c_prev) {
  return fma(f, c_prev, i * g);
}

template <class V>
FUSEDRNN_INLINE V clipped(V c, Scalar<V> limit) {
  return limit > 0 ? clamp(c, -limit, limit) : c;
}

template <class T>
void lstm_pointwise(const LstmPointwise<T>& step) {
  const LstmPointwise<T> s = step;  // a copy, whose fields stores to memory cannot change
  using V = Full<T>;
  const int64_t H = s.units;
  const bool coupled = s.gates == 3;
  const V one = splat<V>(1);
  for (int64_t r = 0; r < s.rows; ++r) {
    const T *const sums = s.sums.at(r), *const c_prev = s.c_prev.at(r);
    T *const kept = s.kept.at(r), *const c_out = s.c.at(r), *const m = s.m.at(r);
    for_vectors_once<T>(H, [&](int64_t u, int n) {
      const V before = load<V>(c_prev + u, n);
      V zi = load<V>(sums + u, n), zo = load<V>(sums + (s.gates - 1) * H + u, n);
      if (s.peephole) zi = fma(load<V>(s.peephole + u, n), before, zi);
      const V i = activate(s.gate, zi), g = activate(s.candidate, load<V>(sums + (s.gates - 2) * H + u, n));
      V f;
      if (coupled) {
        f = one - i;
      } else {
        f = load<V>(sums + H + u, n);
        if (s.peephole) f = fma(load<V>(s.peephole + H + u, n), before, f);
        f = activate(s.gate, f);
      }
      const V c = clipped(candidate_state(i, f, g, before), s.cell_clip);
      if (s.peephole) zo = fma(load<V>(s.peephole + 2 * H + u, n), c, zo);
      const V o = activate(s.gate, zo);
      store(c_out + u, s.zone_c.data ? zoned(load<V>(s.zone_c.at(r) + u, n), before, c) : c, n);
      if (kept) {
        for (int g = 0; g < 4; ++g) prefetch_for_write(s.kept.at(r + rows_ahead) + g * H + u);
        store(kept + u, i, n);
        store(kept + H + u, f, n);
        store(kept + 2 * H + u, g, n);
        store(kept + 3 * H + u, o, n);
      }
      if (s.gain_c) {  // o waits in m until the row is complete
        store(s.row + u, c, n);
        store(m + u, o, n);
      } else {
        store(m + u, o * activate(s.output, c), n);
      }
    });
    if (!s.gain_c) continue;
    const Moments<T> moments = row_moments(H, s.row);
    if (s.moments_c.data) {
      s.moments_c.at(r)[0] = moments.mean;
      s.moments_c.at(r)[1] = moments.deviation;
    }
    for_vectors_once<T>(H, [&](int64_t u, int n) {
      const V c = scaled(s.gain_c, s.norm_bias_c, u, n, normalized_by(moments, load<V>(s.row + u, n)));
      store(m + u, load<V>(m + u, n) * activate(s.output, c), n);
    });
  }
}

template <class T>
void lstm_pointwise_backward(const LstmPointwiseBackward<T>& step) {
  const LstmPointwiseBackward<T> s = step;
  using V = Full<T>;
  const int64_t H = s.units;
  const bool coupled = s.gates == 3;
  const V limit = splat<V>(s.cell_clip);
  T *const normalized = s.row, *const outputs = s.row + H, *const gradients = s.row + 2 * H;
  for (int64_t r = 0; r < s.rows; ++r) {
    const T *const kept = s.kept.at(r), *const c_prev = s.c_prev.at(r), *const dm = s.dm.at(r);
    const auto gate = [&](int64_t g, int64_t u, int n) { return load<V>(kept + g * H + u, n); };
    const auto candidate = [&](int64_t u, int n) {
      return candidate_state(gate(0, u, n), gate(1, u, n), gate(2, u, n), load<V>(c_prev + u, n));
    };
    if (s.gain_c) {  // gradients: of c~ through the normalisation
      const Moments<T> moments{s.moments_c.at(r)[0], s.moments_c.at(r)[1]};
      for_vectors_once<T>(H, [&](int64_t u, int n) {
        const V x = normalized_by(moments, clipped(candidate(u, n), s.cell_clip));
        const V y = activate(s.output, scaled(s.gain_c, s.norm_bias_c, u, n, x));
        const V d = load<V>(dm + u, n) * gate(3, u, n) * slope(s.output, y);
        store(normalized + u, x, n);
        store(outputs + u, y, n);
        store(gradients + u, d, n);
      });
      normalize_backward<T>({1,
                             H,
                             {gradients, H},
                             {normalized, H},
                             {&moments.deviation, 1},
                             s.gain_c,
                             {gradients, H},
                             s.dgain_c,
                             s.dnorm_bias_c});
    }
    T* const dgates = s.dgates.at(r);
    for_vectors_once<T>(H, [&](int64_t u, int n) {
      for (int g = 0; g < 4; ++g) prefetch(s.kept.at(r + rows_ahead) + g * H + u);
      prefetch(s.c_prev.at(r + rows_ahead) + u);
      const V i = gate(0, u, n), f = gate(1, u, n), g = gate(2, u, n), o = gate(3, u, n);
      const V before = load<V>(c_prev + u, n), dh = load<V>(dm + u, n);
      const V unclipped = candidate_state(i, f, g, before), c = clipped(unclipped, s.cell_clip);
      const V y = s.gain_c ? load<V>(outputs + u, n) : activate(s.output, c);
      V dc = load<V>(s.dc_next.at(r) + u, n);
      if (s.dc_given.data) dc = dc + load<V>(s.dc_given.at(r) + u, n);
      V dc_prev{};
      if (s.zone_c.data) {
        dc_prev = load<V>(s.zone_c.at(r) + u, n) * dc;
        dc = dc - dc_prev;
      }
      dc = s.gain_c ? dc + load<V>(gradients + u, n) : fma(dh * o, slope(s.output, y), dc);
      const V dzo = dh * y * slope(s.gate, o);
      if (s.peephole) dc = fma(load<V>(s.peephole + 2 * H + u, n), dzo, dc);
      if (s.cell_clip > 0) dc = magnitude(unclipped) > limit ? V{} : dc;
      const V dzi = dc * (coupled ? g - before : g) * slope(s.gate, i);
      dc_prev = fma(dc, f, dc_prev);
      if (s.peephole) dc_prev = fma(load<V>(s.peephole + u, n), dzi, dc_prev);
      store(dgates + u, dzi, n);
      if (!coupled) {
        const V dzf = dc * before * slope(s.gate, f);
        if (s.peephole) dc_prev = fma(load<V>(s.peephole + H + u, n), dzf, dc_prev);
        store(dgates + H + u, dzf, n);
      }
      store(dgates + (s.gates - 2) * H + u, dc * i * slope(s.candidate, g), n);
      store(dgates + (s.gates - 1) * H + u, dzo, n);
      store(s.dc.at(r) + u, dc_prev, n);
      if (s.m.data) store(s.m.at(r) + u, o * y, n);
      if (s.c_candidate.data) store(s.c_candidate.at(r) + u, c, n);
    });
  }
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
