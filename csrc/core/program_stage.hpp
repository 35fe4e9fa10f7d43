// One stage of a program over the blocks of a team: the interpreter.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "dispatch.hpp"
#include "program.hpp"
#include "program_places.hpp"

namespace fusedrnn {

// Rows of a user's array, or of a buffer of totals, at one step: [N, width].
template <class T>
struct SequenceRows {
  T* data = nullptr;  // of the team's first row; null: reads as zeros, and is not written
  int64_t stride = 0;
};

// Where a team is: memory of every root at this step, and the sequences.
template <class T>
struct Frame {
  int64_t lanes, blocks, rows;
  std::vector<T*> base;         // of each root, the team's first block
  std::vector<int64_t> stride;  // from block to block, elements
  std::vector<SequenceRows<const T>> read;
  std::vector<SequenceRows<T>> written;
  const T* alive = nullptr;  // [blocks][L], zero for rows whose sequence is over; null: all run
  T* registers;              // [plan.registers][chunk + a vector]
  int64_t chunk;
  uint64_t seed;
  uint32_t row, step;  // of the whole batch and sequence: where random numbers are
  std::atomic<bool>* bad_index;

  T* at(const Place& p, int64_t block) const {
    const auto root = std::size_t(p.root);
    return base[root] + block * stride[root] + p.offset * (p.root >= shared_root ? 1 : lanes);
  }
  const T* alive_of(int64_t block) const { return alive ? alive + block * lanes : nullptr; }
  int64_t rows_of(int64_t block) const { return std::min(lanes, rows - block * lanes); }
};

constexpr int64_t register_slack = 16;  // elements that a kernel may read past a register's chunk

// Packed weights, for rows of L = 1 and for lanes.
template <class T>
struct PackedPair {
  const T* panels = nullptr;
  const T* tiles = nullptr;
};

template <class T>
class Interpreter {
 public:
  Interpreter(const KernelTable<T>& kernels, const ProgramKernels<T>& program, const std::vector<Packed>& packed,
              const std::vector<PackedPair<T>>& weights)
      : kernels_(kernels), program_(program), packed_(packed), weights_(weights) {}

  // Products with shared weights take all blocks of the team at once; what stands between two of them goes block by
  // block, while a block's values are near.
  void run(const Stage& stage, const Frame<T>& f) const {
    for (std::size_t i = 0; i < stage.size();) {
      if (stage[i].code == Code::affine) {
        affine(stage[i], f);
        ++i;
        continue;
      }
      std::size_t last = i;
      while (last < stage.size() && stage[last].code != Code::affine) ++last;
      for (int64_t block = 0; block < f.blocks; ++block)
        for (std::size_t k = i; k < last; ++k) one(stage[k], f, block);
      i = last;
    }
  }

 private:
  using Lanes = typename ProgramKernels<T>::ForLanes;

  static constexpr int64_t fill = int64_t(Elementwise::fill);

  // Rows shorter than this do not pay.
  static constexpr int64_t long_row = 16;

  void group(const Instruction& in, const Frame<T>& f, int64_t block) const {
    constexpr std::size_t most_places = 64;  // python/fusedrnn/scan/schedule.py cuts groups that have more
    T* memory[most_places];
    for (std::size_t i = 0; i < in.places.size(); ++i) memory[i] = f.at(in.places[i], block);
    const bool by_rows = in.passes.size() > 1 && in.passes[1].size * f.lanes >= long_row;
    const Passes& passes = in.passes[by_rows];
    if (passes.rows == 1 && passes.size * f.lanes <= f.chunk) return one_chunk(passes, memory, f);
    chunks(passes, memory, f);
  }

