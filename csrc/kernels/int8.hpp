// int8: a row of n numbers is its scale, the largest magnitude over 127, times integers from -127 to 127, rounded to
// nearest even. Sums are integers without error, the same on every instruction set.
//
// VPDPBUSD multiplies unsigned by signed bytes, so rows of activations are kept with 128 added, and the sums have 128
// times the sum of the weights too much.
#pragma once

#include "low_precision.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// Lane by lane: the products of the two halves of a word as int16, and their sum.
FUSEDRNN_INLINE Words multiply_halves(Words a, Words b) {
#if defined(__AVX512BW__)
  return (Words)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (Words)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
  return (Words)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  using Integers = Full<int32_t>;
  const Integers low = (Integers)(a << 16) >> 16, high = (Integers)a >> 16;
  return (Words)(low * ((Integers)(b << 16) >> 16) + high * ((Integers)b >> 16));
#endif
}

struct Int8 {
  static constexpr int elements = 4;
  static constexpr bool scaled = true;
  using Sum = Words;  // unsigned, as what overflows on the way to a sum in range comes back

#if defined(__AVX512VNNI__)
  static constexpr int parts = 1;
  FUSEDRNN_INLINE static uint32_t row_part(uint32_t word, int) { return word; }
  FUSEDRNN_INLINE static Words weight_part(Words words, int) { return words; }
  FUSEDRNN_INLINE static Sum multiply_add(Words x, Words w, Sum sum) {
    return (Sum)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
  }
#else
  // Elements 0 and 2, then 1 and 3, as int16.
  static constexpr int parts = 2;
  FUSEDRNN_INLINE static uint32_t row_part(uint32_t word, int part) { return word >> 8 * part & 0x00ff00ff; }
  FUSEDRNN_INLINE static Words weight_part(Words words, int part) {
    using Halves = Vector<int16_t, 2 * lanes_of<Words>>;
    return (Words)((Halves)(part == 0 ? words << 8 : words) >> 8);
  }
  FUSEDRNN_INLINE static Sum multiply_add(Words x, Words w, Sum sum) { return sum + multiply_halves(x, w); }
#endif

  // 127 over the largest magnitude, and its inverse as the scale. A row with an infinity or NaN has a scale of NaN, and
  // one of numbers so small that either would be out of range counts as zero.
  FUSEDRNN_INLINE static float factor(int64_t depth, const float* row, float* scale) {
    constexpr uint32_t infinity = 0x7f800000;
    constexpr float smallest = 0x1p-118f;
    Words largest{};
    for_vectors<float>(depth, [&](int64_t i, int n) {
      const Words magnitude = bit_cast<Words>(load<Full<float>>(row + i, n)) & 0x7fffffff;
      largest = magnitude > largest ? magnitude : largest;
    });
    uint32_t bits = 0;
    for (int l = 0; l < lanes_of<Words>; ++l) bits = largest[l] > bits ? largest[l] : bits;
    const float magnitude = bit_cast<float>(bits);
    const bool finite = bits < infinity;
    *scale = !finite ? __builtin_nanf("") : magnitude < smallest ? 0 : magnitude / 127;
    return !finite || magnitude < smallest ? 0 : 127 / magnitude;
  }

  template <bool Weights>
  FUSEDRNN_INLINE static void round(Full<float> x, float factor, unsigned char* to) {
    constexpr float shift = 0x1.8p23f;  // the sum's last bits are the integer
    const Words q = bit_cast<Words>(x * factor + shift) + (Weights ? 0 : 128);
    const auto bytes = __builtin_convertvector(q & 0xff, Vector<uint8_t, lanes_of<Words>>);
    __builtin_memcpy(to, &bytes, sizeof bytes);
  }

  FUSEDRNN_INLINE static Full<float> add(Full<float> start, Sum sum, const LowPrecisionProduct& s, int64_t row,
                                         int64_t unit) {
    using V = Full<float>;
    const V exact = __builtin_convertvector((Full<int32_t>)(sum - load<Words>(s.offsets + unit)), V);
    return fma(exact, s.x_scales[row] * load<V>(s.scales + unit), start);
  }
};

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
