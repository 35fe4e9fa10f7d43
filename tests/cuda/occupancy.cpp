// Plans of many problems on many GPUs, against NVIDIA's own occupancy formula (cuda_occupancy.h). Reads kernels as
// lines `backward cell product exchange major registers` from standard input, with numbers for all names. Prints what
// is wrong.
#include <cuda_occupancy.h>

#include <cstdio>
#include <map>
#include <stdexcept>
#include <tuple>

#include "plan.hpp"

using namespace fusedrnn::cuda;

namespace {

struct Chip {
  int major, minor, multiprocessors, shared_kilobytes, threads;  // the last two of a multiprocessor
};
constexpr Chip chips[] = {{8, 0, 108, 164, 2048}, {8, 6, 84, 100, 1536},   {8, 9, 128, 100, 1536},
                          {9, 0, 132, 228, 2048}, {10, 0, 148, 228, 2048}, {12, 0, 170, 100, 1536}};

int failures = 0, plans = 0;

int blocks_of_multiprocessor(const Chip& chip, const Gpu& gpu, const Plan& plan, int registers) {
  cudaOccDeviceProp device;
  device.computeMajor = chip.major;
  device.computeMinor = chip.minor;
  device.maxThreadsPerBlock = 1024;
  device.maxThreadsPerMultiprocessor = chip.threads;
  device.regsPerBlock = device.regsPerMultiprocessor = 65536;
  device.warpSize = 32;
  device.sharedMemPerBlock = 48 * 1024;
  device.sharedMemPerMultiprocessor = std::size_t(chip.shared_kilobytes) * 1024;
  device.numSms = chip.multiprocessors;
  device.sharedMemPerBlockOptin = std::size_t(gpu.shared_bytes);
  device.reservedSharedMemPerBlock = 1024;
  cudaOccFuncAttributes kernel;
  kernel.maxThreadsPerBlock = block_threads;
  kernel.numRegs = registers;
  kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  kernel.maxDynamicSharedSizeBytes = std::size_t(gpu.shared_bytes);
  kernel.numBlockBarriers = 1;
  const cudaOccDeviceState state;
  cudaOccResult result;
  if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, plan.threads,
                                              std::size_t(plan.layout.shared_bytes)) != CUDA_OCC_SUCCESS)
    return 0;
  return result.activeBlocksPerMultiprocessor;
}

// Of a pass: sums to a unit, and parts of the operand.
int sums_of(const Problem& p) { return p.backward ? 1 : gates_of(p.cell); }

// Four sums of one gate run side by side in tensor cores; tiles in registers and in shared memory come in fours then.
bool chains_whole(const Problem& p, const Plan& plan) {
  const Layout& l = plan.layout;
  const int chains = p.product != ProductKind::fma && sums_of(p) == 1 ? 4 : 1;
  const auto whole = [&](int tiles) { return tiles % chains == 0 || tiles == l.tiles_per_warp; };
  return whole(l.register_tiles) && whole(l.register_tiles + l.shared_tiles);
}

// The parts of scratch memory, one after another, by the shapes in arguments.hpp.
bool scratch_suffices(const Problem& p, const Plan& plan) {
  const Layout& l = plan.layout;
  const std::size_t directions = std::size_t(p.directions), teams = directions * std::size_t(plan.row_tiles);
  const std::size_t quads = std::size_t(sums_of(p)) * (p.product == ProductKind::fma ? 4 : 1);
  const std::size_t packed = directions * std::size_t(l.padded_units / group_units * l.tiles) * quads * 32 * 16;
  const std::size_t exchange = teams * 2 * std::size_t(l.rows) * std::size_t(l.operand_stride);
  const std::size_t flags = teams * std::size_t(l.members) * 4;
  const std::size_t state = 2 * directions * std::size_t(p.batch) * std::size_t(p.hidden) * 4;
  const bool aligned = (plan.packed | plan.exchange | plan.flags | plan.state) % 256 == 0;
  return aligned && plan.packed + packed <= plan.exchange && plan.exchange + exchange <= plan.flags &&
         plan.flags + flags <= plan.state && (plan.tier != Tier::steps || plan.state + state <= plan.scratch_bytes) &&
         plan.state <= plan.scratch_bytes;
}

// What decides on the order of a sum's terms: tier, members, groups, splits, tiles to a warp.
using Order = std::tuple<int, int, int, int, int>;

}  // namespace

