#include "launch.hpp"

#include <algorithm>

namespace fusedrnn::cuda {
namespace {

// Of a loop over the scratch memory, which threads write 16 bytes at a time.
int prepare_blocks(const Plan& plan) {
  return int(std::min<std::size_t>(256, plan.scratch_bytes / (16 * block_threads) + 1));
}

Kernels kernels_of(const Problem& p, Tier tier) {
  constexpr decltype(&fma_kernels) of_product[] = {fma_kernels, tf32_kernels, bfloat16_kernels, float16_kernels};
  return of_product[int(p.product)](p.cell, tier, p.backward);
}

}  // namespace

void run(const Problem& p, const Plan& plan, Arguments a, void* scratch, device::Stream stream) {
  char* const memory = static_cast<char*>(scratch);
  a.layout = plan.layout;
  a.steps = p.steps;
  a.batch = p.batch;
  a.hidden = p.hidden;
  a.directions = p.directions;
  a.packed = memory + plan.packed;
  a.exchange = memory + plan.exchange;
  a.flags = reinterpret_cast<uint32_t*>(memory + plan.flags);
  a.state = reinterpret_cast<float*>(memory + plan.state);
  const Kernels kernels = kernels_of(p, plan.tier);
  device::launch(kernels.prepare, {prepare_blocks(plan), block_threads, 0, 1, false}, stream, a);

  const int turns = p.backward ? p.steps + 1 : p.steps;
  const int cluster = plan.tier == Tier::cluster ? plan.layout.members : 1;
  for (a.first_tile = 0; a.first_tile < plan.row_tiles; a.first_tile += plan.tiles_per_launch) {
    const int tiles = std::min(plan.tiles_per_launch, plan.row_tiles - a.first_tile);
    const device::Grid grid{tiles * p.directions * plan.layout.members, plan.threads, plan.layout.shared_bytes, cluster,
                            plan.tier == Tier::grid};
    const auto pass = [&](int first, int last, device::Stream to) {
      a.first_step = first;
      a.last_step = last;
      device::launch(kernels.pass, grid, to, a);
    };
    if (plan.tier == Tier::steps)
      device::launch_each(stream, turns, [&](int turn, device::Stream to) { pass(turn, turn + 1, to); });
    else
      pass(0, turns, stream);
  }
}

}  // namespace fusedrnn::cuda
