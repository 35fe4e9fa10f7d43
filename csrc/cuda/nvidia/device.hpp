// The primitives that the kernels of csrc/cuda are written in, for NVIDIA's compiler. Nothing else here knows PTX or a
// CUDA header: tests/cuda/emulator/device.hpp offers the same names to g++, so that the same kernels run on a CPU.
//
// Shared memory is addressed by its offset in bytes from the block's dynamic shared memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#define FUSEDRNN_DEVICE __device__ __forceinline__
#define FUSEDRNN_KERNEL(threads) __global__ void __launch_bounds__(threads, 1)
#define FUSEDRNN_UNROLL _Pragma("unroll")
#define FUSEDRNN_UNROLL_TWICE _Pragma("unroll 2")
#define FUSEDRNN_ROLLED _Pragma("unroll 1")

namespace fusedrnn::device {

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

FUSEDRNN_DEVICE int thread() { return int(threadIdx.x); }
FUSEDRNN_DEVICE int threads() { return int(blockDim.x); }
FUSEDRNN_DEVICE int lane() { return int(threadIdx.x) % warp_lanes; }
FUSEDRNN_DEVICE int block() { return int(blockIdx.x); }
FUSEDRNN_DEVICE int blocks() { return int(gridDim.x); }

// --- Numbers

FUSEDRNN_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
// At most one ulp from 1 / x, for normal x; zero where that is subnormal.
FUSEDRNN_DEVICE float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
FUSEDRNN_DEVICE uint32_t bits_of(float x) { return __float_as_uint(x); }
FUSEDRNN_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }

FUSEDRNN_DEVICE float to_float(float x) { return x; }
FUSEDRNN_DEVICE float to_float(bfloat16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }
FUSEDRNN_DEVICE float to_float(float16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

// To the nearest, ties to even.
template <class S>
FUSEDRNN_DEVICE S from_float(float x);
template <>
FUSEDRNN_DEVICE float from_float<float>(float x) {
  return x;
}
template <>
FUSEDRNN_DEVICE bfloat16 from_float<bfloat16>(float x) {
  bfloat16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
template <>
FUSEDRNN_DEVICE float16 from_float<float16>(float x) {
  float16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
// To TF32's 10 bits of mantissa, to the nearest, ties away from zero; kept in 32 bits.
FUSEDRNN_DEVICE float to_tf32(float x) {
  uint32_t y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return __uint_as_float(y);
}

// --- Global memory. T has 1, 2, 4, 8 or 16 bytes and its own alignment.

// What no thread of this launch writes.
template <class T>
FUSEDRNN_DEVICE T load_constant(const T* p) {
  T value;
  if constexpr (sizeof(T) == 16)
    reinterpret_cast<uint4&>(value) = __ldg(reinterpret_cast<const uint4*>(p));
  else if constexpr (sizeof(T) == 8)
    reinterpret_cast<uint2&>(value) = __ldg(reinterpret_cast<const uint2*>(p));
  else if constexpr (sizeof(T) == 4)
    reinterpret_cast<uint32_t&>(value) = __ldg(reinterpret_cast<const uint32_t*>(p));
  else if constexpr (sizeof(T) == 2)
    reinterpret_cast<uint16_t&>(value) = __ldg(reinterpret_cast<const uint16_t*>(p));
  else
    reinterpret_cast<uint8_t&>(value) = __ldg(reinterpret_cast<const uint8_t*>(p));
  return value;
}
// What this thread alone uses, or what is for a later launch, or is published by store_release.
template <class T>
FUSEDRNN_DEVICE T load(const T* p) {
  __builtin_assume(__isGlobal(p));
  return *p;
}
template <class T>
FUSEDRNN_DEVICE void store(T* p, T value) {
  __builtin_assume(__isGlobal(p));  // else branches that are merged hide it
  *p = value;
}

// A flag, and with it everything that its block's threads had stored before they last met in sync_threads.
FUSEDRNN_DEVICE void store_release(uint32_t* flag, uint32_t value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}
FUSEDRNN_DEVICE uint32_t load_acquire(const uint32_t* flag) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}
// Within a loop that waits for another block.
FUSEDRNN_DEVICE void wait_a_little() {}

// --- Shared memory of the block

extern __shared__ char dynamic_shared[];

template <class T>
FUSEDRNN_DEVICE T load_shared(Shared address) {
  return *reinterpret_cast<const T*>(dynamic_shared + address);
}
template <class T>
FUSEDRNN_DEVICE void store_shared(Shared address, T value) {
  *reinterpret_cast<T*>(dynamic_shared + address) = value;
}

FUSEDRNN_DEVICE uint32_t pointer_bits(Shared address) {
  return uint32_t(__cvta_generic_to_shared(dynamic_shared)) + address;
}

// 16 bytes from global to shared memory by way of the L2 cache, done when this thread's wait_copies returns.
FUSEDRNN_DEVICE void copy_async(Shared to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(pointer_bits(to)), "l"(from) : "memory");
}
FUSEDRNN_DEVICE void wait_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// All threads of the block meet here, and see what the others stored.
FUSEDRNN_DEVICE void sync_threads() { __syncthreads(); }

// --- The warp. Every lane takes part.

FUSEDRNN_DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

// sums [16, 8] += a [16, 16] b [16, 8] (PTX ISA, mma.m16n8k16), with r = lane / 4 and q = lane % 4:
//   a: rows r, r + 8, r, r + 8, columns 2q and 2q + 1 of words 0 and 1, 2q + 8 and 2q + 9 of words 2 and 3;
//   b: column r, rows 2q and 2q + 1 of word 0, 2q + 8 and 2q + 9 of word 1;
//   sums: row r, columns 2q and 2q + 1, then row r + 8.
FUSEDRNN_DEVICE void mma(float (&sums)[4], const Quad& a, const Pair& b, bfloat16) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]), "r"(b.word[1]));
}
FUSEDRNN_DEVICE void mma(float (&sums)[4], const Quad& a, const Pair& b, float16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]), "r"(b.word[1]));
}
// The same with a [16, 8] b [8, 8] in TF32 (mma.m16n8k8): one column q or q + 4 of a and row of b to a word.
FUSEDRNN_DEVICE void mma(float (&sums)[4], const Quad& a, const Pair& b, float) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]), "r"(b.word[1]));
}

