// What the tests share: counted checks, seeded numbers, comparison of bits.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

inline int checks = 0, failures = 0;

inline void check(bool good, const std::string& what) {
  ++checks;
  if (good) return;
  ++failures;
  std::printf("FAILED %s\n", what.c_str());
}

// The last line of a test, and its exit status.
inline int report() {
  std::printf("%d checks, %d failures\n", checks, failures);
  return failures ? 1 : 0;
}

template <class T>
std::vector<T> random(std::mt19937& generator, int64_t n, double scale) {
  std::uniform_real_distribution<double> uniform(-scale, scale);
  std::vector<T> out(static_cast<std::size_t>(n));
  for (T& v : out) v = T(uniform(generator));
  return out;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || !std::memcmp(a.data(), b.data(), a.size() * sizeof(T)));
}
