// What backward reads of forward: as it was kept, or a block of steps computed again from a checkpoint.
#pragma once

#include <memory>

#include "program_walk.hpp"
#include "subnormals.hpp"

namespace fusedrnn {

// Forward's walk as backward sees it. Of a call with checkpoints it computes a block of steps again, before backward
// walks through them.
template <class T>
class Forward {
 public:
  Forward(const ProgramCall<T>& call, const Ready<T>& backward, Scratch& scratch, std::atomic<bool>& bad)
      : call_(call), bad_(bad) {
    if (call_.checkpoint) {
      const int64_t k = call_.checkpoint, R = padded_rows(call_.teams);
      states_ = scratch.take<T>((k + 1) * R * call_.plan->state + register_slack);
      reserve_ = scratch.take<T>(k * R * call_.plan->reserve + register_slack);
      totals_ = scratch.take<T>(R * call_.plan->row + register_slack);
      call_.kept_shared = nullptr;  // backward does not alter what it was given
      ready_ = std::make_unique<Ready<T>>(call_, scratch, bad);
    }
    walk_ = std::make_unique<Walk<T>>(call_, ready_ ? *ready_ : backward, scratch);
  }

  const Walk<T>* walk() const { return walk_.get(); }

  // Before backward goes on from the end of position `highest`.
  void prepare(int64_t highest) {
    const int64_t k = call_.checkpoint;
    if (!k || (highest != call_.steps && highest % k)) return;
    const int64_t lowest = (highest - 1) / k * k;
    walk_->restart(lowest, k, states_, reserve_, totals_);
    parallel_for(int64_t(call_.teams.size()), call_.plan->flops * double(call_.batch * (highest - lowest)),
                 [&](int64_t i) {
                   const FlushSubnormals flush;
                   Scratch own;
                   const Team& team = call_.teams[std::size_t(i)];
                   walk_->resume(team, lowest);
                   walk_->steps(team, lowest, highest, {}, lowest, nullptr, own, bad_);
                 });
  }

 private:
  ProgramCall<T> call_;
  std::atomic<bool>& bad_;
  std::unique_ptr<Ready<T>> ready_;
  std::unique_ptr<Walk<T>> walk_;
  T *states_ = nullptr, *reserve_ = nullptr, *totals_ = nullptr;
};

}  // namespace fusedrnn
