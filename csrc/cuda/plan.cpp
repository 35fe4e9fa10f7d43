#include "plan.hpp"

#include <algorithm>
#include <stdexcept>

namespace fusedrnn::cuda {
namespace {

int ceil_div(int a, int b) { return (a + b - 1) / b; }
int round_up(int a, int b) { return ceil_div(a, b) * b; }
int log2_up(int n) {
  int bits = 0;
  while (1 << bits < n) ++bits;
  return bits;
}

constexpr int warps_at_most = block_threads / 32;
constexpr int largest_rows = 64;
constexpr int launch_rows = 32;  // product.cuh takes four row groups at a time where weights are read at each step

// What the sums of a pass are made of; product.cuh has the same figures as types.
struct Shape {
  int gates, pieces;  // sums to a unit; parts of the operand
  int bytes, terms;   // of an element; of a tile
  int quads;          // of a lane's part of a tile
  int chains, kept;   // tiles that are summed side by side; that registers hold

  explicit Shape(const Problem& p) {
    const int G = gates_of(p.cell);
    const bool fma = p.product == ProductKind::fma;
    gates = p.backward ? 1 : G;
    pieces = p.backward ? G : 1;
    bytes = element_bytes(p.product);
    terms = fma ? 32 : 32 / bytes;
    quads = fma ? 4 * gates : gates;
    chains = !fma && gates == 1 ? 4 : 1;
    kept = (fma ? 20 : 32) / quads / chains * chains;
  }
  int tile_bytes() const { return quads * 16 * 32; }
};

int largest_batch_rows(const Layout& l) { return thread_elements * l.groups * l.splits * 32 >> l.unit_bits; }

// Where things lie in shared memory. False: they do not fit. The tiers within a block or a cluster read no weights at
// each step.
bool place(Layout& l, const Shape& s, Tier tier, int limit) {
  const int warps = l.groups * l.splits, operand = l.rows * (l.operand_stride + 32);
  l.partial = tier == Tier::steps ? 0 : tier == Tier::grid ? operand : 2 * operand;
  l.weights = l.partial + warps * (l.rows / row_group) * s.gates * row_group * partial_stride * 4;
  const int free = limit - 16 - l.weights;
  if (free < 0) return false;
  l.register_tiles = tier == Tier::steps ? 0 : std::min(s.kept, l.tiles_per_warp);
  const int left = l.tiles_per_warp - l.register_tiles, fit = free / (warps * s.tile_bytes());
  l.shared_tiles = tier == Tier::steps ? 0 : left <= fit ? left : fit / s.chains * s.chains;
  l.barriers = l.weights + warps * l.shared_tiles * s.tile_bytes();
  l.shared_bytes = l.barriers + 16;
  const bool resident = l.register_tiles + l.shared_tiles == l.tiles_per_warp;
  return resident || tier == Tier::grid || tier == Tier::steps;
}

std::optional<Layout> lay_out(const Problem& p, const Gpu& gpu, Tier tier, int members, int groups) {
  const Shape s(p);
  Layout l{};
  l.rows = tier == Tier::steps ? launch_rows : row_group;
  l.members = members;
  l.groups = groups;
  l.unit_bits = log2_up(groups * group_units);
  l.padded_units = members * groups * group_units;
  l.operand_stride = round_up(s.pieces * l.padded_units * s.bytes, 128);
  l.tiles = ceil_div(s.pieces * l.padded_units, s.terms);
  l.splits = std::min(warps_at_most / groups, l.tiles);
  if (tier == Tier::steps) l.splits = warps_at_most;  // as many threads as the rows of a launch need
  l.tiles_per_warp = ceil_div(l.tiles, l.splits);
  if (!place(l, s, tier, gpu.shared_bytes)) return {};
  return l;
}

// Cycles that a warp takes for a unit of a row, beside products: for the formulas, for the sums of two more warps, to
// start its loads. Counted in what nvcc makes of the kernels: benchmarks/cuda.md.
struct Formulas {
  double element, two_splits, loads;
};
Formulas formulas_of(const Problem& p) {
  constexpr Formulas forward[] = {{350, 48, 110}, {815, 73, 130}, {547, 66, 130}};
  constexpr Formulas backward[] = {{230, 48, 130}, {438, 48, 240}, {316, 48, 250}};
  return (p.backward ? backward : forward)[int(p.cell)];
}

// Cycles of a step, to choose between layouts. Nobody has measured them yet.
double cycles(const Problem& p, const Gpu& gpu, Tier tier, const Layout& l) {
  const Shape s(p);
  const bool fma = p.product == ProductKind::fma, steps = tier == Tier::steps;
  const double newer = gpu.major == 9 || gpu.major == 10 ? 1.25 : 1,
               lanes = gpu.major == 8 && gpu.minor == 0 ? 64 : 128;
  const double per_cycle[] = {lanes, 512 * newer, 1024 * newer, 1024 * newer};  // multiplications of a multiprocessor
  const double l2 = 24, near = 14;  // bytes a cycle to each multiprocessor: where all read from L2; within clusters
  const double warps = l.groups * l.splits, rows = l.rows;
  const double passes = rows / (fma ? (steps ? 4 : 2) : (steps ? 32 : 8));  // over the weights

  const double terms = double(l.tiles_per_warp) * l.splits * s.terms;
  const double multiply = rows * l.groups * group_units * s.gates * terms / per_cycle[int(p.product)];
  const double chain = fma ? 0 : passes * (30 + 33.0 * l.tiles_per_warp / s.chains);
  const double operand = fma ? s.quads + 4 * l.tiles_per_warp : s.gates / 2.0 + l.tiles_per_warp / 4.0;
  const double shared = warps * (passes * l.shared_tiles * s.tile_bytes() / 128 + rows * operand);
  const double streamed = passes * warps * (l.tiles_per_warp - l.register_tiles - l.shared_tiles) * s.tile_bytes() / l2;
  const double product = std::max({multiply, chain, shared}) + streamed + 30;

  const Formulas f = formulas_of(p);
  const int elements = ceil_div(l.rows * l.groups * group_units, int(warps) * 32);
  const double pointwise = elements * (f.element + f.two_splits * ceil_div(l.splits, 2)), loads = elements * f.loads;

  const double bytes = rows * l.operand_stride, pushes = 100 + 25.0 * l.members;
  switch (tier) {
    case Tier::block:
      return product + pointwise + 60 + loads;
    case Tier::cluster:
      return product + pointwise + 30 + pushes + std::max(loads, 180 + std::max(0.0, bytes / near - pushes));
    case Tier::grid:  // four trips to L2, while one of which the loads are started
      return product + pointwise + 90 + 4 * 270 + std::max(375.0, bytes / l2) + std::max(0.0, loads - 270);
    default:
      return product + pointwise + 2800 + loads + bytes / l2;
  }
}

// How often the GPU is filled until all rows have had their turn.
int waves(const Problem& p, const Gpu& gpu, Tier tier, const Layout& l, int batch) {
  const int row_tiles = ceil_div(batch, l.rows);
  if (tier != Tier::grid) return ceil_div(row_tiles * p.directions * l.members, gpu.multiprocessors);
  return ceil_div(row_tiles, std::max(1, gpu.multiprocessors / (l.members * p.directions)));
}

// What is to be least, whatever the batch: cycles of few rows and, by the share of the GPU that a team takes, of many.
double cost(const Problem& p, const Gpu& gpu, Tier tier, const Layout& l) {
  const double of_rows = l.rows / row_group, share = double(l.members) * p.directions / gpu.multiprocessors;
  return cycles(p, gpu, tier, l) * (1 + share / of_rows);
}

std::optional<Layout> best(const Problem& p, const Gpu& gpu, Tier tier) {
  const int groups_of_all = ceil_div(p.hidden, group_units);
  const int fewest = tier == Tier::cluster ? 2 : 1;
  const int most = tier == Tier::block     ? 1
                   : tier == Tier::cluster ? gpu.cluster
                   : tier == Tier::grid    ? gpu.multiprocessors / p.directions
                                           : groups_of_all;
  std::optional<Layout> found;
  for (int groups = 1; groups <= (tier == Tier::steps ? 1 : warps_at_most); groups *= 2) {
    const int members = ceil_div(groups_of_all, groups);
    if (members < fewest || members > most) continue;
    const std::optional<Layout> l = lay_out(p, gpu, tier, members, groups);
    if (l && (!found || cost(p, gpu, tier, *l) < cost(p, gpu, tier, *found))) found = l;
  }
  return found;
}

// More rows to a team, up to what a block's threads and memory hold, where that takes less time in all. Which weights
// lie in registers and which in memory changes no bit.
void choose_rows(Layout& l, const Problem& p, const Gpu& gpu, Tier tier) {
  if (tier == Tier::steps) return;
  const Shape s(p);
  const auto time = [&](const Layout& of) { return waves(p, gpu, tier, of, p.batch) * cycles(p, gpu, tier, of); };
  for (Layout wider = l; 2 * wider.rows <= std::min(largest_rows, largest_batch_rows(l));) {
    wider.rows *= 2;
    if (!place(wider, s, tier, gpu.shared_bytes)) return;
    if (time(wider) < time(l)) l = wider;
  }
}

// Kernels count in 32 bits.
void require_32_bits(double count, const char* what, const char* instead) {
  if (count >= 4294967296.0)
    throw std::invalid_argument(std::string(what) + ": expected less than 2^32, got " + std::to_string(count) +
                                "; give " + instead);
}

const char* name(Tier tier) {
  const char* const names[] = {"block", "cluster", "grid", "steps"};
  return names[int(tier)];
}

}  // namespace

int gates_of(CellKind cell) { return cell == CellKind::rnn ? 1 : cell == CellKind::lstm ? 4 : 3; }
int element_bytes(ProductKind product) { return int(product) < 2 ? 4 : 2; }

Gpu known_gpu(int major, int minor, int multiprocessors) {
  const bool small = major == 12 || (major == 8 && minor > 0 && minor != 7);
  const int kilobytes = small ? 99 : major == 8 ? 163 : 227;
  return {major, minor, multiprocessors, kilobytes * 1024, major >= 9 ? 8 : 1};
}

Plan make_plan(const Problem& p, const Gpu& gpu, std::optional<Tier> forced, std::optional<int> rows) {
  if (p.steps < 1 || p.batch < 1 || p.hidden < 1 || p.directions < 1 || p.directions > 2)
    throw std::invalid_argument("expected at least one step, row and unit, and one or two directions");
  require_32_bits(double(p.steps) * p.batch * p.directions * 4 * p.hidden, "steps * batch * directions * 4 * hidden",
                  "fewer steps or rows at a time");
  require_32_bits(double(gates_of(p.cell)) * p.hidden * p.hidden, "gates * hidden * hidden", "fewer units");
  const Tier tiers[] = {Tier::block, Tier::cluster, Tier::grid, Tier::steps};
  std::optional<Layout> chosen;
  Tier tier{};
  for (Tier t : tiers) {
    if (forced && *forced != t) continue;
    const std::optional<Layout> l = best(p, gpu, t);
    if (l && (!chosen || cost(p, gpu, t, *l) < cost(p, gpu, tier, *chosen))) chosen = l, tier = t;
  }
  if (!chosen)
    throw std::invalid_argument("hidden " + std::to_string(p.hidden) + " does not fit the tier " +
                                (forced ? name(*forced) : "steps"));
  Plan plan{};
  plan.tier = tier;
  plan.layout = *chosen;
  Layout& l = plan.layout;
  if (rows && *rows != l.rows) {
    l.rows = *rows;
    if (tier == Tier::steps || *rows < row_group || *rows % row_group != 0 || *rows > largest_batch_rows(l) ||
        !place(l, Shape(p), tier, gpu.shared_bytes))
      throw std::invalid_argument("rows: " + std::to_string(*rows) + " to a team do not fit the tier " + name(tier));
  } else if (!rows) {
    choose_rows(l, p, gpu, tier);
  }
  plan.threads = l.groups * l.splits * 32;
  plan.row_tiles = ceil_div(p.batch, l.rows);
  const int teams = std::max(1, gpu.multiprocessors / (l.members * p.directions));
  plan.tiles_per_launch = tier == Tier::grid ? std::min(teams, plan.row_tiles) : plan.row_tiles;

  const Shape s(p);
  const auto aligned = [](std::size_t bytes) { return (bytes + 255) / 256 * 256; };
  plan.packed = 0;
  plan.exchange = aligned(std::size_t(p.directions) * (l.padded_units / group_units) * l.tiles * s.tile_bytes());
  const std::size_t teams_of_all = std::size_t(p.directions) * plan.row_tiles;
  const std::size_t exchange = teams_of_all * 2 * l.rows * l.operand_stride;
  require_32_bits(double(exchange), "batch * directions * bytes of a row's operand, twice", "fewer rows at a time");
  plan.flags = aligned(plan.exchange + exchange);
  plan.state = aligned(plan.flags + teams_of_all * l.members * 4);
  const std::size_t state = tier == Tier::steps ? std::size_t(2) * p.directions * p.batch * p.hidden * 4 : 0;
  plan.scratch_bytes = aligned(plan.state + state);
  return plan;
}

}  // namespace fusedrnn::cuda
