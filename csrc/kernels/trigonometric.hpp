// sin and cos over vectors of float and double.
//
// Bounds, swept by tests/test_math.py for magnitudes up to 1e5: 2 ulp. Larger ones go to the C library lane by lane:
// the same bits wherever they stand, but another library may give others. sin and cos of infinity are NaN.
#pragma once

#include "math.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// r = x - n pi/2, n = round(x 2/pi), with pi/2 in parts (Cody and Waite 1980) for |n| < 2^16; then polynomials on
// |r| <= pi/4 (float: Moshier's Cephes, sinf.c; double: fdlibm's k_sin.c and k_cos.c). Differences with the first
// `plain` parts are exact, or within half an ulp where a product is not rounded; what the next ones lose is carried.
template <class T>
struct CircleConstants;

template <>
struct CircleConstants<float> {
  static constexpr float round_magic = 12582912.0f;
#if defined(__FMA__) || defined(__aarch64__)
  static constexpr int plain = 3;
  static constexpr float half_pi[] = {1.57079637050628662f, -4.371138828673793e-8f, -1.7151245100058819e-15f};
#else  // n times a part must be exact
  static constexpr int plain = 2;
  static constexpr float half_pi[] = {1.5703125f, 4.825592041015625e-4f, 1.2665987014770508e-6f, 9.89530235528946e-10f,
                                      2.5633440682570896e-12f};
#endif
  struct Sine {
    static constexpr float q[] = {-1.6666654611e-1f, 8.3321608736e-3f, -1.9515295891e-4f};
  };
  struct Cosine {
    static constexpr float q[] = {4.166664568298827e-2f, -1.388731625493765e-3f, 2.443315711809948e-5f};
  };
};

template <>
struct CircleConstants<double> {
  static constexpr double round_magic = 6755399441055744.0;
  static constexpr int plain = 1;
  static constexpr double half_pi[] = {1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624879595063154e-21};
  struct Sine {
    static constexpr double q[] = {-1.66666666666666324348e-01, 8.33333333332248946124e-03,
                                   -1.98412698298579493134e-04, 2.75573137070700676789e-06,
                                   -2.50507602534068634195e-08, 1.58969099521155010221e-10};
  };
  struct Cosine {
    static constexpr double q[] = {4.16666666666666019037e-02, -1.38888888888741095749e-03,
                                   2.48015872894767294178e-05, -2.75573143513906633035e-07,
                                   2.08757232129817482790e-09, -1.13596475577881948265e-11};
  };
};

// Whether a mask, seen as words, has a bit that is set.
template <class Words>
FUSEDRNN_INLINE bool any(Words mask) {
  if constexpr (sizeof(Words) == 16) {
    const auto halves = bit_cast<Vector<uint64_t, 2>>(mask);
    return (halves[0] | halves[1]) != 0;
  } else {
    constexpr int half = lanes_of<Words> / 2;
    using Half = Vector<uint32_t, half>;
    return any(part_of<Half, 0>(mask) | part_of<Half, half>(mask));
  }
}

template <bool cosine, class V>
FUSEDRNN_NOINLINE V circle_far(V x, V near, Scalar<V> limit) {
  for (int l = 0; l < lanes_of<V>; ++l)
    if (x[l] > limit || x[l] < -limit) {
      if constexpr (sizeof(Scalar<V>) == 4)
        near[l] = cosine ? __builtin_cosf(x[l]) : __builtin_sinf(x[l]);
      else
        near[l] = cosine ? __builtin_cos(x[l]) : __builtin_sin(x[l]);
    }
  return near;
}

template <bool cosine, class V>
FUSEDRNN_INLINE V circle(V x) {
  using T = Scalar<V>;
  using C = CircleConstants<T>;
  using I = typename Traits<V>::IntegerVector;
  constexpr T limit = 1e5, two_over_pi = T(0.63661977236758134308);
  constexpr int parts = int(sizeof(C::half_pi) / sizeof(T));
  const V magic = splat<V>(C::round_magic);
  const V shifted = fma(x, splat<V>(two_over_pi), magic);
  const V n = shifted - magic;
  V r = x;
#pragma GCC unroll 4
  for (int i = 0; i < C::plain; ++i) r = fma(n, splat<V>(-C::half_pi[i]), r);
  if constexpr (C::plain < parts) {
    V low{};
#pragma GCC unroll 4
    for (int i = C::plain; i < parts - 1; ++i) {
      const V part = n * splat<V>(C::half_pi[i]), next = r - part;
      low = low + ((r - next) - part);
      r = next;
    }
    r = r + fma(n, splat<V>(-C::half_pi[parts - 1]), low);
  }
  const V z = r * r;
  const V sine = fma(z * r, horner<typename C::Sine, 0>(z), r);
  const V half = z * splat<V>(T(0.5)), one = splat<V>(1), rest = one - half;
  const V cosine_value = rest + (((one - rest) - half) + z * z * horner<typename C::Cosine, 0>(z));
  const I quadrant = bit_cast<I>(shifted) + I{} + (cosine ? 1 : 0);
  const V value = (quadrant & 1) != 0 ? cosine_value : sine;
  V y = (quadrant & 2) != 0 ? -value : value;
  if constexpr (!cosine) y = x == V{} ? x : y;  // the polynomial loses the sign of -0
  const V magnitude = x < V{} ? -x : x;
  return __builtin_expect(any(bit_cast<Vector<uint32_t, int(sizeof(V) / 4)>>(magnitude > splat<V>(limit))), 0)
             ? circle_far<cosine>(x, y, limit)
             : y;
}

template <class V>
FUSEDRNN_INLINE V sin(V x) {
  return circle<false>(x);
}

template <class V>
FUSEDRNN_INLINE V cos(V x) {
  return circle<true>(x);
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
