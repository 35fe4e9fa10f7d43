#include "parallel.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "subnormals.hpp"

namespace fusedrnn {
namespace {

constexpr auto spin_time = std::chrono::microseconds(150);
constexpr int most_threads = 256, spins_before_yield = 2000;

// What OpenMP's variable allows, for who sets it (joblib, torchrun, Slurm) means every library. Its first number is
// that of the outermost level ("4,2"). What OpenMP would not read is no limit.
int openmp_limit() {
  const char* const text = std::getenv("OMP_NUM_THREADS");
  if (!text) return most_threads;
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  while (*end == ' ' || *end == '\t') ++end;
  return end == text || (*end != '\0' && *end != ',') || n < 1 ? most_threads : int(std::min<long>(n, most_threads));
}

int default_threads() {
  if (const char* text = std::getenv("FUSEDRNN_NUM_THREADS"); text && *text) {
    char* end = nullptr;
    const long n = std::strtol(text, &end, 10);
    if (end == text || *end != '\0' || n < 1 || n > most_threads)
      throw std::invalid_argument("FUSEDRNN_NUM_THREADS: expected an integer from 1 to 256, got '" + std::string(text) +
                                  "'");
    return int(n);
  }
  cpu_set_t mask;
  const int cores =
      sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : int(std::thread::hardware_concurrency());
  return std::clamp(cores, 1, openmp_limit());
}

std::atomic<int> requested_threads{0};
thread_local bool inside_task = false;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// One piece of work. It lives on the heap, shared with the helpers, so that one that arrives late finds
// nothing left to claim instead of a dead stack frame.
struct Job {
  const std::function<void(int64_t)>* task;
  int64_t tasks;
  std::atomic<int64_t> next{0}, done{0};
  std::mutex error_mutex;
  std::exception_ptr error;

  void work() {
    inside_task = true;
    for (int64_t i; (i = next.fetch_add(1)) < tasks;) {
      try {
        (*task)(i);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        error = std::current_exception();
      }
      done.fetch_add(1, std::memory_order_release);
    }
    inside_task = false;
  }
};

class Pool {
 public:
  void run(int64_t tasks, int threads, const std::function<void(int64_t)>& task) {
    const auto job = std::make_shared<Job>();
    job->task = &task;
    job->tasks = tasks;
    grow(threads - 1);
    {
      const std::lock_guard lock(mutex_);
      job_ = job;
      wanted_ = threads - 1;
      generation_.fetch_add(1, std::memory_order_release);
    }
    if (sleepers_.load() > 0) wake_.notify_all();
    job->work();
    while (job->done.load(std::memory_order_acquire) < tasks) pause();
    {
      const std::lock_guard lock(mutex_);
      job_.reset();
    }
    // Out of the job: a helper may be the last to let go of that, and then would free what the caller reads.
    if (job->error) std::rethrow_exception(std::exchange(job->error, nullptr));
  }

  std::mutex caller;  // one caller at a time; others run inline

 private:
  // Without memory or leave for more threads, those that are there share the work.
  void grow(int helpers) {
    try {
      for (; helpers_ < helpers; ++helpers_) std::thread([this, index = helpers_] { help(index); }).detach();
    } catch (const std::system_error&) {
    }
  }

  void help(int index) {
    const FlushSubnormals flush;
    uint64_t seen = 0;
    for (;;) {
      const auto start = std::chrono::steady_clock::now();
      while (generation_.load(std::memory_order_acquire) == seen &&
             std::chrono::steady_clock::now() - start < spin_time)
        for (int i = 0; i < 16; ++i) pause();
      std::shared_ptr<Job> job;
      {
        std::unique_lock lock(mutex_);
        sleepers_.fetch_add(1);
        wake_.wait(lock, [&] { return generation_.load() != seen; });
        sleepers_.fetch_sub(1);
        seen = generation_.load();
        if (index < wanted_) job = job_;
      }
      if (job) job->work();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> sleepers_{0};
  std::shared_ptr<Job> job_;
  int wanted_ = 0, helpers_ = 0;
};

// Never destroyed: its threads may outlive main. A child of fork has none of them and starts afresh.
std::atomic<Pool*> current_pool{nullptr};

Pool& pool() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] {
    current_pool.store(nullptr);
    inside_task = false;
  });
  (void)registered;
  Pool* p = current_pool.load();
  if (!p) {
    auto* fresh = new Pool;
    if (current_pool.compare_exchange_strong(p, fresh)) return *fresh;
    delete fresh;
  }
  return *p;
}

}  // namespace

