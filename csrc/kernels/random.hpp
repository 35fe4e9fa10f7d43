// Counter-based random numbers, Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011): the word of an element follows from
// its place alone, so masks are the same for any number of threads and any cut of the batch or of time.
//
// Key: the seed. Counter: (block, row, step, stream). Unit u takes block u / 64 * 16 + u % 16 and word u / 16 % 4: so
// 16 blocks at once fill vectors of consecutive units.
#pragma once

#include "simd.hpp"
#include "table.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// Words of 64 units from unit 64 * index on.
FUSEDRNN_INLINE void philox(uint64_t seed, uint32_t index, uint32_t row, uint32_t step, uint32_t stream,
                            uint32_t (&words)[64]) {
  constexpr int L = full_lanes<uint64_t>;
  using U = Vector<uint64_t, L>;
  using W = Vector<uint32_t, L>;
  constexpr U zero{};
  U lane{};
  for (int l = 0; l < L; ++l) lane[l] = uint64_t(l);
  const U multiplier0 = zero + 0xD2511F53u, multiplier1 = zero + 0xCD9E8D57u;
  for (int block = 0; block < 16; block += L) {
    // The upper halves of lanes are not looked at: products take the lower, and only shifts bring upper ones down.
    U c0 = lane + (uint64_t(index) * 16 + uint64_t(block)), c1 = zero + row, c2 = zero + step, c3 = zero + stream;
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
      const U p0 = multiply_low_halves(c0, multiplier0), p1 = multiply_low_halves(c2, multiplier1);
      c0 = (p1 >> 32) ^ c1 ^ k0;
      c1 = p1;
      c2 = (p0 >> 32) ^ c3 ^ k1;
      c3 = p0;
    }
    const W w[] = {__builtin_convertvector(c0, W), __builtin_convertvector(c1, W), __builtin_convertvector(c2, W),
                   __builtin_convertvector(c3, W)};
    for (int i = 0; i < 4; ++i) __builtin_memcpy(words + 16 * i + block, &w[i], sizeof(W));
  }
}

template <class T>
void random_mask(const RandomMask<T>& m) {
  uint32_t words[64];
  T values[64];
  for (int64_t unit = 0; unit < m.units; unit += 64) {
    philox(m.seed, uint32_t(unit / 64), m.row, m.step, m.stream, words);
    if (m.threshold > 0xffffffffu)
      for (int u = 0; u < 64; ++u) values[u] = m.dropped;
    else  // compared as 32 bits, which vectors hold
      for (int u = 0; u < 64; ++u) values[u] = words[u] < uint32_t(m.threshold) ? m.dropped : m.kept;
    __builtin_memcpy(m.out + unit, values, std::size_t(min(64, m.units - unit)) * sizeof(T));
  }
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