  // A group whose elements fit the registers.
  void one_chunk(const Passes& passes, T* const* memory, const Frame<T>& f) const {
    const Lanes& lanes = program_.lanes[f.lanes != 1];
    const int64_t count = passes.size * f.lanes, length = f.chunk + register_slack;
    const auto operand = [&](int64_t o) { return o >= 0 ? f.registers + o * length : memory[-1 - o]; };
    constexpr ElementRows one{1, 0, 0, 0, 0};
    for (const GroupOp& op : passes.ops) {
      const auto& o = op.operands;
      if (op.code < 0)
        lanes.broadcast(operand(o[0]), operand(o[1]), op.pattern, 0, passes.size);
      else if (op.code < with_scalar)
        program_.elementwise[op.code](operand(o[0]), operand(o[1]), operand(o[2]), operand(o[3]), T(op.constant), count,
                                      one);
      else
        lanes.with_scalar[op.code - with_scalar](operand(o[0]), operand(o[1]), operand(o[2]), operand(o[3]), T(0),
                                                 count, one);
    }
  }

  // Takes as many rows of a group's elements at once as its registers hold, or as much of one.
  void chunks(const Passes& passes, T* const* memory, const Frame<T>& f) const {
    const Lanes& lanes = program_.lanes[f.lanes != 1];
    const int64_t size = passes.size * f.lanes, together = std::max<int64_t>(1, f.chunk / std::max<int64_t>(1, size)),
                  length = f.chunk + register_slack;
    for (int64_t row = 0; row < passes.rows; row += together) {
      const int64_t rows = std::min(together, passes.rows - row);
      for (int64_t first = 0; first < size; first += f.chunk) {
        const int64_t count = std::min(f.chunk, size - first);
        const auto stride = [&](int64_t o) { return o >= 0 ? count : passes.strides[std::size_t(-1 - o)] * f.lanes; };
        const auto at_row = [&](int64_t o) { return memory[-1 - o] + row * stride(o); };
        const auto operand = [&](int64_t o) { return o >= 0 ? f.registers + o * length : at_row(o) + first; };
        if (f.lanes != 1) expect_next(passes, memory, row * size + first + rows * count, rows * count);
        for (const GroupOp& op : passes.ops) {
          const auto& o = op.operands;
          T* const out = operand(o[0]);
          if (op.code < 0) {
            lanes.broadcast(out, memory[-1 - o[1]], op.pattern, (row * size + first) / f.lanes, rows * count / f.lanes);
            continue;
          }
          // A register with a constant keeps it: the first chunk is the longest.
          if (op.code == fill && o[0] >= 0 && (row || first)) continue;
          const ElementRows steps{rows, stride(o[0]), stride(o[1]), stride(o[2]), stride(o[3])};
          const bool scalar = op.code >= with_scalar;
          const T* const b = scalar ? at_row(o[2]) : operand(o[2]);
          (scalar ? lanes.with_scalar[op.code - with_scalar] : program_.elementwise[op.code])(
              out, operand(o[1]), b, operand(o[3]), T(op.constant), count, steps);
        }
      }
    }
  }

  void expect_next(const Passes& passes, T* const* memory, int64_t from, int64_t count) const {
    for (std::size_t i = 0; i < passes.strides.size(); ++i)
      if (passes.strides[i] == passes.size)
        for (int64_t e = 0; e < count; e += 64 / int64_t(sizeof(T))) __builtin_prefetch(memory[i] + from + e);
  }

  void affine(const Instruction& in, const Frame<T>& f) const {
    const auto& n = in.numbers;
    const auto index = std::size_t(n[0]);
    const int64_t m = n[1];
    const bool add = n[2] != 0;
    const Packed& weights = packed_[index];
    const Place &out = in.places[0], &x = in.places[1], &bias = in.places[2];
    const T* const start = bias.root < 0 ? nullptr : f.at(bias, 0);
    if (f.lanes != 1) {
      program_.lane_affine({f.blocks, m, weights.units, weights.depth, f.at(x, 0), f.stride[std::size_t(x.root)],
                            weights_[index].tiles, start, add, f.at(out, 0), f.stride[std::size_t(out.root)]});
      return;
    }
    // Without a bias the kernel starts from zero when it is not told to accumulate.
    AffineStep<T> step{.rows = f.blocks,
                       .units = weights.units,
                       .part = {},
                       .x = {f.at(x, 0), f.stride[std::size_t(x.root)], weights_[index].panels, weights.depth},
                       .bias = start,
                       .accumulate = add,
                       .out = f.at(out, 0),
                       .out_stride = f.stride[std::size_t(out.root)]};
    if (m == 1) return kernels_.affine(step);
    step.rows = m;
    step.x.stride = weights.depth;
    step.out_stride = weights.units;
    for (int64_t block = 0; block < f.blocks; ++block) {
      step.x.rows = f.at(x, block);
      step.out = f.at(out, block);
      kernels_.affine(step);
    }
  }

