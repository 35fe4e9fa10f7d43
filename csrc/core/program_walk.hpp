// A team's way through the steps: where the memory of each root is at a position of the walk.
#pragma once

#include "program_ready.hpp"

namespace fusedrnn {

// What the rows of a block of steps store for a total: [steps, N] rows of a stride.
template <class T>
struct TotalRows {
  T* data;
  int64_t stride;
};

// A walk of one plan's call: where its memory is for a team at a position of the walk.
template <class T>
class Walk {
 public:
  Walk(const ProgramCall<T>& call, const Ready<T>& ready, Scratch& scratch) : call_(call), ready_(ready) {
    const Plan& plan = *call.plan;
    const int64_t R = padded_rows(call.teams);
    const bool keeps = call.kept_states && !call.forward;
    // Two slots suffice where no state is kept; a third holds the state of a block's start where states come again.
    slots_ = keeps && !call.checkpoint ? call.steps + 1 : 2;
    states_ = keeps && !call.checkpoint ? call.kept_states : scratch.take<T>(2 * R * plan.state + Ready<T>::slack);
    rows_ = call.kept_rows && !call.forward ? call.kept_rows : scratch.take<T>(R * plan.row + Ready<T>::slack);
    totals_ = rows_;
    reserve_ = call.forward ? nullptr : call.kept_reserve;
    reserve_steps_ = call.steps;
  }

  // Where states and reserve of positions [first, first + count) come again. Totals go where nobody looks.
  void restart(int64_t first, int64_t count, T* states, T* reserve, T* totals) {
    first_ = first;
    slots_ = count + 1;
    states_ = states;
    reserve_ = reserve;
    reserve_steps_ = count;
    totals_ = totals;
    silent_ = true;
  }

  // Before its first step: context, values of rows, initial states, accumulators.
  void begin(const Team& team, const Walk* forward, Scratch& scratch, std::atomic<bool>& bad) const {
    const Plan& plan = *call_.plan;
    Frame<T> f = frame(team, scratch, bad);
    move(f, team, 0, 0);
    if (forward) forward->lend(f, team, call_.steps - 1);
    ready_.interpreter().run(plan.row_before, f);
    for (int64_t block = 0; block < team.blocks; ++block) {
      zero(f.at({total_root, plan.row - plan.totals}, block), plan.totals * team.lanes);
      for (std::size_t i = 0; i < plan.state_widths.size(); ++i) {
        T* const to = f.at({state_root, plan.state_offsets[i]}, block);
        const int64_t width = plan.state_widths[i], row = team.row + block * team.lanes;
        if (const T* const from = call_.states[i])
          lanes(team).load(to, from + row * width, width, f.rows_of(block), width, nullptr);
        else
          zero(to, width * team.lanes);
      }
    }
    if (call_.checkpoint && call_.kept_states && !call_.forward) checkpoint(f, team, 0);
  }

  // Positions [from, to) of the walk. `deferred` has the sequences of totals of positions from `deferred_first` on.
  void steps(const Team& team, int64_t from, int64_t to, const std::vector<TotalRows<T>>& deferred,
             int64_t deferred_first, const Walk* forward, Scratch& scratch, std::atomic<bool>& bad) const {
    const Plan& plan = *call_.plan;
    Frame<T> f = frame(team, scratch, bad);
    T* const alive = call_.lengths ? scratch.take<T>(team.blocks * team.lanes) : nullptr;
    const Interpreter<T> interpreter = ready_.interpreter();
    for (int64_t s = from; s < to; ++s) {
      const int64_t t = call_.reverse ? call_.steps - 1 - s : s;
      move(f, team, s, t);
      place_deferred(f, team, deferred, s - deferred_first, false);
      if (forward) forward->lend(f, team, call_.steps - 1 - s);
      f.alive = alive && some_over(team, t, alive) ? alive : nullptr;
      interpreter.run(plan.step, f);
      if (f.alive)
        for (int64_t block = 0; block < team.blocks; ++block) {
          T* const next = f.at({next_state_root, 0}, block);
          lanes(team).select(next, f.alive_of(block), next, f.at({state_root, 0}, block), plan.state);
        }
      if (call_.checkpoint && call_.kept_states && !call_.forward && !silent_ && (s + 1) % call_.checkpoint == 0)
        checkpoint(f, team, s + 1);
    }
  }

