// Vector types for one instruction set, written with the compiler's vector extensions (GCC and Clang).
//
// Everything below kernels/ is compiled once per instruction set and lives in an unnamed namespace inside
// fusedrnn::<instruction set>, so that no two sets can share a symbol: a function of the AVX-512 object that
// the linker also used for the baseline would crash an older machine. For the same reason nothing here uses
// std templates. Contraction is off (-ffp-contract=off): a fused multiply-add happens where fma() is written
// and nowhere else, so a formula gives the same bits in every place where it is inlined.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define FUSEDRNN_INLINE inline __attribute__((always_inline))
#define FUSEDRNN_NOINLINE __attribute__((noinline))

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// Bytes of the widest vector register, and how many registers there are: these two numbers shape every tile.
#if defined(__AVX512F__)
constexpr int vector_bytes = 64, vector_registers = 32;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32, vector_registers = 16;
#elif defined(__aarch64__)
constexpr int vector_bytes = 16, vector_registers = 32;
#else
constexpr int vector_bytes = 16, vector_registers = 16;
#endif

template <class T, int lanes>
struct VectorOf {
  typedef T type __attribute__((vector_size(lanes * sizeof(T))));
};
template <class T, int lanes>
using Vector = typename VectorOf<T, lanes>::type;

// Lanes of a full vector of T.
template <class T>
constexpr int full_lanes = vector_bytes / int(sizeof(T));

template <class T>
struct IntegerOf;
template <>
struct IntegerOf<float> {
  using type = int32_t;
};
template <>
struct IntegerOf<double> {
  using type = int64_t;
};
template <>
struct IntegerOf<uint32_t> {
  using type = int32_t;
};

// Scalar type, lanes, and the integer vector of the same shape.
template <class V>
struct Traits {
  template <class S>
  struct Plain {
    using type = S;
  };
  template <class S>
  struct Plain<S&> {
    using type = S;
  };
  using T = typename Plain<decltype(V{}[0] + V{}[0])>::type;
  static constexpr int lanes = int(sizeof(V) / sizeof(T));
  using I = typename IntegerOf<T>::type;
  using IntegerVector = Vector<I, lanes>;
};
template <class V>
using Scalar = typename Traits<V>::T;
template <class V>
constexpr int lanes_of = Traits<V>::lanes;

// x - 0 is x for every x, signed zeros and NaN included.
template <class V>
FUSEDRNN_INLINE V splat(Scalar<V> x) {
  return x - V{};
}

template <class To, class From>
FUSEDRNN_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

template <class V>
FUSEDRNN_INLINE V load(const Scalar<V>* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class V>
FUSEDRNN_INLINE void store(Scalar<V>* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// Hints: this cache line will be read (or written) soon.
template <class T>
FUSEDRNN_INLINE void prefetch(const T* p) {
  __builtin_prefetch(p, 0, 2);  // to the L2 cache
}
template <class T>
FUSEDRNN_INLINE void prefetch_for_write(T* p) {
  __builtin_prefetch(p, 1);
}

// a * b + c, rounded once where the hardware can (everywhere but on the x86-64 baseline).
template <class V>
FUSEDRNN_INLINE V fma(V a, V b, V c) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64 && sizeof(Scalar<V>) == 4) return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
  if constexpr (sizeof(V) == 64 && sizeof(Scalar<V>) == 8)
    return (V)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#endif
#if defined(__FMA__)
  if constexpr (sizeof(V) == 32 && sizeof(Scalar<V>) == 4) return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
  if constexpr (sizeof(V) == 32 && sizeof(Scalar<V>) == 8)
    return (V)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
  if constexpr (sizeof(V) == 16 && sizeof(Scalar<V>) == 4) return (V)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c);
  if constexpr (sizeof(V) == 16 && sizeof(Scalar<V>) == 8) return (V)_mm_fmadd_pd((__m128d)a, (__m128d)b, (__m128d)c);
#elif defined(__aarch64__)
  if constexpr (sizeof(Scalar<V>) == 4) return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
  if constexpr (sizeof(Scalar<V>) == 8) return (V)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}

template <class V>
FUSEDRNN_INLINE V divide(V a, V b) {
  return a / b;
}

template <class V>
FUSEDRNN_INLINE V square_root(V v) {
  using T = Scalar<V>;
  for (int l = 0; l < lanes_of<V>; ++l)
    v[l] = sizeof(T) == 4 ? T(__builtin_sqrtf(float(v[l]))) : T(__builtin_sqrt(double(v[l])));
  return v;
}

