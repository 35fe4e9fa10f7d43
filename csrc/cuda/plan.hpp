// How a pass is laid out on a GPU: which blocks compute what, and where the weights stay. Host code that knows no CUDA.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "arguments.hpp"

namespace fusedrnn::cuda {

enum class CellKind { rnn, lstm, gru };
enum class ProductKind { fma, tf32, bfloat16, float16 };

// From the smallest circle of threads that must meet at each step to the widest.
//   block     one block, nothing leaves it
//   cluster   the blocks of a thread-block cluster (sm_90 and later) push their part into each other's shared memory
//   grid      blocks that are resident together hand it over through global memory
//   steps     a launch for every step: any size
enum class Tier { block, cluster, grid, steps };

// What a plan needs to know of a GPU.
struct Gpu {
  int major, minor;     // compute capability
  int multiprocessors;  // each holds one block: its registers are full
  int shared_bytes;     // of a block, at most
  int cluster;          // blocks of a cluster, at most; 1: there are none
};
// A GPU of which only the compute capability is known: that architecture's figures, with `multiprocessors`.
Gpu known_gpu(int major, int minor, int multiprocessors);

struct Problem {
  CellKind cell;
  ProductKind product;
  bool backward;
  int steps, batch, hidden, directions;
};

struct Plan {
  Tier tier;
  Layout layout;
  int threads;           // of a block
  int row_tiles;         // teams to a direction
  int tiles_per_launch;  // of these that one launch takes
  // Scratch memory: offsets in bytes, and its size.
  std::size_t packed, exchange, flags, state, scratch_bytes;
};

int gates_of(CellKind);
int element_bytes(ProductKind);

// Throws std::invalid_argument where the problem has no plan; the message names the size that does not fit. With a
// tier, that one or none. The order in which a sum's terms are added follows from cell, product, hidden and GPU alone,
// so that a row's result does not depend on the batch it is in.
Plan make_plan(const Problem&, const Gpu&, std::optional<Tier> = {}, std::optional<int> rows = {});

}  // namespace fusedrnn::cuda