  // After its last step: final states, values of rows that needed all steps.
  void end(const Team& team, const std::vector<TotalRows<T>>& deferred, const Walk* forward, Scratch& scratch,
           std::atomic<bool>& bad) const {
    const Plan& plan = *call_.plan;
    Frame<T> f = frame(team, scratch, bad);
    move(f, team, call_.steps, 0);
    place_deferred(f, team, deferred, 0, true);
    if (forward) forward->lend(f, team, 0);
    for (int64_t block = 0; block < team.blocks; ++block)
      for (std::size_t i = 0; i < plan.state_widths.size(); ++i) {
        const int64_t width = plan.state_widths[i], row = team.row + block * team.lanes;
        if (T* const to = call_.new_states[i])
          lanes(team).store(to + row * width, width, f.rows_of(block), f.at({state_root, plan.state_offsets[i]}, block),
                            width, nullptr);
      }
    ready_.interpreter().run(plan.row_after, f);
  }

  // The memory of a team's states at a checkpoint, and what it copies from there.
  void resume(const Team& team, int64_t position) const {
    const int64_t size = team.blocks * team.lanes * call_.plan->state;
    copy(state_at(team, position), checkpoint_at(team, position), size);
  }

 private:
  const typename ProgramKernels<T>::ForLanes& lanes(const Team& team) const {
    return ready_.engine().program.lanes[team.lanes != 1];
  }

  Frame<T> frame(const Team& team, Scratch& scratch, std::atomic<bool>& bad) const {
    const Plan& plan = *call_.plan;
    Frame<T> f{.lanes = team.lanes,
               .blocks = team.blocks,
               .rows = team.rows,
               .base = std::vector<T*>(ready_.roots()),
               .stride = std::vector<int64_t>(ready_.roots()),
               .read = std::vector<SequenceRows<const T>>(plan.inputs.size() + plan.rows.size()),
               .written = std::vector<SequenceRows<T>>(plan.outputs.size() + plan.row_outputs.size() +
                                                       plan.deferred_widths.size()),
               .registers =
                   scratch.take<T>((Ready<T>::chunk_of(call_) + register_slack) * std::max<int64_t>(1, plan.registers)),
               .chunk = Ready<T>::chunk_of(call_),
               .seed = call_.seed,
               .row = call_.row_offset + uint32_t(team.row),
               .step = 0,
               .bad_index = &bad};
    ready_.fill(f.base, team.lanes);
    f.base[scratch_root] = scratch.take<T>(team.blocks * team.lanes * plan.scratch + Ready<T>::slack);
    f.base[row_root] = rows_ + team.padded * plan.row;
    f.base[total_root] = totals_ + team.padded * plan.row;
    const auto stride = [&](Root root, int64_t width) { f.stride[root] = width * team.lanes; };
    stride(scratch_root, plan.scratch);
    stride(row_root, plan.row);
    stride(total_root, plan.row);
    stride(state_root, plan.state);
    stride(next_state_root, plan.state);
    stride(reserve_root, plan.reserve);
    for (std::size_t i = 0; i < plan.rows.size(); ++i)
      f.read[plan.inputs.size() + i] = {call_.rows[i] ? call_.rows[i] + team.row * plan.rows[i] : nullptr,
                                        plan.rows[i]};
    for (std::size_t i = 0; i < plan.row_outputs.size(); ++i) {
      T* const to = silent_ ? nullptr : call_.row_outputs[i];
      f.written[plan.outputs.size() + i] = {to ? to + team.row * plan.row_outputs[i] : nullptr, plan.row_outputs[i]};
    }
    return f;
  }

