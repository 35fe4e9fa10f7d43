// What a call of a program makes before its first step: shared values, packed weights, copies for lanes.
#pragma once

#include <algorithm>
#include <vector>

#include "pack.hpp"
#include "program_stage.hpp"
#include "scratch.hpp"

namespace fusedrnn {

template <class T>
T* mutable_pointer(const T* p) {
  return const_cast<T*>(p);  // roots are one type; a plan never writes a leaf
}

template <class T>
struct Engine {
  const KernelTable<T>& kernels = fusedrnn::kernels<T>();
  const ProgramKernels<T>& program = program_kernels<T>();
};

// Shared leaves that kernels read where they lie. They may read a vector past the end, and users' arrays have no room.
inline std::vector<bool> read_in_place(const Plan& plan) {
  std::vector<bool> found(plan.leaves.size());
  const auto note = [&](const Place& p) {
    if (p.root >= first_leaf_root) found[std::size_t(p.root - first_leaf_root)] = true;
  };
  for (const Stage* stage : {&plan.shared_before, &plan.shared_after})
    for (const Instruction& in : *stage)
      for (const Place& p : in.places) note(p);
  for (const Stage* stage : {&plan.row_before, &plan.step, &plan.row_after})
    for (const Instruction& in : *stage)
      if (in.code == Code::affine) note(in.places[2]);
  return found;
}

// Shared values before the steps, packed weights and lifted values of one plan's call. It lives in its owner's memory.
template <class T>
class Ready {
 public:
  template <class Owner>
  Ready(const ProgramCall<T>& call, Owner& owner, std::atomic<bool>& bad)
      : plan_(*call.plan),
        leaves_(call.shared),
        kept_shared_(call.forward ? call.kept_shared : nullptr),
        seed_(call.seed),
        chunk_(chunk_of(call)) {
    shared_ = call.kept_shared && !call.forward ? call.kept_shared : owner.template take<T>(plan_.shared + slack);
    constants_ = owner.template take<T>(int64_t(plan_.constants.size()) + slack);
    std::transform(plan_.constants.begin(), plan_.constants.end(), constants_, [](double v) { return T(v); });
    registers_ = owner.template take<T>((chunk_ + register_slack) * std::max<int64_t>(1, plan_.registers));
    packed_.resize(plan_.packed.size());
    const std::vector<bool> in_place = read_in_place(plan_);
    for (std::size_t i = 0; i < leaves_.size(); ++i)
      if (in_place[i] && leaves_[i]) {
        T* const with_room = owner.template take<T>(plan_.leaves[i] + slack);
        copy(with_room, leaves_[i], plan_.leaves[i]);
        leaves_[i] = with_room;
      }
    stage(plan_.shared_before, bad);
    bool with_rows = false, with_lanes = false;
    for (const Team& team : call.teams) (team.lanes == 1 ? with_rows : with_lanes) = true;
    for (std::size_t i = 0; i < plan_.packed.size(); ++i)
      pack(plan_.packed[i], packed_[i], owner, with_rows, with_lanes);
    for (const bool lanes : {false, true}) {
      if (!(lanes ? with_lanes : with_rows) || plan_.lifts.empty()) continue;
      const int64_t L = lanes ? program_lanes : 1;
      T* const to = lifted_[lanes] = owner.template take<T>(plan_.lifted * L + slack);
      for (const Lifted& lift : plan_.lifts) {
        const T* const from = shared_at(lift.from);
        for (int64_t i = 0; i < lift.width; ++i) std::fill_n(to + (lift.offset + i) * L, L, from[i]);
      }
    }
  }
  Ready(const Ready&) = delete;
  Ready& operator=(const Ready&) = delete;

  // Elements of a group's pass.
  static int64_t chunk_of(const ProgramCall<T>& call) { return call.chunk ? call.chunk : default_chunk; }

  // What is computed of totals over rows, and the shared results.
  void after(const ProgramCall<T>& call, std::atomic<bool>& bad) const {
    stage(plan_.shared_after, bad);
    for (std::size_t i = 0; i < plan_.shared_outputs.size(); ++i)
      if (T* const to = call.shared_outputs[i])
        copy(to, shared_at(plan_.shared_outputs[i]), plan_.shared_output_widths[i]);
  }