// --- Thread-block clusters, of sm_90 and later; blocks of a cluster are neighbours in the grid.

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define FUSEDRNN_CLUSTERS 1
#else
#define FUSEDRNN_CLUSTERS 0
#endif

#if FUSEDRNN_CLUSTERS
// All threads of the cluster meet here.
FUSEDRNN_DEVICE void sync_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// A barrier of 8 bytes in this block's shared memory. A phase ends when one thread has called `arrive` for it and as
// many bytes have been pushed as that said; phases are numbered from 0. `init` by one thread, then sync_cluster by all.
FUSEDRNN_DEVICE void init_barrier(Shared barrier) {
  asm volatile(
      "mbarrier.init.shared::cta.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;" ::"r"(pointer_bits(barrier))
      : "memory");
}
FUSEDRNN_DEVICE void arrive(Shared barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(pointer_bits(barrier)), "r"(bytes)
               : "memory");
}
// Until the phase has ended, what was pushed being visible; at most one phase behind.
FUSEDRNN_DEVICE void wait_barrier(Shared barrier, uint32_t phase) {
  uint32_t done = 0;
  while (!done)
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, "
        "p;\n}"
        : "=r"(done)
        : "r"(pointer_bits(barrier)), "r"(phase & 1)
        : "memory");
}
// 16 bytes to the same address in the shared memory of another block of the cluster, counted by its barrier.
FUSEDRNN_DEVICE void push(Shared address, int block_of_cluster, const Quad& value, Shared barrier) {
  uint32_t to, counter;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(to) : "r"(pointer_bits(address)), "r"(block_of_cluster));
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(counter) : "r"(pointer_bits(barrier)), "r"(block_of_cluster));
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
      "r"(value.word[0]), "r"(value.word[1]), "r"(value.word[2]), "r"(value.word[3]), "r"(counter)
      : "memory");
}
#endif

}  // namespace fusedrnn::device
