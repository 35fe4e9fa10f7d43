// The primitives of csrc/cuda/nvidia/device.hpp for a C++ compiler: the same names, on the emulator. What each promises
// is said there. Those that order threads or move data take the place of their call, by which errors name them and
// tests plant faults.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "clusters.hpp"
#include "mma.hpp"

#define FUSEDRNN_DEVICE inline
#define FUSEDRNN_KERNEL(threads) void
#define FUSEDRNN_UNROLL
#define FUSEDRNN_UNROLL_TWICE
#define FUSEDRNN_ROLLED
#define FUSEDRNN_CLUSTERS 1

namespace fusedrnn::device {

using emulator::Where;

constexpr int warp_lanes = 32;

using Shared = uint32_t;  // an address in shared memory

struct alignas(8) Pair {
  uint32_t word[2];
};
struct alignas(16) Quad {
  uint32_t word[4];
};

// Storage of numbers in 16 bits.
struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

// --- Where this thread is

inline int thread() { return emulator::self().thread; }
inline int threads() { return emulator::launch().shape().threads; }
inline int lane() { return thread() % warp_lanes; }
inline int block() { return emulator::self().block; }
inline int blocks() { return emulator::launch().shape().blocks; }

// --- Numbers

inline float fma(float a, float b, float c) { return std::fma(a, b, c); }
// The hardware's may be one ulp off, we do not know which way where: any of the three, by x.
inline float reciprocal(float x) {
  const float y = 1 / x;
  if (!(std::fabs(y) >= std::numeric_limits<float>::min())) return std::isnan(y) ? y : std::copysign(0.0f, y);
  const uint32_t hash = std::bit_cast<uint32_t>(x) * 2654435761u >> 30;
  if (std::isinf(y) || hash == 0) return y;
  return std::nextafter(y, hash == 1 ? 0.0f : std::copysign(std::numeric_limits<float>::infinity(), y));
}
inline uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }
inline float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }

inline float to_float(float x) { return x; }
inline float to_float(bfloat16 x) { return emulator::float_of_bfloat16(x.bits); }
inline float to_float(float16 x) { return emulator::float_of_float16(x.bits); }

template <class S>
S from_float(float x);
template <>
inline float from_float<float>(float x) {
  return x;
}
template <>
inline bfloat16 from_float<bfloat16>(float x) {
  return {emulator::bfloat16_bits(x)};
}
template <>
inline float16 from_float<float16>(float x) {
  return {emulator::float16_bits(x)};
}
inline float to_tf32(float x) { return emulator::tf32_rounded(x); }

// --- Global memory. T is as large as its alignment, as NVIDIA's loads and stores are.

template <class T>
T load_constant(const T* p, Where where = Where::current()) {
  static_assert(sizeof(T) == alignof(T) && sizeof(T) <= 16);
  emulator::launch().global.read_constant(p, sizeof(T), where);
  return emulator::copy_of<T>(p);
}
template <class T>
T load(const T* p, Where where = Where::current()) {
  static_assert(sizeof(T) == alignof(T) && sizeof(T) <= 16);
  emulator::load(p, sizeof(T), where);
  return emulator::copy_of<T>(p);
}
template <class T>
void store(T* p, T value, Where where = Where::current()) {
  static_assert(sizeof(T) == alignof(T) && sizeof(T) <= 16);
  emulator::store(p, &value, sizeof(T), where);
}

inline void store_release(uint32_t* flag, uint32_t value, Where where = Where::current()) {
  emulator::store_release(flag, value, where);
}
inline uint32_t load_acquire(const uint32_t* flag, Where where = Where::current()) {
  return emulator::load_acquire(flag, where);
}
inline void wait_a_little(Where where = Where::current()) { emulator::wait_a_little(where); }

// --- Shared memory of the block

template <class T>
T load_shared(Shared address, Where where = Where::current()) {
  return emulator::copy_of<T>(emulator::load_shared(address, sizeof(T), alignof(T), where));
}
template <class T>
void store_shared(Shared address, T value, Where where = Where::current()) {
  emulator::store_shared(address, &value, sizeof(T), alignof(T), where);
}

inline void copy_async(Shared to, const void* from, Where where = Where::current()) {
  emulator::copy_async(to, from, where);
}
inline void wait_copies(Where where = Where::current()) { emulator::wait_copies(where); }

inline void sync_threads(Where where = Where::current()) { emulator::sync_threads(where); }

// --- The warp

inline float shuffle_xor(float value, int mask, Where where = Where::current()) {
  return emulator::shuffle_xor(value, mask, where);
}

inline void mma(float (&sums)[4], const Quad& a, const Pair& b, bfloat16, Where where = Where::current()) {
  emulator::mma<16, 2>(sums, a.word, b.word, where, [](uint32_t word, int half) {
    return emulator::float_of_bfloat16(uint16_t(word >> 16 * half));
  });
}
inline void mma(float (&sums)[4], const Quad& a, const Pair& b, float16, Where where = Where::current()) {
  emulator::mma<16, 2>(sums, a.word, b.word, where,
                       [](uint32_t word, int half) { return emulator::float_of_float16(uint16_t(word >> 16 * half)); });
}
inline void mma(float (&sums)[4], const Quad& a, const Pair& b, float, Where where = Where::current()) {
  emulator::mma<8, 1>(sums, a.word, b.word, where, [](uint32_t word, int) { return emulator::tf32_truncated(word); });
}

// --- Thread-block clusters

inline void sync_cluster(Where where = Where::current()) { emulator::sync_cluster(where); }
inline void init_barrier(Shared barrier, Where where = Where::current()) { emulator::init_barrier(barrier, where); }
inline void arrive(Shared barrier, uint32_t bytes, Where where = Where::current()) {
  emulator::arrive(barrier, bytes, where);
}
inline void wait_barrier(Shared barrier, uint32_t phase, Where where = Where::current()) {
  emulator::wait_barrier(barrier, phase, where);
}
inline void push(Shared address, int block_of_cluster, const Quad& value, Shared barrier,
                 Where where = Where::current()) {
  emulator::push(address, block_of_cluster, value.word, barrier, where);
}

}  // namespace fusedrnn::device