  Interpreter<T> interpreter() const { return {engine_.kernels, engine_.program, plan_.packed, packed_}; }
  const Engine<T>& engine() const { return engine_; }
  T* shared() const { return shared_; }

  // The roots that are alike for all rows; `lanes` of the team.
  void fill(std::vector<T*>& base, int64_t lanes) const {
    base[shared_root] = shared_;
    base[kept_shared_root] = kept_shared_;
    base[constant_root] = constants_;
    base[lifted_root] = lifted_[lanes != 1];
    for (std::size_t i = 0; i < leaves_.size(); ++i) base[first_leaf_root + i] = mutable_pointer(leaves_[i]);
  }

  std::size_t roots() const { return first_leaf_root + leaves_.size(); }

  static constexpr int64_t slack = register_slack;

 private:
  const T* shared_at(const Place& p) const {
    std::vector<T*> base(roots());
    fill(base, 1);
    return base[std::size_t(p.root)] + p.offset;
  }

  // Shared values lie as those of one row.
  void stage(const Stage& stage, std::atomic<bool>& bad) const {
    if (stage.empty()) return;
    Frame<T> f{.lanes = 1,
               .blocks = 1,
               .rows = 1,
               .base = std::vector<T*>(roots()),
               .stride = std::vector<int64_t>(roots()),
               .read = {},
               .written = {},
               .registers = registers_,
               .chunk = chunk_,
               .seed = seed_,
               .row = 0,
               .step = 0,
               .bad_index = &bad};
    fill(f.base, 1);
    interpreter().run(stage, f);
  }

  template <class Owner>
  void pack(const Packed& p, PackedPair<T>& to, Owner& owner, bool with_rows, bool with_lanes) const {
    const T* const w = shared_at(p.weights);
    if (with_lanes) {
      T* const tiles = owner.template take<T>(p.units * p.depth + slack);
      engine_.program.pack_lane_weights(tiles, w, p.units, p.depth, p.stride_unit, p.stride_depth);
      to.tiles = tiles;
    }
    if (with_rows) {
      const int lanes = engine_.kernels.lanes;
      T* const panels = owner.template take<T>(padded(p.units, lanes) * p.depth);
      for_panels(p.units, lanes, double(p.units * p.depth), [&](int64_t unit, int64_t width, int64_t count) {
        T* out = panels + unit * p.depth;
        const T* const from = w + unit * p.stride_unit;
        if (p.stride_depth == 1) {
          engine_.kernels.transpose({count, p.depth, from, p.stride_unit, out, width, width, false});
          return;
        }
        for (int64_t k = 0; k < p.depth; ++k, out += width) {
          const T* const row = from + k * p.stride_depth;
          if (p.stride_unit == 1)
            copy(out, row, count);
          else
            for (int64_t u = 0; u < count; ++u) out[u] = row[u * p.stride_unit];
          std::fill(out + count, out + width, T(0));
        }
      });
      to.panels = panels;
    }
  }

  static constexpr int64_t default_chunk = 512;

  const Plan& plan_;
  std::vector<const T*> leaves_;
  T* const kept_shared_;
  const uint64_t seed_;
  const int64_t chunk_;
  Engine<T> engine_;
  T *shared_ = nullptr, *constants_ = nullptr, *registers_ = nullptr, *lifted_[2] = {};
  std::vector<PackedPair<T>> packed_;
};

// A plan whose weights are packed once, for calls of few steps: both layouts of rows.
template <class T>
struct FrozenProgram {
  FrozenProgram(const Plan& plan, const std::vector<const T*>& shared)
      : call(call_of(plan, shared)), ready(call, memory, bad) {}

  static ProgramCall<T> call_of(const Plan& plan, const std::vector<const T*>& shared) {
    ProgramCall<T> call{};
    call.plan = &plan;
    call.shared = shared;
    call.teams = {{0, 1, 1, 1, 0}, {1, program_lanes, program_lanes, 1, 1}};
    return call;
  }

  std::atomic<bool> bad{false};
  Memory memory;
  ProgramCall<T> call;
  Ready<T> ready;
};

}  // namespace fusedrnn
