// Programs over time: which rows a thread takes, and what is computed once a block of steps: states again from
// checkpoints, and totals over rows.
#include <algorithm>
#include <memory>
#include <stdexcept>

#include "gemm.hpp"
#include "program_walk.hpp"
#include "subnormals.hpp"

namespace fusedrnn {
namespace {

// Rows from which a block of lanes is faster than rows one by one, and how many blocks a team takes: two share the
// weights that a product reads.
constexpr int64_t fewest_for_lanes = 12, blocks_of_team = 2;
constexpr int64_t rows_of_totals = 1024;
constexpr int64_t default_chunk = 512;

// Totals over rows of a block of steps.
template <class T>
void add_totals(const ProgramCall<T>& call, const Ready<T>& ready, const std::vector<T*>& sequences, int64_t steps,
                bool once, const std::vector<T*>& sums, std::atomic<bool>& bad) {
  const Plan& plan = *call.plan;
  const KernelTable<T>& k = ready.engine().kernels;
  const int64_t rows = (once ? 1 : steps) * call.batch;
  std::vector<OuterProduct<T>> outers;
  for (std::size_t i = 0; i < plan.deferred.size(); ++i) {
    const Deferred& d = plan.deferred[i];
    if (d.once != once) continue;
    T* const to = ready.shared() + d.offset;
    const T* const a = sequences[std::size_t(d.a)];
    if (d.kind == Deferred::product) {
      outers.push_back({rows * d.m, sequences[std::size_t(d.b)], d.inputs, a, d.columns, d.columns, sums[i],
                        d.bias_offset < 0 ? nullptr : ready.shared() + d.bias_offset});
    } else if (d.kind == Deferred::sum) {
      Scratch own;
      T* const part = own.take<T>(d.columns + register_slack);
      for (int64_t row = 0; row < rows; row += weight_gradient_chunk) {
        zero(part, d.columns);
        column_sums<T>(k, std::min(weight_gradient_chunk, rows - row), d.columns, {a + row * d.columns, d.columns}, {},
                       nullptr, part);
        add(to, part, d.columns);
      }
    } else {
      const Places<T> place{d.m, 1, nullptr, bad};
      const T* const index = sequences[std::size_t(d.b)];
      for (int64_t i = 0; i < rows * d.inputs; ++i) {
        T* const out = to + place(index[i], 0) * d.columns;
        for (int64_t w = 0; w < d.columns; ++w) out[w] += a[i * d.columns + w];
      }
    }
  }
  if (!outers.empty()) gradient_products<T>(k, outers, nullptr);
}

}  // namespace

int64_t total_block(int64_t batch) { return std::max<int64_t>(1, rows_of_totals / std::max<int64_t>(1, batch)); }

int64_t padded_rows(const std::vector<Team>& teams) {
  return teams.empty() ? 0 : teams.back().padded + teams.back().blocks * teams.back().lanes;
}

std::vector<Team> make_teams(int64_t batch, int64_t lanes) {
  std::vector<Team> teams;
  int64_t padded = 0;
  const auto add_team = [&](int64_t row, int64_t rows, int64_t L) {
    teams.push_back({row, rows, L, (rows + L - 1) / L, padded});
    padded += teams.back().blocks * L;
  };
  const int64_t threads = num_threads();
  const int64_t whole = lanes == 1 ? 0 : lanes ? batch : batch / program_lanes * program_lanes;
  const int64_t rest = batch - whole;
  const int64_t in_lanes = lanes == 0 && rest >= fewest_for_lanes ? batch : whole;
  const int64_t blocks = (in_lanes + program_lanes - 1) / program_lanes;
  const int64_t each = std::clamp<int64_t>(blocks / threads, 1, blocks_of_team);
  for (int64_t b = 0; b < blocks; b += each)
    add_team(b * program_lanes, std::min(in_lanes - b * program_lanes, each * program_lanes), program_lanes);
  // Rows one by one: as many teams as threads.
  const int64_t left = batch - in_lanes;
  for (int64_t i = 0; i < std::min(left, threads); ++i) {
    const int64_t first = left * i / std::min(left, threads), last = left * (i + 1) / std::min(left, threads);
    add_team(in_lanes + first, last - first, 1);
  }
  return teams;
}

template <class T>
void run_program(const ProgramCall<T>& given) {
  ProgramCall<T> call = given, forward_call;
  if (!call.chunk) call.chunk = default_chunk;
  const bool backward = call.forward != nullptr;
  if (backward) {
    forward_call = *call.forward;
    if (!forward_call.chunk) forward_call.chunk = default_chunk;
    call.forward = &forward_call;
  }
  const Plan& plan = *call.plan;
  std::atomic<bool> bad{false};
  Scratch scratch;
  const Ready<T> ready(call, scratch, bad);
  Walk<T> walk(call, ready, scratch);
  const int64_t R = padded_rows(call.teams);
  const auto teams = int64_t(call.teams.size());

  // Backward of a call with checkpoints computes a block of forward's steps again, before it walks through them.
  const bool again = backward && forward_call.checkpoint;
  std::unique_ptr<Ready<T>> forward_ready;
  std::unique_ptr<Walk<T>> forward;
  T *block_states = nullptr, *block_reserve = nullptr, *block_totals = nullptr;
  if (backward) {
    if (again) {
      const int64_t k = forward_call.checkpoint;
      block_states = scratch.take<T>((k + 1) * R * forward_call.plan->state + register_slack);
      block_reserve = scratch.take<T>(k * R * forward_call.plan->reserve + register_slack);
      block_totals = scratch.take<T>(R * forward_call.plan->row + register_slack);
      forward_call.kept_shared = nullptr;  // backward does not alter what it was given
      forward_ready = std::make_unique<Ready<T>>(forward_call, scratch, bad);
    }
    forward = std::make_unique<Walk<T>>(forward_call, again ? *forward_ready : ready, scratch);
  }

  // Totals over rows.
  const int64_t block = plan.deferred.empty() && !again ? call.steps : total_block(call.batch);
  std::vector<T*> sequences, sums;
  for (std::size_t i = 0; i < plan.deferred_widths.size(); ++i)
    sequences.push_back(scratch.take<T>((plan.deferred_once[i] ? 1 : std::min(block, call.steps)) * call.batch *
                                            plan.deferred_widths[i] + register_slack));
  for (const Deferred& d : plan.deferred) {
    const int64_t size = d.kind == Deferred::product ? d.columns * d.inputs
                         : d.kind == Deferred::put   ? d.m * d.columns
                                                     : d.columns;
    zero(ready.shared() + d.offset, size);
    if (d.bias_offset >= 0) zero(ready.shared() + d.bias_offset, d.columns);
    sums.push_back(d.kind == Deferred::product ? outer_sums(ready.engine().kernels, scratch, d.inputs, d.columns)
                                               : nullptr);
  }

  const double step_flops = plan.flops * double(call.batch);
  for (int64_t s = 0; s < call.steps && teams > 0;) {
    int64_t last = std::min(call.steps, s + block);
    if (again) {
      // Positions of forward's walk: this block of backward covers [lowest, highest).
      const int64_t k = forward_call.checkpoint, highest = call.steps - s;
      const int64_t lowest = (highest - 1) / k * k;
      last = std::min(last, call.steps - lowest);
      if (highest == call.steps || highest % k == 0) {
        forward->restart(lowest, k, block_states, block_reserve, block_totals);
        parallel_for(teams, forward_call.plan->flops * double(call.batch * (highest - lowest)), [&](int64_t i) {
          const FlushSubnormals flush;
          Scratch own;
          const Team& team = call.teams[std::size_t(i)];
          forward->resume(team, lowest);
          forward->steps(team, lowest, highest, {}, lowest, nullptr, own, bad);
        });
      }
    }
    parallel_for(teams, step_flops * double(last - s), [&](int64_t i) {
      const FlushSubnormals flush;
      Scratch own;
      const Team& team = call.teams[std::size_t(i)];
      if (s == 0) walk.begin(team, forward.get(), own, bad);
      walk.steps(team, s, last, sequences, s, forward.get(), own, bad);
      if (last == call.steps) walk.end(team, sequences, forward.get(), own, bad);
    });
    add_totals(call, ready, sequences, last - s, false, sums, bad);
    s = last;
  }
  if (teams > 0) add_totals(call, ready, sequences, 1, true, sums, bad);
  for (std::size_t i = 0; i < plan.deferred.size(); ++i) {
    const Deferred& d = plan.deferred[i];
    if (d.kind == Deferred::product)
      add_transposed(ready.engine().kernels, ready.shared() + d.offset, sums[i], d.columns, 0, d.columns, d.inputs);
  }
  ready.after(bad);
  if (bad.load()) throw std::out_of_range("an index that the step computed lies outside of its axis");
}

template void run_program(const ProgramCall<float>&);
template void run_program(const ProgramCall<double>&);

}  // namespace fusedrnn
