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

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
