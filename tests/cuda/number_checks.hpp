// Conversions between float32, bfloat16, float16 and TF32, against arithmetic in double: every 16-bit number and every
// tie between two, and a million random ones of TF32.
#pragma once

#include <algorithm>
#include <cmath>
#include <device.hpp>
#include <limits>

#include "expect.hpp"

namespace fusedrnn::checks {

// What the bits of a number in a 16-bit format stand for, `mantissa` of them its mantissa.
inline double value_of(uint32_t bits, int mantissa) {
  const int exponents = 1 << (15 - mantissa), bias = exponents / 2 - 1;
  const int exponent = int(bits >> mantissa) % exponents, fraction = int(bits) % (1 << mantissa);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == exponents - 1) return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * INFINITY;
  return exponent ? sign * std::ldexp(1 + std::ldexp(fraction, -mantissa), exponent - bias)
                  : sign * std::ldexp(fraction, 1 - bias - mantissa);
}

template <class S>
void check_format(const std::string& what, int mantissa) {
  const auto round = [](double x) { return uint32_t(device::from_float<S>(float(x)).bits); };
  const uint32_t infinity = 0x7fffu >> mantissa << mantissa;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const double value = value_of(bits, mantissa);
    const float converted = device::to_float(S{uint16_t(bits)});
    if (std::isnan(value)) {
      expect(std::isnan(converted) && std::isnan(device::to_float(device::from_float<S>(converted))), what, ": NaN");
      continue;
    }
    expect(double(converted) == value && std::signbit(converted) == std::signbit(value), what, ": to_float");
    expect(round(value) == bits, what, ": there and back");
    if ((bits & 0x7fff) >= infinity) continue;
    // Between this number and the next one away from zero, which for the largest is what infinity stands in for.
    const double next =
        (bits & 0x7fff) + 1 == infinity ? 2 * value - value_of(bits - 1, mantissa) : value_of(bits + 1, mantissa);
    const double middle = (value + next) / 2;
    const float tie = float(middle);
    expect(double(tie) == middle, what, ": the middle is a float");
    expect(round(tie) == (bits & 1 ? bits + 1 : bits), what, ": a tie goes to even");
    expect(round(std::nextafterf(tie, 0)) == bits, what, ": below the tie");
    expect(round(std::nextafterf(tie, std::signbit(value) ? -INFINITY : INFINITY)) == bits + 1, what,
           ": above the tie");
  }
}

inline void check_numbers() {
  check_format<device::bfloat16>("bfloat16", 7);
  check_format<device::float16>("float16", 10);
  emulator::Random random(3);
  const std::string tf32 = "tf32";
  for (int i = 0; i < 1000000; ++i) {
    const float x = device::float_of(uint32_t(random.next()));
    const float y = device::to_tf32(x);
    if (std::isnan(x)) {
      expect(std::isnan(y), tf32, ": NaN");
      continue;
    }
    if (std::isinf(x) || (std::isinf(y) && std::fabs(x) > 3.4e38f)) continue;
    // In units of the last of the 10 places: at most half of one off, and away from zero at the half.
    const int exponent = std::max(std::ilogb(x == 0 ? 1e-45f : x), -126) - 10;
    const double scaled = std::ldexp(double(x), -exponent);
    expect(std::ldexp(double(y), -exponent) == std::round(scaled), tf32);
  }
  expect(device::to_tf32(device::float_of(0x3f801000)) == device::float_of(0x3f802000), tf32,
         ": a tie goes away from zero");
  expect(device::to_tf32(device::float_of(0xbf801000)) == device::float_of(0xbf802000), tf32,
         ": a tie goes away from zero");
  expect(device::to_tf32(INFINITY) == INFINITY && std::isinf(device::to_tf32(device::float_of(0x7f7fffff))), tf32,
         ": infinity");
}

}  // namespace fusedrnn::checks
