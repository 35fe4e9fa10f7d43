// Does the emulator find what it is there to find? Small kernels, right ones and wrong ones.
// The argument is the number of seeds; 10 without.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <host.hpp>

#include "emulator/mutations.hpp"
#include "expect.hpp"
#include "number_checks.hpp"

using namespace fusedrnn;
using namespace fusedrnn::device;
using checks::expect;

namespace {

int seeds = 10;

// An error on every one of several seeds that mentions each of `words`.
void expect_error(const std::string& what, const std::vector<std::string>& words, const std::function<void()>& run) {
  for (int seed = 1; seed <= seeds; ++seed) {
    emulator::settings.seed = uint64_t(seed);
    std::string message = "no error";
    try {
      run();
    } catch (const emulator::Error& e) {
      message = e.what();
    }
    for (const std::string& word : words)
      if (message.find(word) == std::string::npos)
        return expect(false, what + ", seed " + std::to_string(seed) + ": expected \"" + word + "\" in: " + message);
  }
}

void expect_no_survivors(const std::string& what, int faults, const std::function<bool()>& right) {
  int planted = 0;
  for (const std::string& s : emulator::survivors(right, seeds, &planted)) expect(false, what + " survives " + s);
  expect(planted == faults, what + ": " + std::to_string(planted) + " faults planted");
}

// --- Blocks that exchange numbers through global memory

constexpr int block_threads = 64;

struct Exchange {
  float* numbers;   // [2][blocks][block_threads]
  uint32_t* flags;  // [blocks]
  float* sums;      // [blocks][block_threads]
  int steps;
};

// Each step, each thread publishes a number and sums up a quad of the numbers of every block.
FUSEDRNN_KERNEL(block_threads) exchange(Exchange a) {
  float sum = 0;
  for (int t = 0; t < a.steps; ++t) {
    float* numbers = a.numbers + t % 2 * blocks() * block_threads;
    store(numbers + block() * block_threads + thread(), float(block() + thread() + t));
    sync_threads();
    if (thread() == 0) store_release(a.flags + block(), uint32_t(t + 1));
    if (thread() < blocks())
      while (load_acquire(a.flags + thread()) < uint32_t(t + 1)) wait_a_little();
    sync_threads();
    for (int i = thread(); i < blocks() * block_threads / 4; i += threads())
      copy_async(Shared(16 * i), numbers + 4 * i);
    wait_copies();
    sync_threads();
    for (int b = 0; b < blocks(); ++b) {
      const Quad q = load_shared<Quad>(Shared(4 * (b * block_threads + thread() / 4 * 4)));
      for (uint32_t word : q.word) sum += float_of(word);
    }
  }
  store(a.sums + block() * block_threads + thread(), sum);
}

bool exchange_is_right(int grid_blocks, int steps) {
  std::vector<float> numbers(size_t(2 * grid_blocks * block_threads)), sums(size_t(grid_blocks * block_threads));
  std::vector<uint32_t> flags(size_t(grid_blocks), 0);
  launch(exchange, Grid{grid_blocks, block_threads, 4 * grid_blocks * block_threads, 1, true}, nullptr,
         Exchange{numbers.data(), flags.data(), sums.data(), steps});
  for (int i = 0; i < grid_blocks * block_threads; ++i) {
    float sum = 0;
    for (int t = 0; t < steps; ++t)
      for (int b = 0; b < grid_blocks; ++b)
        for (int j = 0; j < 4; ++j) sum += float(b + i % block_threads / 4 * 4 + j + t);
    if (sums[size_t(i)] != sum) return false;
  }
  return true;
}

void check_exchange() {
  for (int seed = 0; seed < 5 * seeds; ++seed) {
    emulator::settings.seed = uint64_t(seed);
    expect(exchange_is_right(6, 4), "exchange, seed " + std::to_string(seed));
  }
  emulator::settings.seed = 1;
  // Three barriers, a wait, a release dropped or relaxed, an acquire relaxed.
  expect_no_survivors("exchange", 7, [] { return exchange_is_right(4, 3); });
  const emulator::Settings before = emulator::settings;
  emulator::settings.capacity = 5;
  expect_error("a grid too large", {"cannot be", "6 blocks at once where 5 fit"}, [] { exchange_is_right(6, 1); });
  emulator::settings = before;
}

// --- Blocks of a cluster that push numbers to one another

struct Pushes {
  float* sums;  // [blocks][32]
  int steps;
};

// Each step, each thread pushes a number to its like in every block and sums up what its neighbour got. That all blocks
// have waited for a step's pushes orders what they read before the pushes of the step after the next.
// Shared memory: two barriers, then two buffers of [blocks of the cluster][32] quads.
FUSEDRNN_KERNEL(32) push_around(Pushes a) {
  constexpr int cluster = 4;
  if (thread() == 0) {
    init_barrier(0);
    init_barrier(8);
  }
  sync_cluster();
  const int rank = block() % cluster;
  float sum = 0;
  for (int t = 0; t < a.steps; ++t) {
    const Shared barrier = Shared(t % 2 * 8), buffer = Shared(16 + t % 2 * cluster * 32 * 16);
    if (thread() == 0) arrive(barrier, cluster * 32 * 16);
    Quad mine;
    for (uint32_t& word : mine.word) word = bits_of(sum + float(thread() + rank));
    for (int to = 0; to < cluster; ++to) push(buffer + Shared((rank * 32 + thread()) * 16), to, mine, barrier);
    wait_barrier(barrier, uint32_t(t / 2));
    float next = 0;
    for (int from = 0; from < cluster; ++from)
      next += load_shared<float>(buffer + Shared((from * 32 + (thread() + 1) % 32) * 16 + 4));
    sum = next / 8;
  }
  store(a.sums + block() * 32 + thread(), sum);
}

bool push_around_is_right(int steps) {
  constexpr int clusters = 3, cluster = 4;
  std::vector<float> sums(clusters * cluster * 32);
  launch(push_around, Grid{clusters * cluster, 32, 16 + 2 * cluster * 32 * 16, cluster, false}, nullptr,
         Pushes{sums.data(), steps});
  std::vector<float> now(32, 0.0f), next(32);
  for (int t = 0; t < steps; ++t) {
    for (size_t i = 0; i < 32; ++i) {
      next[i] = 0;
      for (size_t rank = 0; rank < cluster; ++rank) next[i] += now[(i + 1) % 32] + float((i + 1) % 32 + rank);
      next[i] /= 8;
    }
    now = next;
  }
  for (size_t i = 0; i < sums.size(); ++i)
    if (sums[i] != now[i % 32]) return false;
  return true;
}

void check_clusters() {
  const emulator::Settings before = emulator::settings;
  for (int seed = 0; seed < 5 * seeds; ++seed) {
    emulator::settings.seed = uint64_t(seed);
    emulator::settings.capacity = 4 + seed % 9;  // one, two or three clusters at a time
    expect(push_around_is_right(5), "push_around, seed " + std::to_string(seed));
  }
  emulator::settings = before;
  // Two barriers made, the cluster's meeting, an arrival, a push, a wait.
  expect_no_survivors("push_around", 6, [] { return push_around_is_right(5); });
}

// --- Wrong kernels

enum class Bug {
  shared_race,
  shared_race_in_warp,
  read_before_wait_copies,
  ended_before_wait_copies,
  out_of_bounds,
  misaligned_shared,
  misaligned_global,
  divergent_shuffle,
  lane_missing,
  divergent_sync,
  deadlock,
  livelock,
  constant_written,
  two_writers,
  overwritten_while_read,
  plain_flag,
  write_without_release,
  push_unseen,
  push_overtaken,
  push_to_ended,
  phase_ahead,
  barrier_without_init,
  second_arrival,
};

struct Wrong {
  Bug bug;
  float* numbers;
  uint32_t* flags;
};

FUSEDRNN_KERNEL(64) wrong(Wrong a) {
  const Quad zero = {};
  switch (a.bug) {
    case Bug::shared_race:
      store_shared(Shared(4 * thread()), 1.0f);
      (void)load_shared<float>(Shared(4 * ((thread() + 32) % 64)));
      break;
    case Bug::shared_race_in_warp:  // a shuffle orders nothing
      if (thread() == 0) store_shared(0, 1.0f);
      shuffle_xor(1.0f, 1);
      if (thread() == 1) (void)load_shared<float>(0);
      break;
    case Bug::read_before_wait_copies:
      copy_async(Shared(16 * thread()), a.numbers + 4 * thread());
      (void)load_shared<float>(Shared(16 * thread()));
      wait_copies();
      break;
    case Bug::ended_before_wait_copies:
      copy_async(Shared(16 * thread()), a.numbers + 4 * thread());
      break;
    case Bug::out_of_bounds:
      store_shared(Shared(1024 - 63 * 4 + 4 * thread()), 1.0f);
      break;
    case Bug::misaligned_shared:
      (void)load_shared<Quad>(8);
      break;
    case Bug::misaligned_global:
      (void)load(reinterpret_cast<const Quad*>(a.numbers + 1));
      break;
    case Bug::divergent_shuffle:
      if (thread() < 40)
        shuffle_xor(1.0f, 1);
      else
        shuffle_xor(1.0f, 2);
      break;
    case Bug::lane_missing:
      if (thread() != 40) shuffle_xor(1.0f, 1);
      break;
    case Bug::divergent_sync:
      if (thread() < 32)
        sync_threads();
      else
        sync_threads();
      break;
    case Bug::deadlock:
      if (thread() == 0) init_barrier(0);
      sync_cluster();
      wait_barrier(0, 0);
      break;
    case Bug::livelock:
      while (load_acquire(a.flags) == 0) wait_a_little();
      break;
    case Bug::constant_written:
      if (block() == 0) (void)load_constant(a.numbers);
      if (block() == 1 && thread() == 0) store(a.numbers, 1.0f);
      break;
    case Bug::two_writers:
      if (thread() == 0) store(a.numbers, 1.0f);
      break;
    case Bug::overwritten_while_read:
      if (block() == 0) (void)load(a.numbers + thread());
      if (block() == 1) store(a.numbers + thread(), 1.0f);
      break;
    case Bug::plain_flag:
      if (block() == 0 && thread() == 0) store_release(a.flags, 1);
      if (block() == 1 && thread() == 0) (void)load(a.flags);
      break;
    case Bug::write_without_release:  // what thread 1 wrote is not thread 0's to release
      if (block() == 0) {
        if (thread() == 1) store(a.numbers, 1.0f);
        if (thread() == 0) store_release(a.flags, 1);
      } else if (thread() == 0) {
        while (load_acquire(a.flags) == 0) wait_a_little();
        (void)load(a.numbers);
      }
      break;
    case Bug::push_unseen:  // only thread 0 has waited
    case Bug::push_overtaken:
    case Bug::push_to_ended:
      if (thread() == 0) init_barrier(0);
      sync_cluster();
      if (block() == 0 && thread() == 0) push(16, 1, zero, 0);
      if (block() == 1 && a.bug != Bug::push_to_ended) {
        if (thread() == 0) arrive(0, 16);
        if (thread() == 0 || a.bug == Bug::push_overtaken) wait_barrier(0, 0);
        (void)load_shared<float>(16);
      }
      if (block() == 0 && thread() == 0 && a.bug == Bug::push_overtaken) push(16, 1, zero, 0);
      break;
    case Bug::phase_ahead:
      if (thread() == 0) init_barrier(0);
      sync_cluster();
      wait_barrier(0, 1);
      break;
    case Bug::barrier_without_init:
      arrive(0, 0);
      break;
    case Bug::second_arrival:
      if (thread() == 0) init_barrier(0);
      sync_cluster();
      if (thread() < 2) arrive(0, 16);
      break;
  }
}

void expect_found(Bug bug, const std::string& what, const std::vector<std::string>& words) {
  expect_error(what, words, [&] {
    alignas(16) float numbers[256] = {};
    uint32_t flags[2] = {};
    launch(wrong, Grid{2, 64, 1024, 2, true}, nullptr, Wrong{bug, numbers, flags});
  });
}

// Half of the numbers and the flags are given: what lies beyond them is not the kernel's.
FUSEDRNN_KERNEL(32) beyond(Wrong a) {
  if (thread() == 0) store(a.flags + 1, 1u);
  if (thread() == 31 && load(a.numbers + 127) == 0) (void)load_constant(a.numbers + 128);
}

void check_bounds() {
  alignas(16) float numbers[256] = {};
  uint32_t flags[2] = {};
  const auto array = [](const char* name, const void* data, size_t bytes) {
    const auto begin = reinterpret_cast<uintptr_t>(data);
    return emulator::Array{name, begin, begin + bytes};
  };
  const emulator::Settings before = emulator::settings;
  emulator::settings.arrays = {array("numbers", numbers, 512), array("flags", flags, sizeof flags)};
  expect_error("a read beyond an array", {"out of bounds: 512 bytes from the beginning of numbers, which has 512"},
               [&] { launch(beyond, Grid{1, 32, 0, 1, false}, nullptr, Wrong{{}, numbers, flags}); });
  emulator::settings.arrays = {array("numbers", numbers, sizeof numbers), array("flags", flags, sizeof *flags)};
  expect_error("a write beyond an array", {"out of bounds: 4 bytes from the beginning of flags, which has 4"},
               [&] { launch(beyond, Grid{1, 32, 0, 1, false}, nullptr, Wrong{{}, numbers, flags}); });
  emulator::settings = before;
}

void check_wrong_kernels() {
  const std::string here = "emulator_checks.cpp:";
  expect_found(Bug::shared_race, "shared race", {"race: ", "shared memory", here, "not ordered after"});
  expect_found(Bug::shared_race_in_warp, "shared race in a warp", {"race: ", "shared memory at 0"});
  expect_found(Bug::read_before_wait_copies, "missing wait_copies", {"copy_async is still under way", here});
  expect_found(Bug::ended_before_wait_copies, "copies at the end", {"ended with a copy_async under way", here});
  expect_found(Bug::out_of_bounds, "out of bounds", {"out of bounds", "1024 bytes"});
  expect_found(Bug::misaligned_shared, "misaligned shared", {"misaligned: shared memory at 8"});
  expect_found(Bug::misaligned_global, "misaligned global", {"misaligned: global memory"});
  expect_found(Bug::divergent_shuffle, "divergent shuffle", {"divergent collective", "shuffle_xor", here});
  expect_found(Bug::lane_missing, "a lane missing", {"divergent collective", "ended"});
  expect_found(Bug::divergent_sync, "divergent barrier", {"divergent sync_threads"});
  expect_found(Bug::deadlock, "deadlock", {"deadlock", "64 in wait_barrier at " + here, "block 1"});
  expect_found(Bug::livelock, "livelock", {"livelock", "block 0: ", here});
  expect_found(Bug::constant_written, "constant written", {"load_constant"});
  expect_found(Bug::two_writers, "two writers", {"race: write of global memory", "the write by"});
  expect_found(Bug::overwritten_while_read, "overwritten while read", {"race: ", "global memory"});
  expect_found(Bug::plain_flag, "a flag read plainly", {"race: "});
  expect_found(Bug::write_without_release, "another thread's write", {"race: ", "global memory"});
  expect_found(Bug::push_unseen, "a push not waited for", {"shared memory at 16 of block 1"});
  expect_found(Bug::push_overtaken, "a push over what is read", {here, "block 1"});
  expect_found(Bug::push_to_ended, "a push to a block that ends", {"push", "ended"});
  expect_found(Bug::phase_ahead, "a phase ahead", {"wait_barrier", "phase 1", "phase 0"});
  expect_found(Bug::barrier_without_init, "no init", {"arrive", "not initialised"});
  expect_found(Bug::second_arrival, "two arrivals", {"has had its arrival"});

  const auto shape = [](Grid grid) {
    return [grid] { launch(wrong, grid, nullptr, Wrong{Bug::livelock, nullptr, nullptr}); };
  };
  expect_error("threads", {"cannot be", "1056 threads"}, shape({1, 1056, 0, 1, false}));
  expect_error("shared memory", {"cannot be", "300000 bytes"}, shape({1, 32, 300000, 1, false}));
  expect_error("clusters", {"cannot be", "clusters of 2 among 3"}, shape({3, 32, 0, 2, false}));
}

// --- The scheduler

// Blocks of a launch that is not cooperative run as others end, and may not wait for one that has not begun.
FUSEDRNN_KERNEL(32) chain(Wrong a) {
  if (a.bug == Bug::livelock && thread() == 0) {
    store_release(a.flags + block(), 1);
    while (load_acquire(a.flags + (block() + 1) % blocks()) == 0) wait_a_little();
  }
  store(a.numbers + block() * 32 + thread(), 1.0f);
}

void check_residency() {
  const emulator::Settings before = emulator::settings;
  emulator::settings.capacity = 3;
  float numbers[20 * 32] = {};
  uint32_t flags[20] = {};
  launch(chain, Grid{20, 32, 0, 1, false}, nullptr, Wrong{Bug::deadlock, numbers, flags});
  for (float x : numbers) expect(x == 1, "every block runs");
  expect_error("a block that has not begun", {"load_acquire", "need not be resident together"}, [&] {
    std::memset(flags, 0, sizeof flags);
    launch(chain, Grid{20, 32, 0, 1, false}, nullptr, Wrong{Bug::livelock, numbers, flags});
  });
  emulator::settings = before;
}

// Shared memory begins as NaN in each format, and a launch can be repeated exactly.
FUSEDRNN_KERNEL(32) poison(float* out) {
  store(out + 3 * thread(), load_shared<float>(Shared(16 * thread())));
  store(out + 3 * thread() + 1, to_float(load_shared<bfloat16>(Shared(16 * thread() + 4))));
  store(out + 3 * thread() + 2, to_float(load_shared<float16>(Shared(16 * thread() + 6))));
}

void check_poison() {
  float out[96] = {};
  launch(poison, Grid{1, 32, 512, 1, false}, nullptr, static_cast<float*>(out));
  for (float x : out) expect(std::isnan(x), "shared memory begins as NaN");
  long switches[2];
  for (long& count : switches) {
    emulator::statistics = {};
    exchange_is_right(4, 3);
    count = emulator::statistics.switches;
  }
  expect(switches[0] == switches[1], "one seed, one schedule");
}

// --- Tensor cores

struct Product {
  const uint32_t *a, *b;  // [16, K] and [K, 8] as bits
  float* sums;            // [16, 8]
};

// The layouts as device.hpp states them, number by number.
template <class S, int K>
void multiply(Product p) {
  const int r = lane() / 4, q = lane() % 4;
  const auto a = [&](int row, int column) { return load_constant(p.a + row * K + column); };
  const auto b = [&](int row, int column) { return load_constant(p.b + row * 8 + column); };
  Quad left;
  Pair right;
  if constexpr (K == 16) {
    const auto two = [](uint32_t low, uint32_t high) { return low | high << 16; };
    left = {{two(a(r, 2 * q), a(r, 2 * q + 1)), two(a(r + 8, 2 * q), a(r + 8, 2 * q + 1)),
             two(a(r, 2 * q + 8), a(r, 2 * q + 9)), two(a(r + 8, 2 * q + 8), a(r + 8, 2 * q + 9))}};
    right = {{two(b(2 * q, r), b(2 * q + 1, r)), two(b(2 * q + 8, r), b(2 * q + 9, r))}};
  } else {
    left = {{a(r, q), a(r + 8, q), a(r, q + 4), a(r + 8, q + 4)}};
    right = {{b(q, r), b(q + 4, r)}};
  }
  float* at[4] = {p.sums + r * 8 + 2 * q, p.sums + r * 8 + 2 * q + 1, p.sums + (r + 8) * 8 + 2 * q,
                  p.sums + (r + 8) * 8 + 2 * q + 1};
  float sums[4];
  for (int i = 0; i < 4; ++i) sums[i] = load(at[i]);
  mma(sums, left, right, S{});
  for (int i = 0; i < 4; ++i) store(at[i], sums[i]);
}

template <class S, int K>
void check_mma(const std::string& what, uint32_t (*bits)(float), float (*value)(uint32_t)) {
  emulator::Random random(7);
  uint32_t a[16 * K], b[K * 8];
  float sums[128], expected[128];
  for (uint32_t& x : a) x = bits(float(random.below(2000)) / 1000 - 1);
  for (uint32_t& x : b) x = bits(float(random.below(2000)) / 1000 - 1);
  for (int i = 0; i < 128; ++i) {
    sums[i] = float(i);
    double exact = sums[i];
    for (int k = 0; k < K; ++k) exact += double(value(a[i / 8 * K + k])) * double(value(b[k * 8 + i % 8]));
    expected[i] = float(exact);
  }
  launch(multiply<S, K>, Grid{1, 32, 0, 1, false}, nullptr, Product{a, b, sums});
  for (int i = 0; i < 128; ++i) expect(sums[i] == expected[i], "mma in " + what + ", sum " + std::to_string(i));
}

void check_tensor_cores() {
  check_mma<bfloat16, 16>(
      "bfloat16", [](float x) { return uint32_t(from_float<bfloat16>(x).bits); },
      [](uint32_t x) { return to_float(bfloat16{uint16_t(x)}); });
  check_mma<float16, 16>(
      "float16", [](float x) { return uint32_t(from_float<float16>(x).bits); },
      [](uint32_t x) { return to_float(float16{uint16_t(x)}); });
  // Operands in float32 lose their lowest 13 bits.
  check_mma<float, 8>("tf32", [](float x) { return bits_of(x); }, [](uint32_t x) { return float_of(x >> 13 << 13); });
}

}  // namespace

int main(int count, char** words) {
  if (count > 1) seeds = std::atoi(words[1]);
  check_exchange();
  check_clusters();
  check_wrong_kernels();
  check_bounds();
  check_residency();
  check_poison();
  check_tensor_cores();
  checks::check_numbers();
  if (checks::failures) std::printf("%d failures\n", checks::failures);
  return checks::failures != 0;
}
