// The product of a step: a warp's weights, 16 units of each gate, times the operand that all blocks of a team send each
// other: h of the step before, or backward the gates' gradients of the step after.
//
// The weights stay where they are for all steps, in registers, then in shared memory; what fits neither is read from
// the L2 cache. They are packed (prepare.cuh) such that a lane finds its part of a tile in whole Quads.
#pragma once

#include <device.hpp>

#include "arguments.hpp"

namespace fusedrnn::cuda {

using device::Pair;
using device::Quad;
using device::Shared;

// The operand [rows, terms] in the shared memory of the block,
struct SharedOperand {
  Shared data;
  int stride;  // bytes
  template <class T>
  FUSEDRNN_DEVICE T load(int row, int byte) const {
    return device::load_shared<T>(data + row * stride + byte);
  }
};

// or where the launch before left it.
struct GlobalOperand {
  const char* data;
  int stride;
  template <class T>
  FUSEDRNN_DEVICE T load(int row, int byte) const {
    return device::load_constant(reinterpret_cast<const T*>(data + row * stride + byte));
  }
};

// A warp's sums of a row group: [gates, row_group, partial_stride] floats.
constexpr int partial_gate = row_group * partial_stride;
template <int gates>
constexpr int partial_floats = gates * partial_gate;

FUSEDRNN_DEVICE void store_partial(Shared partial, int gates, int row, int gate, int unit, float sum) {
  const int group = row / row_group * gates + gate;
  device::store_shared(partial + 4 * (group * partial_gate + row % row_group * partial_stride + unit), sum);
}

// Products in tensor cores. S names the numbers: bfloat16, float16, or float for TF32.
//
// The terms of a tile are taken in an order of our own, so that a lane's share of b lies together: the columns that it
// holds of a, and rows of b, are 4q to 4q + 3 of bfloat16 and 2q, 2q + 1 of TF32.
template <class S, int gates, int row_groups>
struct TensorCores {
  static constexpr int quads = gates;      // of a lane's part of a tile
  static constexpr int kept = 32 / quads;  // tiles that registers hold beside all else
  static constexpr int rows = row_groups * row_group;
  static constexpr int chains = gates == 1 ? 4 : 1;  // one after another, sums of one gate would wait for each other

  float sums[row_groups][chains][gates][4] = {};

  // Adds `count` tiles from `tile` on, the first of them to `chain`. a(c, i): the lane's i-th Quad of the c-th tile.
  template <int count, class A, class Operand>
  FUSEDRNN_DEVICE void add(int chain, A a, const Operand& operand, int row, int tile, int end) {
    const int lane = device::lane();
    Pair b[count][row_groups];  // all on their way before the first is needed
    FUSEDRNN_UNROLL
    for (int c = 0; c < count; ++c) {
      FUSEDRNN_UNROLL
      for (int n = 0; n < row_groups; ++n)
        if (n == 0 || row + n * row_group < end)
          b[c][n] = operand.template load<Pair>(row + n * row_group + lane / 4, (tile + c) * 32 + lane % 4 * 8);
    }
    FUSEDRNN_UNROLL
    for (int c = 0; c < count; ++c) {
      FUSEDRNN_UNROLL
      for (int g = 0; g < gates; ++g) {
        const Quad weights = a(c, g);
        FUSEDRNN_UNROLL
        for (int n = 0; n < row_groups; ++n)
          if (n == 0 || row + n * row_group < end) device::mma(sums[n][(chain + c) % chains][g], weights, b[c][n], S{});
      }
    }
  }

  FUSEDRNN_DEVICE void store(Shared partial, int row, int end) {
    const int unit = device::lane() / 4, column = device::lane() % 4 * 2;
    FUSEDRNN_UNROLL
    for (int n = 0; n < row_groups; ++n) {
      if (n > 0 && row + n * row_group >= end) break;
      FUSEDRNN_UNROLL
      for (int g = 0; g < gates; ++g) {
        FUSEDRNN_UNROLL
        for (int i = 0; i < 4; ++i) {
          float sum = sums[n][0][g][i];
          FUSEDRNN_UNROLL
          for (int c = 1; c < chains; ++c) sum += sums[n][c][g][i];
          store_partial(partial, gates, row + n * row_group + column + i % 2, g, unit + i / 2 * 8, sum);
        }
      }
    }
  }
};

// Products in float32. A lane holds 4 of the 16 units and 4 of the 32 terms of each gate's tile: lane / 8 and lane % 8.
template <int gates, int row_groups>
struct FusedMultiplyAdd {
  static constexpr int quads = 4 * gates;
  static constexpr int kept = 20 / quads;
  static constexpr int rows = row_groups > 1 ? 4 : 2;
  static constexpr int chains = 1;