#if defined(__AVX512F__)
template <class V>
FUSEDRNN_INLINE auto lane_mask(int count) {
  if constexpr (lanes_of<V> == 16)
    return (__mmask16)((1u << count) - 1);
  else
    return (__mmask8)((1u << count) - 1);
}
#elif defined(__AVX2__)
template <class V>
FUSEDRNN_INLINE auto lane_mask(int count) {
  using I = typename Traits<V>::IntegerVector;
  I lane;
  for (int l = 0; l < lanes_of<V>; ++l) lane[l] = l;
  return lane < ((typename Traits<V>::I)count - I{});
}
#endif

// The edges of arrays: out of line, because there are many of them and each is met once a panel.
template <class V>
__attribute__((noinline)) V load_edge(const Scalar<V>* p, int count) {
#if defined(__AVX512F__)
  const auto mask = lane_mask<V>(count);
  if constexpr (sizeof(V) == 64 && sizeof(Scalar<V>) == 4) return (V)_mm512_maskz_loadu_ps(mask, p);
  if constexpr (sizeof(V) == 64 && sizeof(Scalar<V>) == 8) return (V)_mm512_maskz_loadu_pd(mask, p);
  if constexpr (sizeof(V) == 32 && sizeof(Scalar<V>) == 4) return (V)_mm256_maskz_loadu_ps(mask, p);
  if constexpr (sizeof(V) == 32 && sizeof(Scalar<V>) == 8) return (V)_mm256_maskz_loadu_pd(mask, p);
  if constexpr (sizeof(V) == 16 && sizeof(Scalar<V>) == 4) return (V)_mm_maskz_loadu_ps(mask, p);
  if constexpr (sizeof(V) == 16 && sizeof(Scalar<V>) == 8) return (V)_mm_maskz_loadu_pd(mask, p);
#elif defined(__AVX2__)
  const auto mask = lane_mask<V>(count);
  if constexpr (sizeof(V) == 32 && sizeof(Scalar<V>) == 4) return (V)_mm256_maskload_ps(p, (__m256i)mask);
  if constexpr (sizeof(V) == 32 && sizeof(Scalar<V>) == 8) return (V)_mm256_maskload_pd(p, (__m256i)mask);
  if constexpr (sizeof(V) == 16 && sizeof(Scalar<V>) == 4) return (V)_mm_maskload_ps(p, (__m128i)mask);
  if constexpr (sizeof(V) == 16 && sizeof(Scalar<V>) == 8) return (V)_mm_maskload_pd(p, (__m128i)mask);
#else
  V v{};
  for (int l = 0; l < count; ++l) v[l] = p[l];  // at most three lanes: no masked load on this instruction set
  return v;
#endif
}

template <class V>
__attribute__((noinline)) void store_edge(Scalar<V>* p, V v, int count) {
#if defined(__AVX512F__)
  const auto mask = lane_mask<V>(count);
  if constexpr (sizeof(V) == 64 && sizeof(Scalar<V>) == 4) _mm512_mask_storeu_ps(p, mask, (__m512)v);
  if constexpr (sizeof(V) == 64 && sizeof(Scalar<V>) == 8) _mm512_mask_storeu_pd(p, mask, (__m512d)v);
  if constexpr (sizeof(V) == 32 && sizeof(Scalar<V>) == 4) _mm256_mask_storeu_ps(p, mask, (__m256)v);
  if constexpr (sizeof(V) == 32 && sizeof(Scalar<V>) == 8) _mm256_mask_storeu_pd(p, mask, (__m256d)v);
  if constexpr (sizeof(V) == 16 && sizeof(Scalar<V>) == 4) _mm_mask_storeu_ps(p, mask, (__m128)v);
  if constexpr (sizeof(V) == 16 && sizeof(Scalar<V>) == 8) _mm_mask_storeu_pd(p, mask, (__m128d)v);
#elif defined(__AVX2__)
  const auto mask = lane_mask<V>(count);
  if constexpr (sizeof(V) == 32 && sizeof(Scalar<V>) == 4) _mm256_maskstore_ps(p, (__m256i)mask, (__m256)v);
  if constexpr (sizeof(V) == 32 && sizeof(Scalar<V>) == 8) _mm256_maskstore_pd(p, (__m256i)mask, (__m256d)v);
  if constexpr (sizeof(V) == 16 && sizeof(Scalar<V>) == 4) _mm_maskstore_ps(p, (__m128i)mask, (__m128)v);
  if constexpr (sizeof(V) == 16 && sizeof(Scalar<V>) == 8) _mm_maskstore_pd(p, (__m128i)mask, (__m128d)v);
#else
  for (int l = 0; l < count; ++l) p[l] = v[l];
#endif
}