  T* state_at(const Team& team, int64_t position) const {
    const int64_t size = team.blocks * team.lanes * call_.plan->state;
    return states_ + team.padded * call_.plan->state * slots_ + (position - first_) % slots_ * size;
  }
  T* reserve_at(const Team& team, int64_t position) const {
    const int64_t width = call_.plan->reserve;
    return reserve_ ? reserve_ + team.padded * width * reserve_steps_ +
                          (position - first_) * team.blocks * team.lanes * width
                    : nullptr;
  }
  T* checkpoint_at(const Team& team, int64_t position) const {
    const int64_t size = team.blocks * team.lanes * call_.plan->state, slots = call_.steps / call_.checkpoint + 1;
    return call_.kept_states + team.padded * call_.plan->state * slots + position / call_.checkpoint * size;
  }
  void checkpoint(const Frame<T>& f, const Team& team, int64_t position) const {
    copy(checkpoint_at(team, position), state_at(team, position), f.blocks * f.lanes * call_.plan->state);
  }

  // To a position of the walk, at step t of the sequences.
  void move(Frame<T>& f, const Team& team, int64_t position, int64_t t) const {
    const Plan& plan = *call_.plan;
    f.base[state_root] = state_at(team, position);
    f.base[next_state_root] = state_at(team, position + 1);
    f.base[reserve_root] = reserve_at(team, position);
    f.step = call_.step_offset + uint32_t(t);
    const int64_t row = t * call_.batch + team.row;
    for (std::size_t i = 0; i < plan.inputs.size(); ++i)
      f.read[i] = {call_.inputs[i] ? call_.inputs[i] + row * plan.inputs[i] : nullptr, plan.inputs[i]};
    for (std::size_t i = 0; i < plan.outputs.size(); ++i) {
      T* const to = silent_ ? nullptr : call_.outputs[i];
      f.written[i] = {to ? to + row * plan.outputs[i] : nullptr, plan.outputs[i]};
    }
  }

  void place_deferred(Frame<T>& f, const Team& team, const std::vector<TotalRows<T>>& deferred, int64_t step,
                      bool once) const {
    const Plan& plan = *call_.plan;
    const std::size_t before = plan.outputs.size() + plan.row_outputs.size();
    for (std::size_t i = 0; i < deferred.size(); ++i) {
      const TotalRows<T>& rows = deferred[i];
      T* const first = rows.data + (step * call_.batch + team.row) * rows.stride;
      f.written[before + i] = {plan.deferred_once[i] == once ? first : nullptr, rows.stride};
    }
  }

  // What backward reads of forward, at the same position of forward's walk.
  void lend(Frame<T>& f, const Team& team, int64_t position) const {
    const Plan& plan = *call_.plan;
    f.base[kept_state_root] = state_at(team, position);
    f.stride[kept_state_root] = plan.state * team.lanes;
    f.base[kept_next_root] = state_at(team, position + 1);
    f.stride[kept_next_root] = plan.state * team.lanes;
    f.base[kept_row_root] = rows_ + team.padded * plan.row;
    f.stride[kept_row_root] = plan.row * team.lanes;
    f.base[reserve_root] = reserve_at(team, position);
    f.stride[reserve_root] = plan.reserve * team.lanes;
  }

  // Which rows still run at step t; whether any does not.
  bool some_over(const Team& team, int64_t t, T* alive) const {
    bool over = false;
    for (int64_t r = 0; r < team.blocks * team.lanes; ++r) {
      const bool runs = call_.lengths[team.row + std::min(r, team.rows - 1)] > t;
      alive[r] = T(runs);
      over |= !runs;
    }
    return over;
  }

  const ProgramCall<T>& call_;
  const Ready<T>& ready_;
  T *states_, *rows_, *totals_, *reserve_;
  int64_t slots_, reserve_steps_, first_ = 0;
  bool silent_ = false;  // computes again: writes no results
};

}  // namespace fusedrnn
