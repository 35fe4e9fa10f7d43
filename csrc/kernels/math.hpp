// Branch-free exp, sigmoid, tanh and softplus over vectors of float and double.
//
// Bounds, swept against higher precision by tests/test_math.py over normal results:
// exp 1 ulp, sigmoid 2.5 ulp, tanh 3 ulp, softplus 3 ulp. NaN comes out as NaN; infinities take their limits.
#pragma once

#ifndef FUSEDRNN_INLINE  // else csrc/cuda/scalar.hpp came first: the same names over one float
#include "simd.hpp"
#endif

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// exp(x) = 2^n exp(r), n = round(x / ln 2), r = x - n ln 2 in two parts (Cody and Waite 1980);
// expm1(r) = r + r^2 q(r), q fitted by Chebyshev interpolation on |r| <= ln(2) / 2.
template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  // Adding and subtracting 1.5 * 2^23 rounds to an integer, which is then in the low bits of the sum.
  static constexpr float round_magic = 12582912.0f;
  static constexpr int mantissa_bits = 23;
  // Up to finite_power n <= 127 and 2^n is finite; -126 is the last normal power; exp overflows at `overflow`.
  static constexpr float highest = 89.0f, lowest = -87.33654f, finite_power = 88.25f, half_above = 88.0f,
                         overflow = 88.722839f;
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr float q[] = {0.5f, 0.16666576845993976f, 0.041666554437685939f, 0.0083632029715758549f,
                                0.0013926213466332443f};
};

template <>
struct ExpConstants<double> {
  static constexpr double round_magic = 6755399441055744.0;
  static constexpr int mantissa_bits = 52;
  static constexpr double highest = 710.0, lowest = -708.39, finite_power = 709.25, half_above = 709.0,
                          overflow = 709.782712893383996;
  static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  static constexpr double q[] = {0.5,
                                 0.16666666666666667456,
                                 0.041666666666623991516,
                                 0.0083333333333300513464,
                                 0.0013888888917281793308,
                                 0.00019841269863105968748,
                                 0.000024801521190217727651,
                                 2.7557268378684192873e-6,
                                 2.7620138719733995569e-7,
                                 2.5100424157005066788e-8};
};

constexpr double log2_e = 1.4426950408889634074;

// C::q[i] + r (C::q[i + 1] + r (...)).
template <class C, int i, class V>
FUSEDRNN_INLINE V horner(V r) {
  constexpr auto coefficient = C::q[i];
  if constexpr (i + 1 == sizeof(C::q) / sizeof coefficient)
    return splat<V>(coefficient);
  else
    return fma(horner<C, i + 1>(r), r, splat<V>(coefficient));
}

template <class V>
struct ReducedExp {
  V power;  // 2^n
  V expm1;  // exp(r) - 1
};

// x must be within [lowest, highest] or NaN.
template <class V>
FUSEDRNN_INLINE ReducedExp<V> reduced_exp(V x) {
  using T = Scalar<V>;
  using C = ExpConstants<T>;
  using I = typename Traits<V>::IntegerVector;
  const V magic = splat<V>(C::round_magic);
  const V shifted = fma(x, splat<V>(T(log2_e)), magic);
  const V n = shifted - magic;
  V r = fma(n, splat<V>(-C::ln2_high), x);
  r = fma(n, splat<V>(-C::ln2_low), r);
  const V q = horner<C, 0>(r);
  const I one = bit_cast<I>(splat<V>(T(1)));
  const I power = (bit_cast<I>(shifted) << C::mantissa_bits) + one;
  return {bit_cast<V>(power), fma(r * r, q, r)};
}

// The comparisons are written so that NaN passes through.
template <class V>
FUSEDRNN_INLINE V clamp(V x, Scalar<V> low, Scalar<V> high) {
  const V l = splat<V>(low), h = splat<V>(high);
  x = x < l ? l : x;
  return x > h ? h : x;
}

template <class V>
FUSEDRNN_INLINE V exp(V x) {
  using T = Scalar<V>;
  using C = ExpConstants<T>;
  using I = typename Traits<V>::IntegerVector;
  const ReducedExp<V> e = reduced_exp(clamp(x, C::lowest, C::highest));
  // The largest results lie beyond the largest power of two: take half of it, and double at the end.
  const I beyond = x > splat<V>(C::half_above);
  const V power = bit_cast<V>(bit_cast<I>(e.power) + (beyond << C::mantissa_bits));
  const V y = fma(power, e.expm1, power) * (beyond ? splat<V>(2) : splat<V>(1));
  return x < splat<V>(C::lowest) ? V{} : x > splat<V>(C::overflow) ? splat<V>(T(__builtin_inf())) : y;
}

// 1 / (1 + exp(-x)); zero where exp(-x) is near its overflow and the result below the normal numbers.
template <class V>
FUSEDRNN_INLINE V sigmoid(V x) {
  using C = ExpConstants<Scalar<V>>;
  const V one = splat<V>(1);
  const ReducedExp<V> e = reduced_exp(clamp(-x, C::lowest, C::finite_power));
  const V y = divide(one, one + fma(e.power, e.expm1, e.power));
  return x < splat<V>(-C::finite_power) ? V{} : y;
}

// expm1(2x) / (expm1(2x) + 2), with expm1(2x) = 2^n expm1(r) + (2^n - 1): exact to the last bits near zero too.
template <class V>
FUSEDRNN_INLINE V tanh(V x) {
  // Beyond this tanh rounds to one; the quotient has left the range where it could overflow long before.
  constexpr double limit = sizeof(Scalar<V>) == 4 ? 9.02 : 19.1;
  const V two_x = clamp(x + x, Scalar<V>(-2 * limit), Scalar<V>(2 * limit));
  const ReducedExp<V> e = reduced_exp(two_x);
  const V expm1 = fma(e.power, e.expm1, e.power - splat<V>(1));
  using I = typename Traits<V>::IntegerVector;
  const I sign = bit_cast<I>(x) & bit_cast<I>(splat<V>(Scalar<V>(-0.0)));  // the quotient loses that of -0
  return bit_cast<V>(bit_cast<I>(divide(expm1, expm1 + splat<V>(2))) | sign);
}

// log(1 + e) for 0 <= e <= 1: 2 atanh(s), s = e / (2 + e) <= 1/3, by its series, which keeps small e exact.
template <class V>
FUSEDRNN_INLINE V log1p_unit(V e) {
  using T = Scalar<V>;
  constexpr int terms = sizeof(T) == 4 ? 8 : 17;
  const V s = e / (e + splat<V>(2));
  const V s2 = s * s;
  V sum = splat<V>(T(1.0 / (2 * terms - 1)));
#pragma GCC unroll 32
  for (int i = terms - 2; i >= 0; --i) sum = fma(sum, s2, splat<V>(T(1.0 / (2 * i + 1))));
  return (s + s) * sum;
}

// log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)).
template <class V>
FUSEDRNN_INLINE V softplus(V x) {
  const V positive = x < V{} ? V{} : x;
  const V negative_magnitude = x < V{} ? x : -x;
  return positive + log1p_unit(exp(negative_magnitude));
}

template <class V>
FUSEDRNN_INLINE V relu(V x) {
  return x < V{} ? V{} : x;
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
