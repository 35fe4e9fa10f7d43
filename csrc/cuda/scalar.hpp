// One float as a value type, so that the formulas of ../kernels compile for a thread of the GPU: the names of
// ../kernels/simd.hpp that they use.
#pragma once

#include <device.hpp>

#define FUSEDRNN_ISA cuda
#define FUSEDRNN_INLINE FUSEDRNN_DEVICE

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

template <class V>
struct Traits;
template <>
struct Traits<float> {
  using IntegerVector = uint32_t;
};
template <class V>
using Scalar = V;

template <class V>
FUSEDRNN_INLINE V splat(Scalar<V> x) {
  return x;
}

template <class To, class From>
FUSEDRNN_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

FUSEDRNN_INLINE float fma(float a, float b, float c) { return device::fma(a, b, c); }

// a / b for 1 <= b < 2^126, rounded correctly from a reciprocal that is one ulp wrong (Markstein 1990), unless all bits
// of b's mantissa are set. The compiler's division does the same and then branches for other b, which keeps the
// divisions of a unit apart.
FUSEDRNN_INLINE float divide(float a, float b) {
  float r = device::reciprocal(b);
  r = fma(fma(-b, r, 1), r, r);
  float q = a * r;
  q = fma(fma(-b, q, a), r, q);
  return fma(fma(-b, q, a), r, q);
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