  void one(const Instruction& in, const Frame<T>& f, int64_t block) const {
    const Lanes& lanes = program_.lanes[f.lanes != 1];
    const auto& n = in.numbers;
    const auto at = [&](std::size_t i) { return f.at(in.places[i], block); };
    const auto axis = [&] { return Axis{n[0], n[1], n[2]}; };
    const auto place = [&](int64_t size) { return Places<T>{size, f.lanes, f.alive_of(block), *f.bad_index}; };
    switch (in.code) {
      case Code::group:
        return group(in, f, block);
      case Code::move:
        return lanes.move(at(0), at(1), in.move);
      case Code::sum:
        return lanes.sum(at(0), at(1), axis());
      case Code::inner:
        return lanes.inner(at(0), at(1), at(2), axis());
      case Code::max:
        return lanes.max(at(0), at(1), axis());
      case Code::argmax:
        return lanes.argmax(at(0), at(1), axis());
      case Code::argsort:
        return lanes.argsort(at(0), at(1), axis());
      case Code::softmax:
        return lanes.softmax(at(0), at(1), axis());
      case Code::recurrence:
        return lanes.recurrence(at(0), at(1), at(2), axis(), n[3] != 0);
      case Code::product:
        return lanes.product(at(0), at(1), at(2), in.product);
      case Code::gather:
        return gather(at(0), at(1), at(2), axis(), place(n[3]));
      case Code::scatter:
        return scatter(at(0), at(1), at(2), axis(), place(n[3]));
      case Code::take:
        return take(at(0), at(1), at(2), n[0], n[2], in.places[1].root >= shared_root && f.lanes != 1, place(n[1]));
      case Code::put:
        return put(at(0), at(1), at(2), n[0], n[2], place(n[1]));
      case Code::uniform:
        return lanes.uniform(at(0), n[0], f.seed, f.row + uint32_t(block * f.lanes), f.step, uint32_t(n[1]));
      case Code::load: {
        const SequenceRows<const T>& s = f.read[std::size_t(n[0])];
        if (!s.data) return zero(at(0), n[1] * f.lanes);
        return lanes.load(at(0), s.data + block * f.lanes * s.stride, s.stride, f.rows_of(block), n[1],
                          n[2] ? f.alive_of(block) : nullptr);
      }
      case Code::store: {
        const SequenceRows<T>& s = f.written[std::size_t(n[0])];
        if (!s.data) return;
        return lanes.store(s.data + block * f.lanes * s.stride, s.stride, f.rows_of(block), at(0), n[1],
                           n[2] ? f.alive_of(block) : nullptr);
      }
      case Code::accumulate: {
        T* const out = at(0);
        const T* const x = at(1);
        const T* const alive = f.alive_of(block);
        if (!alive)
          return program_.elementwise[int(Elementwise::add)](out, out, x, nullptr, T(0), n[0] * f.lanes,
                                                             {1, 0, 0, 0, 0});
        for (int64_t i = 0; i < n[0]; ++i)
          for (int64_t l = 0; l < f.lanes; ++l)
            if (alive[l] != T(0)) out[i * f.lanes + l] += x[i * f.lanes + l];
        return;
      }
      case Code::affine:
      case Code::count:
        return;
    }
  }

  const KernelTable<T>& kernels_;
  const ProgramKernels<T>& program_;
  const std::vector<Packed>& packed_;
  const std::vector<PackedPair<T>>& weights_;
};

}  // namespace fusedrnn