int num_threads() {
  if (const int n = requested_threads.load()) return n;
  static const int n = default_threads();
  return n;
}

void set_num_threads(int n) {
  if (n < 1 || n > most_threads)
    throw std::invalid_argument("n: expected a number of threads from 1 to 256, got " + std::to_string(n));
  requested_threads.store(n);
}

void parallel_for(int64_t tasks, double flops, const std::function<void(int64_t)>& task) {
  const int threads = int(std::min<int64_t>(num_threads(), tasks));
  if (threads > 1 && flops >= parallel_flops && !inside_task) {
    Pool& p = pool();
    if (const std::unique_lock lock(p.caller, std::try_to_lock); lock) return p.run(tasks, threads, task);
  }
  for (int64_t i = 0; i < tasks; ++i) task(i);
}

void parallel_steps(int64_t steps, int64_t parts, double flops, const std::function<void(int64_t, int64_t)>& task) {
  // Whoever first moves a part from step s to s + 1 computes it there.
  struct alignas(64) Progress {
    std::atomic<int64_t> step{0};
  };
  const auto claimed = std::make_unique<Progress[]>(std::size_t(parts));
  alignas(64) std::atomic<int64_t> done{0};
  alignas(64) std::atomic<bool> failed{false};
  parallel_for(parts, flops, [&](int64_t self) {
    for (int64_t step = 0; step < steps && done.load(std::memory_order_relaxed) < steps * parts; ++step) {
      for (int64_t i = 0; i < parts; ++i) {
        const int64_t part = (self + i) % parts;
        int64_t before = step;
        if (!claimed[std::size_t(part)].step.compare_exchange_strong(before, step + 1)) continue;
        try {
          if (!failed.load(std::memory_order_relaxed)) task(step, part);
        } catch (...) {
          failed.store(true);
          done.fetch_add(1, std::memory_order_release);
          throw;
        }
        done.fetch_add(1, std::memory_order_release);
      }
      // On a busy machine the thread that has the last part may be waiting for this very core.
      for (int spins = 0; done.load(std::memory_order_acquire) < (step + 1) * parts; ++spins)
        if (spins < spins_before_yield)
          pause();
        else
          sched_yield();
    }
  });
}

void parallel_flat(int64_t n, double flops_per_element, const std::function<void(int64_t, int64_t)>& f) {
  const int64_t pieces = (n + flat_piece - 1) / flat_piece;
  parallel_for(pieces, flops_per_element * double(n),
               [&](int64_t i) { f(i * flat_piece, std::min(flat_piece, n - i * flat_piece)); });
}

double parallel_sum(int64_t n, double flops_per_element, const std::function<double(int64_t, int64_t)>& f) {
  if (n <= flat_piece) return n > 0 ? f(0, n) : 0;
  std::vector<double> sums(std::size_t((n + flat_piece - 1) / flat_piece));
  parallel_flat(n, flops_per_element,
                [&](int64_t first, int64_t count) { sums[std::size_t(first / flat_piece)] = f(first, count); });
  double sum = 0;
  for (const double s : sums) sum += s;
  return sum;
}

void parallel_rows(int64_t rows, double flops, const std::function<void(int64_t, int64_t)>& f, int64_t most) {
  if (rows == 0) return;
  // An even split before whole tiles: with tiles of 6 rows, 64 of 128 rows each were 11 % faster than 72 and 56.
  constexpr int64_t granule = 4;
  const int64_t threads = flops >= parallel_flops ? num_threads() : 1;
  const int64_t rounds = std::max<int64_t>(1, (rows - 1) / threads / most + 1), wanted = threads * rounds;
  const int64_t even = (rows + wanted - 1) / wanted;
  const int64_t slice = rows >= 2 * granule * wanted ? (even + granule - 1) / granule * granule : even;
  const int64_t slices = (rows + slice - 1) / slice;
  parallel_for(slices, flops, [&](int64_t i) { f(i * slice, std::min(rows, (i + 1) * slice)); });
}

}  // namespace fusedrnn
