// Conversions between float32 and the narrow formats, in integers: to the nearest, ties to even (TF32: away from zero),
// with subnormals, infinities and NaNs (which stay NaN and become quiet).
#pragma once

#include <bit>
#include <cstdint>

namespace fusedrnn::emulator {

constexpr uint32_t sign_bit = 0x80000000u, infinity_bits = 0x7f800000u;

inline bool is_nan_bits(uint32_t bits) { return (bits & ~sign_bit) > infinity_bits; }

inline uint16_t bfloat16_bits(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (is_nan_bits(bits)) return 0x7fff;  // what cvt.rn.bf16.f32 makes of every NaN
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline uint16_t float16_bits(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (is_nan_bits(bits)) return 0x7fff;  // what cvt.rn.f16.f32 makes of every NaN
  const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & ~sign_bit;
  if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);  // 65520 and more round to infinity
  // The mantissa with its leading one, to be shifted right by `shift` places: 13 for normal numbers, more for smaller.
  const int exponent = int(magnitude >> 23) - 127;
  if (exponent < -25) return uint16_t(sign);
  const bool normal = exponent >= -14;
  const int shift = normal ? 13 : -1 - exponent;
  const uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000;
  const uint32_t kept = mantissa >> shift, rest = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
  const uint32_t rounded = kept + (rest > half || (rest == half && (kept & 1)));
  // The leading one adds itself to the exponent; a carry out of the mantissa raises it as it should.
  return uint16_t(sign | (rounded + (normal ? uint32_t(exponent + 14) << 10 : 0)));
}

inline float float_of_float16(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | infinity_bits | mantissa << 13 | (mantissa ? 0x400000u : 0));
  if (exponent) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = float(mantissa) * 0x1p-24f;  // exact
  return sign ? -magnitude : magnitude;
}

inline float float_of_bfloat16(uint16_t b) { return std::bit_cast<float>(uint32_t(b) << 16); }

inline float tf32_rounded(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (is_nan_bits(bits)) return std::bit_cast<float>(0x7fffffffu);
  if ((bits & ~sign_bit) == infinity_bits) return x;
  return std::bit_cast<float>((bits + 0x1000) & ~0x1fffu);
}
// What the tensor cores see of a TF32 operand: its upper 19 bits.
inline float tf32_truncated(uint32_t bits) { return std::bit_cast<float>(bits & ~0x1fffu); }

}  // namespace fusedrnn::emulator
