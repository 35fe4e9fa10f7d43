// Programs over time: which rows a thread takes, and what is computed once a block of steps: states again from
// checkpoints, and totals over rows.
#include <algorithm>
#include <optional>
#include <stdexcept>

#include "program_again.hpp"
#include "program_totals.hpp"
#include "subnormals.hpp"

namespace fusedrnn {
namespace {

// Blocks of a team: two share the weights that a product reads.
constexpr int64_t blocks_of_team = 2;
constexpr int64_t rows_of_totals = 512;

}  // namespace

int64_t total_block(int64_t batch) { return std::max<int64_t>(1, rows_of_totals / std::max<int64_t>(1, batch)); }

int64_t padded_rows(const std::vector<Team>& teams) {
  return teams.empty() ? 0 : teams.back().padded + teams.back().blocks * teams.back().lanes;
}

std::vector<Team> make_teams(const Plan& plan, int64_t batch, int64_t lanes) {
  std::vector<Team> teams;
  int64_t padded = 0;
  const auto add_team = [&](int64_t row, int64_t rows, int64_t L) {
    teams.push_back({row, rows, L, (rows + L - 1) / L, padded});
    padded += teams.back().blocks * L;
  };
  const int64_t threads = num_threads();
  const int64_t whole = lanes == 1 ? 0 : lanes ? batch : batch / program_lanes * program_lanes;
  const int64_t rest = batch - whole;
  const int64_t in_lanes = lanes == 0 && rest >= plan.lanes_from ? batch : whole;
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
void run_program(const ProgramCall<T>& call, const FrozenProgram<T>* frozen) {
  const Plan& plan = *call.plan;
  std::atomic<bool> bad{false};
  Scratch scratch;
  std::optional<Ready<T>> own;
  if (!frozen) own.emplace(call, scratch, bad);
  const Ready<T>& ready = frozen ? frozen->ready : *own;
  Walk<T> walk(call, ready, scratch);
  std::optional<Forward<T>> forward;
  if (call.forward) forward.emplace(*call.forward, ready, scratch, bad);

  const bool blocks = !plan.deferred.empty() || (call.forward && call.forward->checkpoint);
  const int64_t block = blocks ? std::min(call.steps, total_block(call.batch)) : call.steps;
  const Totals<T> totals(call, ready, scratch, block);
  const auto teams = call.batch ? int64_t(call.teams.size()) : 0;
  for (int64_t s = 0, last; s < call.steps && teams; s = last) {
    // Backward's blocks begin where forward's end, wherever the last one ends.
    last = call.forward ? call.steps - (call.steps - s - 1) / block * block : std::min(call.steps, s + block);
    if (forward) forward->prepare(call.steps - s);
    parallel_for(teams, plan.flops * double(call.batch * (last - s)), [&](int64_t i) {
      const FlushSubnormals flush;
      Scratch scratch_of_team;
      const Team& team = call.teams[std::size_t(i)];
      const Walk<T>* const lender = forward ? forward->walk() : nullptr;
      if (s == 0) walk.begin(team, lender, scratch_of_team, bad);
      walk.steps(team, s, last, totals.rows(), s, lender, scratch_of_team, bad);
      if (last == call.steps) walk.end(team, totals.rows(), lender, scratch_of_team, bad);
    });
    totals.add(last - s, false, bad);
  }
  if (teams) totals.add(1, true, bad);
  totals.finish();
  ready.after(call, bad);
  if (bad.load()) throw std::out_of_range("an index that the step computed lies outside of its axis");
}

template <class T>
std::shared_ptr<FrozenProgram<T>> freeze_program(const Plan& plan, const std::vector<const T*>& shared) {
  return std::make_shared<FrozenProgram<T>>(plan, shared);
}

template void run_program(const ProgramCall<float>&, const FrozenProgram<float>*);
template void run_program(const ProgramCall<double>&, const FrozenProgram<double>*);
template std::shared_ptr<FrozenProgram<float>> freeze_program(const Plan&, const std::vector<const float*>&);
template std::shared_ptr<FrozenProgram<double>> freeze_program(const Plan&, const std::vector<const double*>&);

}  // namespace fusedrnn