int main() {
  std::map<std::tuple<int, int, int, int, int>, int> registers_of;
  int backward, cell, product, exchange, major, registers;
  while (std::scanf("%d %d %d %d %d %d", &backward, &cell, &product, &exchange, &major, &registers) == 6)
    registers_of[{backward, cell, product, exchange, major}] = registers;

  const int hiddens[] = {1, 16, 17, 31, 64, 100, 128, 200, 256, 384, 500, 512, 768, 1000, 1024, 1536, 2048, 3000, 4096};
  const int batches[] = {1, 8, 9, 32, 64, 100, 256, 1024};
  for (const Chip& chip : chips)
    for (int cell = 0; cell < 3; ++cell)
      for (int product = 0; product < 4; ++product)
        for (int backward = 0; backward < 2; ++backward)
          for (int directions = 1; directions <= 2; ++directions)
            for (int hidden : hiddens) {
              std::map<int, Order> orders;
              for (int batch : batches)
                for (int forced = -1; forced < 4; ++forced) {
                  const Gpu gpu = known_gpu(chip.major, chip.minor, chip.multiprocessors);
                  const Problem p{CellKind(cell), ProductKind(product), backward == 1, 10, batch, hidden, directions};
                  Plan plan;
                  try {
                    plan = forced < 0 ? make_plan(p, gpu) : make_plan(p, gpu, Tier(forced));
                  } catch (const std::invalid_argument&) {
                    if (forced >= 0 && forced < int(Tier::steps)) continue;
                    plan.threads = 0;  // any size has a plan, and the tier `steps`
                  }
                  ++plans;
                  const Layout& l = plan.layout;
                  const auto require = [&](bool right, const char* what) {
                    if (right) return;
                    ++failures;
                    std::printf("%d.%d cell %d product %d backward %d directions %d H %d N %d tier %d (%d): %s\n",
                                chip.major, chip.minor, cell, product, backward, directions, hidden, batch,
                                plan.threads ? int(plan.tier) : -1, forced, what);
                  };
                  require(plan.threads > 0, "no plan");
                  if (plan.threads == 0) continue;
                  require(plan.threads <= block_threads, "threads");
                  require(l.shared_bytes <= gpu.shared_bytes, "shared memory");
                  require(l.rows % row_group == 0, "rows");
                  require(l.rows * l.groups * group_units <= thread_elements * plan.threads, "units of a thread");
                  require(l.members * l.groups * group_units >= hidden, "units");
                  require(int64_t(plan.row_tiles) * l.rows >= batch, "rows of the batch");
                  require(l.splits * l.tiles_per_warp >= l.tiles, "terms");
                  require(forced < 0 || int(plan.tier) == forced, "another tier");
                  require(plan.tier >= Tier::grid || l.register_tiles + l.shared_tiles == l.tiles_per_warp,
                          "weights outside of the chip");
                  require(chains_whole(p, plan), "a tile's chain depends on where it lies");
                  require(scratch_suffices(p, plan), "scratch memory");
                  // The order of a sum's terms must not depend on the batch.
                  const Order order{int(plan.tier), l.members, l.groups, l.splits, l.tiles_per_warp};
                  require(order == orders.try_emplace(forced, order).first->second, "the batch decides on sums");
                  const int exchange = plan.tier == Tier::grid ? 1 : plan.tier == Tier::steps ? 2 : 0;
                  const auto kernel = registers_of.find({backward, cell, product, exchange, chip.major});
                  require(kernel != registers_of.end(), "no such kernel in the table");
                  if (kernel == registers_of.end()) continue;
                  const int64_t resident =
                      int64_t(blocks_of_multiprocessor(chip, gpu, plan, kernel->second)) * chip.multiprocessors;
                  require(resident > 0, "a block does not fit");
                  if (plan.tier == Tier::grid)
                    require(l.members * directions * plan.tiles_per_launch <= resident, "the grid is not resident");
                  const int teams = chip.multiprocessors / (l.members * directions);
                  if (plan.tiles_per_launch < plan.row_tiles)
                    require(plan.tier == Tier::grid && plan.tiles_per_launch == teams, "a launch has too few teams");
                  if (plan.tier == Tier::cluster) require(l.members <= gpu.cluster, "the cluster is too large");
                }
            }
  std::printf("%d plans, %d findings\n", plans, failures);
  return failures > 0;
}
