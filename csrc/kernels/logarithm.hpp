// Branch-free log, log1p and expm1 over vectors of float and double.
//
// Bounds, swept by tests/test_math.py over normal results: log 1 ulp, log1p 1 ulp, expm1 2 ulp. NaN comes out as NaN;
// infinities and poles take their limits; numbers below the smallest normal count as zero.
#pragma once

#include "math.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// log(x) = e ln 2 + log(1 + f), x = 2^e (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) = f - f^2/2 + s (f^2/2 + R),
// s = f / (2 + f), R a polynomial in s^2 (Ng 1993, fdlibm's e_log.c and e_logf.c).
template <class T>
struct LogConstants;

template <>
struct LogConstants<float> {
  using Unsigned = uint32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr Unsigned one = 0x3f800000, root_half = 0x3f3504f3, mantissa = 0x007fffff;
  static constexpr float round_magic = 12582912.0f, tiny = 1.17549435e-38f, exact_below = 2.98e-8f;
  static constexpr float ln2_high = 6.9313812256e-01f, ln2_low = 9.0580006145e-06f;
  static constexpr float q[] = {0.66666662693f, 0.40000972152f, 0.28498786688f, 0.24279078841f};
};

template <>
struct LogConstants<double> {
  using Unsigned = uint64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr Unsigned one = 0x3ff0000000000000, root_half = 0x3fe6a09e00000000, mantissa = 0x000fffffffffffff;
  static constexpr double round_magic = 6755399441055744.0, tiny = 2.2250738585072014e-308, exact_below = 5.55e-17;
  static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  static constexpr double q[] = {6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
                                 2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
                                 1.479819860511658591e-01};
};

// log(x) + rest for positive normal x and a rest that is small beside it.
template <class V>
FUSEDRNN_INLINE V log_normal(V x, V rest) {
  using T = Scalar<V>;
  using C = LogConstants<T>;
  using U = Vector<typename C::Unsigned, lanes_of<V>>;
  const U bits = bit_cast<U>(x) + (C::one - C::root_half);
  // The exponent as a number: an integer in the low bits of a large one.
  const V magic = splat<V>(C::round_magic);
  const U shifted = (bits >> C::mantissa_bits) - (C::one >> C::mantissa_bits) + bit_cast<U>(magic);
  const V e = bit_cast<V>(shifted) - magic;
  const V f = bit_cast<V>((bits & C::mantissa) + C::root_half) - splat<V>(1);
  const V s = f / (f + splat<V>(2));
  const V z = s * s;
  const V half_square = splat<V>(T(0.5)) * f * f;
  const V series = s * (half_square + z * horner<C, 0>(z));
  return e * splat<V>(C::ln2_high) - ((half_square - (series + (e * splat<V>(C::ln2_low) + rest))) - f);
}

// What log gives for any x, where y is its value for the finite positive ones.
template <class V>
FUSEDRNN_INLINE V log_limits(V x, V y) {
  using T = Scalar<V>;
  const V infinity = splat<V>(T(__builtin_inf())), tiny = splat<V>(LogConstants<T>::tiny);
  const V below = x > -tiny ? -infinity : splat<V>(T(__builtin_nan("")));
  return x >= tiny ? (x == infinity ? x : y) : below;
}

template <class V>
FUSEDRNN_INLINE V log(V x) {
  return log_limits(x, log_normal(x, V{}));
}

// log(u) + (x - (u - 1)) / u with u = 1 + x rounded: the second term is what rounding took (Kahan).
template <class V>
FUSEDRNN_INLINE V log1p(V x) {
  using C = LogConstants<Scalar<V>>;
  const V one = splat<V>(1), u = one + x;
  const V y = log_limits(u, log_normal(u, (x - (u - one)) / u));
  const V magnitude = x < V{} ? -x : x;
  return magnitude < splat<V>(C::exact_below) ? x : y;  // x^2 / 2 is below its last bit; and the sign of zero stays
}

// 2^n expm1(r) + (2^n - 1), exact to the last bits near zero.
template <class V>
FUSEDRNN_INLINE V expm1(V x) {
  using T = Scalar<V>;
  using C = ExpConstants<T>;
  using I = typename Traits<V>::IntegerVector;
  const ReducedExp<V> e = reduced_exp(clamp(x, C::lowest, C::highest));
  const I beyond = x > splat<V>(C::half_above);  // as in exp: half of the largest results, doubled at the end
  const V power = bit_cast<V>(bit_cast<I>(e.power) + (beyond << C::mantissa_bits));
  const V one = splat<V>(1);
  const V y = fma(power, e.expm1, power - one) * (beyond ? splat<V>(2) : one);
  const I sign = bit_cast<I>(x) & bit_cast<I>(splat<V>(T(-0.0)));  // the sum loses that of -0
  return x > splat<V>(C::overflow) ? splat<V>(T(__builtin_inf())) : bit_cast<V>(bit_cast<I>(y) | sign);
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