// The first `count` lanes only (0 <= count <= lanes); the others read as zero, and are not touched in memory.
template <class V>
FUSEDRNN_INLINE V load(const Scalar<V>* p, int count) {
  return __builtin_expect(count == lanes_of<V>, 1) ? load<V>(p) : load_edge<V>(p, count);
}

template <class V>
FUSEDRNN_INLINE void store(Scalar<V>* p, V v, int count) {
  if (__builtin_expect(count == lanes_of<V>, 1))
    store(p, v);
  else
    store_edge(p, v, count);
}

// The same in line, where edges are frequent, and short where the instruction set has masks. A count beyond the lanes
// means all of them.
template <class V>
FUSEDRNN_INLINE void store_first(Scalar<V>* p, V v, int64_t count) {
  if (count >= lanes_of<V>) return store(p, v);
#if defined(__AVX512F__)
  const auto mask = lane_mask<V>(int(count));
  if constexpr (sizeof(Scalar<V>) == 4)
    _mm512_mask_storeu_ps(p, mask, (__m512)v);
  else
    _mm512_mask_storeu_pd(p, mask, (__m512d)v);
#else
  store_edge(p, v, int(count));
#endif
}

// Zero in the lanes from n on.
template <class V>
FUSEDRNN_INLINE V first_lanes(V v, int n) {
  if (n == lanes_of<V>) return v;
  Scalar<V> lane[lanes_of<V>];
  store(lane, v);
  return load<V>(lane, n);
}

// Two vectors side by side.
template <class V, class Half>
FUSEDRNN_INLINE V join(Half low, Half high) {
  static_assert(lanes_of<V> == 2 * lanes_of<Half>);
  if constexpr (lanes_of<V> == 16)
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  else if constexpr (lanes_of<V> == 8)
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
  else
    return __builtin_shufflevector(low, high, 0, 1, 2, 3);
}

// The lanes of v from First on, as many as a Piece has.
template <class Piece, int First, class V>
FUSEDRNN_INLINE Piece part_of(V v) {
  if constexpr (lanes_of<Piece> == 8)
    return __builtin_shufflevector(v, v, First, First + 1, First + 2, First + 3, First + 4, First + 5, First + 6,
                                   First + 7);
  else if constexpr (lanes_of<Piece> == 4)
    return __builtin_shufflevector(v, v, First, First + 1, First + 2, First + 3);
  else
    return __builtin_shufflevector(v, v, First, First + 1);
}

// Sum of the lanes, pairwise from the halves: the order is fixed.
template <class V>
FUSEDRNN_INLINE Scalar<V> sum_lanes(V v) {
  constexpr int half = lanes_of<V> / 2;
  if constexpr (half == 1) {
    return v[0] + v[1];
  } else {
    using Half = Vector<Scalar<V>, half>;
    return sum_lanes(part_of<Half, 0>(v) + part_of<Half, half>(v));
  }
}

// f(offset, valid lanes) for each vector of n elements.
template <class T, class F>
FUSEDRNN_INLINE void for_vectors(int64_t n, F f) {
  constexpr int W = full_lanes<T>;
  int64_t i = 0;
  for (; i + W <= n; i += W) f(i, W);
  if (i < n) f(i, int(n - i));
}

// The same for a long f, whose code then stands in one place and is inlined there.
template <class T, class F>
FUSEDRNN_INLINE void for_vectors_once(int64_t n, F f) {
  constexpr int W = full_lanes<T>;
  for (int64_t i = 0; i < n; i += W) f(i, int(n - i < W ? n - i : W));
}

template <class T>
using Full = Vector<T, full_lanes<T>>;

// Products of the low halves of 64-bit lanes.
template <class U>
FUSEDRNN_INLINE U multiply_low_halves(U a, U b) {
#if defined(__AVX512F__)
  return (U)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);  // unmasked, gcc 12 warns of its own header
#elif defined(__AVX2__)
  return (U)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
  return (U)_mm_mul_epu32((__m128i)a, (__m128i)b);
#elif defined(__aarch64__)
  return (U)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
#else
  return (a & 0xffffffff) * (b & 0xffffffff);
#endif
}

FUSEDRNN_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
