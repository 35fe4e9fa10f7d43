// Any recurrence as a program: a plan that Python made of one step (python/fusedrnn/scan), run over all steps and rows.
//
// A plan is data: stages of instructions, each of which reads and writes places. Rows are cut into teams, each of which
// a thread takes through a block of steps on its own. A team holds blocks of L rows, and a value of a block lies
// [width][L].
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "../kernels/program_table.hpp"

namespace fusedrnn {

// Memory that places lie in. Elements of `shared`, `kept_shared`, `constants` and the leaves are alike for all rows and
// lie [width]; of all others [width][L], a block apart.
enum Root : int64_t {
  scratch_root,      // dies with the step
  state_root,        // what the step before gave
  next_state_root,   // what this step gives
  row_root,          // lives as long as the call
  total_root,        // the same memory, where totals over steps are added up
  lifted_root,       // shared values with L copies of each element
  reserve_root,      // of this step: what forward keeps and backward reads
  kept_state_root,   // backward: the states before this step, of forward
  kept_next_root,    // backward: those after it
  kept_row_root,     // backward: forward's row memory
  shared_root,       // shared values of this call
  kept_shared_root,  // backward: those of forward
  constant_root,
  first_leaf_root  // the shared leaves, one root each
};

struct Place {
  int64_t root = -1, offset = 0;  // elements of a row; root -1: none
};

enum class Code : int64_t {
  group,       // elementwise, in chunks that stay in the L1 cache
  move,        // out, in
  sum,         // out, in
  inner,       // out, x, y
  max,         // out, in
  argmax,      // out, in
  argsort,     // out, in
  softmax,     // out, in
  recurrence,  // out, a, b
  product,     // out, a, b: within each row
  affine,      // out, x, bias: with shared weights
  gather,      // out, x, index
  scatter,     // out, x, index
  take,        // out, table, index
  put,         // out, x, index
  uniform,     // out
  load,        // out: from a sequence
  store,       // in: to a sequence
  accumulate,  // out, in: adds rows that still run
  count
};

struct GroupOp {
  int64_t code;  // an Elementwise; from `with_scalar` on a WithScalar; -1: a broadcast, whose source is a
  std::array<int64_t, 4> operands;  // out, a, b, c: a register from 0 on, -1 - i the i-th place; 0 for none
  double constant;
  Broadcast pattern;
};
constexpr int64_t with_scalar = 1000;

// A group's elements as `rows` of `size`: places move on by a stride from row to row. Many groups have one row.
struct Passes {
  int64_t rows, size;
  std::vector<int64_t> strides;  // of each place
  std::vector<GroupOp> ops;
};

struct Instruction {
  Code code;
  std::vector<Place> places;
  std::vector<Passes> passes;    // of a group: all elements in one row; where there is another, rows that are long
  std::vector<int64_t> numbers;  // what the code needs: program_stage.hpp reads them
  Move move{};
  RowProduct product{};
};

using Stage = std::vector<Instruction>;

// Weights of affine instructions: element (unit, k) at unit * stride_unit + k * stride_depth.
struct Packed {
  Place weights;
  int64_t units, depth, stride_unit, stride_depth;
};

// A shared value that instructions over rows read element by element.
struct Lifted {
  Place from;
  int64_t width, offset;
};

// A total over rows, computed over a block of steps at once from sequences [steps, rows, width] that the steps stored.
struct Deferred {
  enum Kind : int64_t { product, sum, put } kind;
  bool once;     // stored once by each row, after the steps, not at each step
  int64_t a, b;  // sequences: product: [m, columns] and [m, inputs]; put: x [n, width] and the index [n]
  int64_t m, columns, inputs;
  int64_t offset, bias_offset;  // in the shared memory: [columns, inputs], and where not -1 the sum of a [columns]
};

struct Plan {
  Stage shared_before, row_before, step, row_after, shared_after;
  // Widths, elements of a row; of `row` the last `totals` are added up and zero at first.
  int64_t scratch, state, row, totals, lifted, shared, reserve, registers;
  std::vector<double> constants;
  std::vector<int64_t> state_widths, state_offsets;
  std::vector<int64_t> leaves;                // widths of the shared leaves
  std::vector<int64_t> inputs, rows;          // widths of sequences [T, N, w] and of arrays [N, w] that are read
  std::vector<int64_t> outputs, row_outputs;  // likewise, written
  std::vector<Place> shared_outputs;
  std::vector<int64_t> shared_output_widths, deferred_widths;
  std::vector<bool> deferred_once;
  std::vector<Packed> packed;
  std::vector<Lifted> lifts;
  std::vector<Deferred> deferred;
  int64_t lanes_from;  // rows from which a block of lanes is faster than rows one by one
  double flops;        // of one step of one row
};

// Reads what python/fusedrnn/scan/encode.py wrote; std::invalid_argument where it makes no sense.
Plan read_plan(const int64_t* code, int64_t size, std::vector<double> constants);

// Some rows that a thread takes through the steps together.
struct Team {
  int64_t row, rows, lanes, blocks;
  int64_t padded;  // rows of all teams before it, their last block's padding included
};

// Even teams for the batch, of `program_lanes` rows a block where that pays. lanes: forces 1 or 16; 0: chosen.
std::vector<Team> make_teams(const Plan& plan, int64_t batch, int64_t lanes);
int64_t padded_rows(const std::vector<Team>& teams);

template <class T>
struct ProgramCall {
  const Plan* plan;
  std::vector<Team> teams;
  int64_t steps, batch;
  const int64_t* lengths;  // [N] or null
  bool reverse;            // walk from the last step to the first
  uint64_t seed;
  uint32_t row_offset, step_offset;
  int64_t chunk;  // elements of a group's pass; 0: chosen

  std::vector<const T*> shared;                                      // leaves
  std::vector<const T*> rows;                                        // [N, w]
  std::vector<const T*> states;                                      // [N, w], or null for zeros
  std::vector<const T*> inputs;                                      // [T, N, w], or null for zeros
  std::vector<T*> new_states, outputs, row_outputs, shared_outputs;  // null: not wanted

  // Forward in training writes them, backward reads them; null otherwise. R: the rows of all teams, padded.
  T* kept_states;   // [T + 1][R][state], each team's apart: [T + 1][blocks][state][L]; or checkpoints of them
  T* kept_reserve;  // [T][R][reserve], each team's apart
  T* kept_rows;     // [R][row]
  T* kept_shared;   // [shared]

  // Forward with recompute keeps states at every so many steps alone, and no reserve; 0: all.
  int64_t checkpoint;
  // Backward: the plan and arguments of the forward call, whose kept_* are those above.
  const ProgramCall* forward;
};

// Packed weights and the shared values before the steps: made in each call, or once for many calls of few steps. The
// plan and the leaves must outlive it, and the leaves not change.
template <class T>
struct FrozenProgram;
template <class T>
std::shared_ptr<FrozenProgram<T>> freeze_program(const Plan& plan, const std::vector<const T*>& shared);

template <class T>
void run_program(const ProgramCall<T>& call, const FrozenProgram<T>* frozen);

// Steps of a block of totals, from the batch alone, so that the cut of a sum depends on nothing else.
int64_t total_block(int64_t batch);

}  // namespace fusedrnn
