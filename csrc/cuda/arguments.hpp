// What a pass over a sequence takes: the arrays with their shapes, and how the plan lays the pass out on the chip.
//
// T steps, N rows of the batch, D directions, H units, G gates (RNN 1, LSTM 4, GRU 3). S is the storage type: float,
// bfloat16 or float16. A team is the blocks that compute one direction of some rows of the batch together.
#pragma once

#include <cstdint>

namespace fusedrnn::cuda {

constexpr int group_units = 16;     // units to a warp: the rows of a tensor core's tile
constexpr int row_group = 8;        // rows of the batch to a product: the columns of that tile
constexpr int block_threads = 256;  // at most
constexpr int thread_elements = 4;  // units of rows whose state a thread keeps, at most
constexpr int partial_stride = 20;  // floats from a row of a warp's sums to the next: no two lanes meet in a bank

struct Layout {
  int rows;            // of the batch to a team, a multiple of row_group
  int members;         // blocks of a team
  int groups;          // of units to a block: a power of two
  int unit_bits;       // log2 of a block's units
  int splits;          // warps that share the terms of a group's sums
  int padded_units;    // members * groups * group_units
  int operand_stride;  // bytes from a row of the operand in global memory to the next: its terms padded to 128 bytes
  int tiles;           // of the operand's terms, in the sums of a group
  int tiles_per_warp;  // ceil(tiles / splits)
  int register_tiles;  // of these, kept in registers,
  int shared_tiles;    // and in shared memory; the others are read from memory at each step
  // Shared memory of a block, in bytes from its beginning; the operand's buffers come first.
  int partial, weights, barriers, shared_bytes;
};

struct Arguments {
  Layout layout;
  int steps, batch, hidden, directions;
  int first_tile;          // the first of the row tiles of this launch
  int first_step;          // Of a pass in one launch 0 and `steps`; else this launch's, counted in the order of
  int last_step;           // the walk: backward takes step T - 1 first, as turn 0.
  uint32_t reverse;        // bit d: direction d walks from the end to the beginning
  bool relu;               // of the RNN
  const int32_t* lengths;  // [N] or null

  // Forward
  const void* gates_x;  // S [T, N, D, GH]: x weight_ih' + bias_ih + bias_hh, without the GRU's bias_hn
  const void* weight;   // S [D, GH, H]: weight_hh
  const void* bias_hn;  // S [D, H] of the GRU, or null
  const void *h0, *c0;  // S [D, N, H] or null: zeros
  void* y;              // S [T, N, D, H]; backward reads it
  void *h_n, *c_n;      // S [D, N, H]
  void* gates;          // S [T, N, D, 4H] or null: LSTM i, f, g, o; GRU r, z, n, W_hn h + b_hn; RNN nothing
  float* cells;         // [T, N, D, H] or null: c of the LSTM

  // Backward
  const void *dy, *dh_n, *dc_n;  // as y, h_n, c_n; any may be null
  void* dgates;                  // S [T, N, D, H], LSTM 4H; GRU 4H: of r, z, n, and of W_hn h + b_hn
  void *dh0, *dc0;               // S [D, N, H]

  // Scratch
  void* packed;     // Quad [D, padded_units / 16, tiles, quads of a tile, 32]
  char* exchange;   // [D, row_tiles of the batch, 2, rows, operand_stride]: the operand, by the turn's last bit
  uint32_t* flags;  // [D, row_tiles of the batch, members]: the turn for which a member has sent its part
  float* state;     // [2, D, N, H]: h and c, or dh and dc, from launch to launch
};

}  // namespace fusedrnn::cuda
