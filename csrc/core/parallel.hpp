// The only file that knows threads. A small pool: tasks are claimed one by one, the caller starts at once and
// finishes alone if no helper comes; helpers spin for a short while after work, then sleep.
#pragma once

#include <cstdint>
#include <functional>

namespace fusedrnn {

// By default FUSEDRNN_NUM_THREADS, or the cores of the affinity mask, of which OMP_NUM_THREADS may allow fewer.
int num_threads();
void set_num_threads(int n);

// Work below this many floating-point operations runs on the caller: waking a thread costs tens of microseconds.
constexpr double parallel_flops = 2e6;

// Calls task(i) for i in [0, tasks), in any order and on any thread. Runs inline when the work is small, when
// the pool is busy with another caller, and within a task. A child of fork starts a pool of its own.
void parallel_for(int64_t tasks, double flops, const std::function<void(int64_t)>& task);

// Splits rows into even slices of at most so many for parallel_for and calls f(first, last). How rows are cut never
// changes a result.
void parallel_rows(int64_t rows, double flops, const std::function<void(int64_t, int64_t)>& f,
                   int64_t most = int64_t(1) << 62);

// Calls f(first, count) for pieces of n elements, flat_piece each and at the end the rest; parallel_sum adds what f
// gives, in order. What an element costs, in flops: a pass over memory keeps more than one thread busy.
constexpr int64_t flat_piece = 1 << 15;
constexpr double flops_per_element_moved = 16;
void parallel_flat(int64_t n, double flops_per_element, const std::function<void(int64_t, int64_t)>& f);
double parallel_sum(int64_t n, double flops_per_element, const std::function<double(int64_t, int64_t)>& f);

// Calls task(step, part) for every part of every step, each step only when the one before is complete. Within a call
// part i is thread i's at every step, so that what it reads stays in that core's cache; a thread that comes late, or
// not at all, finds its part done by the others. For work whose rows are too few to share.
void parallel_steps(int64_t steps, int64_t parts, double flops, const std::function<void(int64_t, int64_t)>& task);

}  // namespace fusedrnn
