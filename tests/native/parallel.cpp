// parallel_steps by itself: every part of every step once and after the whole step before it, whatever the number of
// threads; an exception reaches its caller, and nobody waits for a part that will not come.
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../../csrc/core/parallel.hpp"

using namespace fusedrnn;

namespace {

constexpr double much_work = 1e9;  // in flops: never inline because it is little

std::atomic<int> failures{0};

void check(bool good, const std::string& what) {
  if (good) return;
  ++failures;
  std::printf("FAILED %s\n", what.c_str());
}

// A recurrence over parts: each part of a step is made from all parts of the step before, in plain memory as the cells
// have it, so that a step begun too early has another result, and a race in the sense of the thread sanitizer.
struct Recurrence {
  int64_t steps, parts;
  std::vector<uint64_t> values;         // [steps + 1, parts]
  std::vector<std::atomic<int>> calls;  // [steps, parts]

  Recurrence(int64_t s, int64_t p)
      : steps(s), parts(p), values(std::size_t((s + 1) * p), 1), calls(std::size_t(s * p)) {}

  void compute(int64_t step, int64_t part) {
    uint64_t sum = uint64_t(step * parts + part);
    for (int64_t i = 0; i < parts; ++i) sum = sum * 31 + values[std::size_t(step * parts + i)];
    values[std::size_t((step + 1) * parts + part)] = sum;
    ++calls[std::size_t(step * parts + part)];
  }

  bool good() const {
    Recurrence alone(steps, parts);
    for (int64_t s = 0; s < steps; ++s)
      for (int64_t p = 0; p < parts; ++p) alone.compute(s, p);
    for (const auto& n : calls)
      if (n != 1) return false;
    return values == alone.values;
  }
};

bool recurs(int64_t steps, int64_t parts, double flops = much_work) {
  Recurrence r(steps, parts);
  parallel_steps(steps, parts, flops, [&](int64_t step, int64_t part) { r.compute(step, part); });
  return r.good();
}

void check_each_part_once() {
  for (const int threads : {1, 2, 3, 5}) {
    set_num_threads(threads);
    for (const int64_t parts : {1, 2, 3, 5, 9})
      for (const int64_t steps : {0, 1, 2, 300})
        check(recurs(steps, parts), std::to_string(threads) + " threads, " + std::to_string(parts) + " parts, " +
                                        std::to_string(steps) + " steps");
    check(recurs(20, 3, 0), "little work, inline");
  }
}

// Parts of uneven length, a different one each step: whoever waits there finds it done, or does it.
void check_uneven_parts() {
  set_num_threads(3);
  Recurrence r(60, 4);
  parallel_steps(r.steps, r.parts, much_work, [&](int64_t step, int64_t part) {
    if (step % r.parts == part) std::this_thread::sleep_for(std::chrono::microseconds(300));
    r.compute(step, part);
  });
  check(r.good(), "uneven parts");
}

// The parts that throw do so at one step; none of a later step may run, as it would read what was never made.
void check_exceptions() {
  constexpr int64_t steps = 40, parts = 4, bad = 17;
  for (const int threads : {1, 2, 3, 5})
    for (const std::array<bool, 4>& throws :
         {std::array{true, false, false, false}, std::array{false, false, false, true},
          std::array{true, true, true, true}})
      for (int again = 0; again < 10; ++again) {
        set_num_threads(threads);
        std::atomic<bool> later{false};
        std::string caught;
        try {
          parallel_steps(steps, parts, much_work, [&](int64_t step, int64_t part) {
            if (step > bad) later = true;
            if (step == bad && throws[std::size_t(part)]) throw std::runtime_error("part");
          });
        } catch (const std::runtime_error& e) {
          caught = e.what();
        }
        check(caught == "part" && !later, std::to_string(threads) + " threads, an exception");
        check(recurs(20, parts), std::to_string(threads) + " threads, after an exception");
      }
}

// One has the pool, the others run inline.
void check_several_callers() {
  set_num_threads(3);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller)
    callers.emplace_back([] {
      for (int i = 0; i < 30; ++i) check(recurs(50, 3), "several callers");
    });
  for (std::thread& t : callers) t.join();
}

void check_nested() {
  set_num_threads(3);
  std::atomic<int> good{0};
  parallel_for(6, much_work, [&](int64_t) { good += recurs(20, 3); });
  parallel_steps(4, 3, much_work, [&](int64_t, int64_t) { good += recurs(20, 3); });
  check(good == 6 + 4 * 3, "nested");
}

// Another number of threads while calls run, as set_num_threads allows from any thread.
void check_changing_threads() {
  std::atomic<bool> running{true};
  std::thread other([&] {
    for (int n = 1; running; n = n % 5 + 1) set_num_threads(n);
  });
  for (int i = 0; i < 200; ++i) check(recurs(20, 4), "changing threads");
  running = false;
  other.join();
}

}  // namespace

int main() {
  check_each_part_once();
  check_uneven_parts();
  check_exceptions();
  check_several_callers();
  check_nested();
  check_changing_threads();
  std::printf("%d failures\n", failures.load());
  return failures ? 1 : 0;
}