  float sums[rows][quads] = {};

  template <int count, class A, class Operand>
  FUSEDRNN_DEVICE void add(int, A a, const Operand& operand, int row, int tile, int) {
    FUSEDRNN_UNROLL
    for (int c = 0; c < count; ++c) {
      Quad b[rows];
      FUSEDRNN_UNROLL
      for (int r = 0; r < rows; ++r)
        b[r] = operand.template load<Quad>(row + r, (tile + c) * 128 + device::lane() % 8 * 16);
      FUSEDRNN_UNROLL
      for (int i = 0; i < quads; ++i) {
        const Quad weights = a(c, i);
        FUSEDRNN_UNROLL
        for (int r = 0; r < rows; ++r) {
          FUSEDRNN_UNROLL
          for (int j = 0; j < 4; ++j)
            sums[r][i] = device::fma(device::float_of(weights.word[j]), device::float_of(b[r].word[j]), sums[r][i]);
        }
      }
    }
  }

  FUSEDRNN_DEVICE void store(Shared partial, int row, int) {
    FUSEDRNN_UNROLL
    for (int r = 0; r < rows; ++r) reduce<quads, 4>(sums[r], 0, true, partial, row + r);
  }

 private:
  // The sums of eight lanes. Lanes that differ in `mask` each keep half of the sums, while these can be halved.
  template <int count, int mask>
  static FUSEDRNN_DEVICE void reduce(float* sums, int first, bool mine, Shared partial, int row) {
    const int lane = device::lane();
    if constexpr (mask == 0) {
      if (!mine) return;
      FUSEDRNN_UNROLL
      for (int i = 0; i < count; ++i)
        store_partial(partial, gates, row, (first + i) / 4, lane / 8 * 4 + (first + i) % 4, sums[i]);
    } else if constexpr (count % 2 == 0) {
      constexpr int half = count / 2;
      const bool upper = lane & mask;
      FUSEDRNN_UNROLL
      for (int i = 0; i < half; ++i) {
        const float kept = upper ? sums[half + i] : sums[i], given = upper ? sums[i] : sums[half + i];
        sums[i] = kept + device::shuffle_xor(given, mask);
      }
      reduce<half, mask / 2>(sums, upper ? first + half : first, mine, partial, row);
    } else {
      FUSEDRNN_UNROLL
      for (int i = 0; i < count; ++i) sums[i] += device::shuffle_xor(sums[i], mask);
      reduce<count, mask / 2>(sums, first, mine && !(lane & mask), partial, row);
    }
  }
};

// What a product is made of: numbers of type Storage in memory, tiles of `terms` terms.
struct Fma {
  using Storage = float;
  static constexpr int terms = 32;
  template <int gates, int row_groups>
  using Tile = FusedMultiplyAdd<gates, row_groups>;
  static FUSEDRNN_DEVICE float operand(float x) { return x; }
};
struct Tf32 {
  using Storage = float;
  static constexpr int terms = 8;
  template <int gates, int row_groups>
  using Tile = TensorCores<float, gates, row_groups>;
  static FUSEDRNN_DEVICE float operand(float x) { return device::to_tf32(x); }
};
template <class S>
struct Half {
  using Storage = S;
  static constexpr int terms = 16;
  template <int gates, int row_groups>
  using Tile = TensorCores<S, gates, row_groups>;
  static FUSEDRNN_DEVICE S operand(float x) { return device::from_float<S>(x); }
};
using Bfloat16 = Half<device::bfloat16>;
using Float16 = Half<device::float16>;

// A warp's weights, of 16 units and its share of the terms, which it takes some tiles at a time. Tile i goes to chain
// i % chains wherever it lies, so that its place changes no bit: the plan keeps a multiple of that many tiles in
// registers and in shared memory.
template <class Product, int gates, bool resident>
class Weights {
  static constexpr int row_groups = resident ? 1 : 4;
  using Tile = typename Product::template Tile<gates, row_groups>;
  static constexpr int kept = resident ? Tile::kept : 1;
  static constexpr int from_registers = kept < 4 ? kept : 4;  // at a time
  static constexpr int from_shared = Tile::chains;
  static constexpr int streamed = resident ? Tile::chains : Tile::quads > 4 ? 1 : 4;  // on their way from memory

