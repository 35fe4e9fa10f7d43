// AVX-512 with BF16 and VNNI in plain C++, for kernels/low_precision.cpp alone: what its intrinsics compute, after the
// operation sections of Intel's manual, on a processor without them. Included before everything else.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512BF16__ 1
#define __AVX512VNNI__ 1

#define _mm512_fmadd_ps emulated_fmadd_ps
#define _mm512_maskz_loadu_ps emulated_maskz_loadu_ps
#define _mm512_mask_storeu_ps emulated_mask_storeu_ps
#define _mm512_dpbf16_ps emulated_dpbf16_ps
#define _mm512_dpbusd_epi32 emulated_dpbusd_epi32

namespace {

__attribute__((always_inline)) inline __m512 emulated_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  for (int i = 0; i < 16; ++i) c[i] = std::fma(float(a[i]), float(b[i]), float(c[i]));
  return c;
}

__attribute__((always_inline)) inline __m512 emulated_maskz_loadu_ps(uint16_t mask, const void* from) {
  __m512 v{};
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) v[i] = static_cast<const float*>(from)[i];
  return v;
}

__attribute__((always_inline)) inline void emulated_mask_storeu_ps(void* to, uint16_t mask, __m512 v) {
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) static_cast<float*>(to)[i] = v[i];
}

inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

inline float widened(uint32_t upper_half) {
  const uint32_t bits = upper_half << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return flushed(x);
}

// "FP32 FMA with daz in, ftz out and RNE rounding", of the second elements of both pairs, then of the first ones.
template <class Pairs>
__attribute__((always_inline)) inline __m512 emulated_dpbf16_ps(__m512 sum, Pairs a, Pairs b) {
  uint16_t x[32], w[32];
  std::memcpy(x, &a, sizeof x);
  std::memcpy(w, &b, sizeof w);
  for (int i = 0; i < 16; ++i) {
    const float first = flushed(std::fma(widened(x[2 * i + 1]), widened(w[2 * i + 1]), flushed(sum[i])));
    sum[i] = flushed(std::fma(widened(x[2 * i]), widened(w[2 * i]), first));
  }
  return sum;
}

// Unsigned by signed bytes; their sum is added to an int32 without saturation.
__attribute__((always_inline)) inline __m512i emulated_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
  uint8_t x[64];
  int8_t w[64];
  uint32_t sums[16];
  std::memcpy(x, &a, sizeof x);
  std::memcpy(w, &b, sizeof w);
  std::memcpy(sums, &sum, sizeof sums);
  for (int i = 0; i < 64; ++i) sums[i / 4] += uint32_t(int32_t(x[i]) * int32_t(w[i]));
  std::memcpy(&sum, sums, sizeof sums);
  return sum;
}

}  // namespace
