// bfloat16: the upper half of a float32. Rounded to nearest even; NaN stays NaN, and subnormal numbers become zero, as
// VCVTNEPS2BF16 has it.
//
// VDPBF16PS adds the product of a pair's second elements, then that of the first ones, each by a fused multiply-add. So
// do the other sets, which widen weights by shifting them while they are loaded: their sums have the same bits.
#pragma once

#include "low_precision.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

struct Bfloat16 {
  static constexpr int elements = 2;
  static constexpr bool scaled = false;
  using Sum = Full<float>;

#if defined(__AVX512BF16__)
  static constexpr int parts = 1;
  FUSEDRNN_INLINE static uint32_t row_part(uint32_t word, int) { return word; }
  FUSEDRNN_INLINE static Words weight_part(Words words, int) { return words; }
  FUSEDRNN_INLINE static Sum multiply_add(Words x, Words w, Sum sum) {
    return (Sum)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
  }
#else
  static constexpr int parts = 2;
  template <class W>
  FUSEDRNN_INLINE static W widened(W words, int part) {
    return part == 0 ? words & 0xffff0000 : words << 16;
  }
  FUSEDRNN_INLINE static uint32_t row_part(uint32_t word, int part) { return widened(word, part); }
  FUSEDRNN_INLINE static Words weight_part(Words words, int part) { return widened(words, part); }
  FUSEDRNN_INLINE static Sum multiply_add(Words x, Words w, Sum sum) {
    return fma(bit_cast<Sum>(x), bit_cast<Sum>(w), sum);
  }
#endif

  FUSEDRNN_INLINE static float factor(int64_t, const float*, float*) { return 1; }

  template <bool Weights>
  FUSEDRNN_INLINE static void round(Full<float> x, float, unsigned char* to) {
    const Words u = bit_cast<Words>(x), magnitude = u & 0x7fffffff;
    Words rounded = u + 0x7fff + (u >> 16 & 1);
    rounded = magnitude > 0x7f800000 ? u | 0x400000 : rounded;
    rounded = magnitude < 0x00800000 ? u & 0x80000000 : rounded;
    const auto halves = __builtin_convertvector(rounded >> 16, Vector<uint16_t, lanes_of<Words>>);
    __builtin_memcpy(to, &halves, sizeof halves);
  }

  FUSEDRNN_INLINE static Sum add(Sum start, Sum sum, const LowPrecisionProduct&, int64_t, int64_t) {
    return start + sum;
  }
};

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