 public:
  // group: of the team's units; split: of its terms.
  FUSEDRNN_DEVICE Weights(const Arguments& p, int direction, int group, int split) {
    const Layout& l = p.layout;
    const int warp = device::thread() / device::warp_lanes, lane = device::lane();
    first_ = split * l.tiles_per_warp;
    count_ = l.tiles - first_ < l.tiles_per_warp ? l.tiles - first_ : l.tiles_per_warp;
    const int64_t groups = l.padded_units / group_units;
    memory_ = static_cast<const Quad*>(p.packed) +
              ((direction * groups + group) * l.tiles + first_) * (Tile::quads * device::warp_lanes) + lane;
    shared_ = l.weights + 16 * ((warp * l.shared_tiles) * Tile::quads * device::warp_lanes + lane);
    if constexpr (!resident) return;
    in_registers_ = l.register_tiles < count_ ? l.register_tiles : count_;
    in_shared_ = l.register_tiles + l.shared_tiles < count_ ? l.register_tiles + l.shared_tiles : count_;
    FUSEDRNN_UNROLL
    for (int i = 0; i < kept; ++i)
      if (i < in_registers_) {
        FUSEDRNN_UNROLL
        for (int j = 0; j < Tile::quads; ++j) registers_[i][j] = in_memory(i, j);
      }
    FUSEDRNN_ROLLED
    for (int i = in_registers_; i < in_shared_; ++i) {
      FUSEDRNN_UNROLL
      for (int j = 0; j < Tile::quads; ++j) device::store_shared(in_shared(i, j), in_memory(i, j));
    }
  }

  // The sums [rows, gates, 16] over this warp's terms, to its part of `partial`. Rows up to the next multiple of
  // row_group are read too.
  template <class Operand>
  FUSEDRNN_DEVICE void multiply(const Operand& operand, int rows, Shared partial) const {
    FUSEDRNN_ROLLED
    for (int row = 0; row < rows; row += Tile::rows) {
      Tile tile;
      int i = 0;
      if constexpr (resident) {
        FUSEDRNN_UNROLL
        for (int r = 0; r < kept; r += from_registers)
          add<from_registers>(
              tile, in_registers_ - r, [&](int c, int j) { return registers_[r + c < kept ? r + c : 0][j]; }, operand,
              row, r, rows);
        FUSEDRNN_ROLLED
        for (i = in_registers_; i < in_shared_; i += from_shared)
          add<from_shared>(
              tile, in_shared_ - i, [&](int c, int j) { return device::load_shared<Quad>(in_shared(i + c, j)); },
              operand, row, i, rows);
        i = in_shared_;
      }
      FUSEDRNN_ROLLED
      for (; i < count_; i += streamed) {
        if constexpr (resident) {
          add<streamed>(tile, count_ - i, [&](int c, int j) { return in_memory(i + c, j); }, operand, row, i, rows);
        } else {
          Quad a[streamed][Tile::quads];
          FUSEDRNN_UNROLL
          for (int c = 0; c < streamed; ++c) {
            FUSEDRNN_UNROLL
            for (int j = 0; j < Tile::quads; ++j)
              if (i + c < count_) a[c][j] = in_memory(i + c, j);
          }
          add<streamed>(tile, count_ - i, [&](int c, int j) { return a[c][j]; }, operand, row, i, rows);
        }
      }
      tile.store(partial, row, rows);
    }
  }

 private:
  // Adds tiles from `tile` on, `count` or the `left` that there are.
  template <int count, class A, class Operand>
  FUSEDRNN_DEVICE void add(Tile& sums, int left, A a, const Operand& operand, int row, int tile, int rows) const {
    if (left >= count) {
      sums.template add<count>(0, a, operand, row, first_ + tile, rows);
      return;
    }
    FUSEDRNN_UNROLL
    for (int c = 0; c + 1 < count; ++c)
      if (c < left) sums.template add<1>(c, [&](int, int j) { return a(c, j); }, operand, row, first_ + tile + c, rows);
  }

  FUSEDRNN_DEVICE Quad in_memory(int tile, int quad) const {
    return device::load_constant(memory_ + (tile * Tile::quads + quad) * device::warp_lanes);
  }
  FUSEDRNN_DEVICE Shared in_shared(int tile, int quad) const {
    return shared_ + 16 * (((tile - in_registers_) * Tile::quads + quad) * device::warp_lanes);
  }

  Quad registers_[kept][Tile::quads];
  const Quad* memory_;
  Shared shared_;
  int first_, count_, in_registers_ = 0, in_shared_ = 0;
};

}  // namespace fusedrnn::cuda
