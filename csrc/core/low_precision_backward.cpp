#include "dispatch.hpp"
#include "gemm.hpp"
#include "low_precision.hpp"

namespace fusedrnn {
namespace {

// [columns, rows] of an array [rows, columns].
float* transposed(const KernelTable<float>& k, Scratch& scratch, Rows<const float> from, int64_t rows,
                  int64_t columns) {
  constexpr int64_t piece = 64;
  float* const to = scratch.take<float>(rows * columns);
  parallel_for((columns + piece - 1) / piece, flops_per_element_moved * double(rows * columns), [&](int64_t i) {
    const int64_t c = i * piece, count = std::min(piece, columns - c);
    k.transpose({rows, count, from.data + c, from.stride, to + c * rows, rows, rows, false});
  });
  return to;
}

// A product's share of the rows for each thread.
void multiply_all(const LowPrecisionWeights& weights, int64_t rows, double flops_per_row, Rows<const float> x,
                  const float* bias, Rows<float> out) {
  parallel_rows(rows, flops_per_row * double(rows), [&](int64_t a, int64_t b) {
    weights.multiply(b - a, {}, {x.at(a), x.stride}, bias, {out.at(a), out.stride});
  });
}

// The gates' gradients of a block [rows, columns], on their side: what they are multiplied by for gradients of weights.
class WeightGradients {
 public:
  WeightGradients(const KernelTable<float>& k, Rows<const float> dgates, int64_t rows, int64_t columns)
      : k_(k), rows_(rows), dgates_(transposed(k, scratch_, dgates, rows, columns)) {}

  // dweight [count, size] += of the columns from `column` on, and of `rows` rows from `row` on with inputs [rows,
  // size].
  struct Part {
    int64_t column, count;
    float* dweight;
  };
  void add(int64_t row, int64_t rows, const float* inputs, int64_t size, std::initializer_list<Part> parts) const {
    Scratch scratch;
    const LowPrecisionWeights factor(scratch, low_precision_kernels(), Precision::bfloat16, size, rows,
                                     transposed(k_, scratch, {inputs, size}, rows, size));
    for (const Part& p : parts)
      multiply_all(factor, p.count, 2.0 * double(rows * size), {dgates_ + p.column * rows_ + row, rows_}, nullptr,
                   {p.dweight, size});
  }

 private:
  const KernelTable<float>& k_;
  Scratch scratch_;
  int64_t rows_;
  const float* dgates_;  // [columns, rows]
};

}  // namespace

// As the backward of the plain cells, with products of their own into memory: of the following step's gradients with
// weight_hh, from where the step kernels go on, and over a block for dx and the gradients of weights.
void low_precision_backward(const LowPrecisionBackward& p) {
  const KernelTable<float>& k = kernels<float>();
  const int64_t T_ = p.shape.steps, N = p.shape.batch, I = p.shape.inputs, H = p.shape.hidden;
  const bool lstm = p.cell == LowPrecisionCell::lstm, gru = p.cell == LowPrecisionCell::gru;
  const int64_t gates = lstm ? 4 : gru ? 3 : 1, G = gates * H;
  // A GRU's rows of gradients are [dn, dr, dz, dnh]: the input's product has the first three, the recurrent one the
  // last.
  const int64_t S = gru ? 4 * H : G, D = spread<float>(S), second = gru ? H : 0;
  const int64_t R = (lstm ? 5 : 4) * H;  // of a reserve row; an RNN has none
  Scratch scratch;
  const float* const weight_ih = p.weight_ih.read(scratch, 0, G * I);
  const auto columns_of = [&](const float* weights, int64_t units) {
    return LowPrecisionWeights(scratch, low_precision_kernels(), Precision::bfloat16, units, G,
                               transposed(k, scratch, {weights, units}, G, units));
  };
  const float* ordered = weight_ih;
  if (gru) {
    float* const to = scratch.take<float>(G * I);
    copy(to, weight_ih + 2 * H * I, H * I);
    copy(to + H * I, weight_ih, 2 * H * I);
    ordered = to;
  }
  const LowPrecisionWeights recurrent = columns_of(p.weight_hh.read(scratch, 0, G * H), H),
                            input = columns_of(ordered, I);
  const float* const zeros = scratch.zeros<float>(std::max(I, N * H));
  const float *const h0 = p.h0 ? p.h0 : zeros, *const c0 = p.c0 ? p.c0 : zeros;

  const Steps order(p.shape, p.reverse, D);
  const Sharing sharing(p.shape, gates, H, 2);
  float* dgates = scratch.take<float>(order.block_rows() * D);  // a block's, as its steps lie in time
  float* next = scratch.take<float>(N * D);                     // dgates of the step after the block
  float* const dh = scratch.take<float>(N * H);                 // what they give to h, but for a GRU
  float* const bias_sums = scratch.zeros<float>(S);
  copy_or_zero(p.dh0, p.dh_n, N * H);  // a GRU's carry, what passes by the weights from step to step
  if (lstm) copy_or_zero(p.dc0, p.dc_n, N * H);

  for (int64_t last = T_, first; last > 0; last = first) {
    first = order.block_begin(last);
    const int64_t from = order.row_from(first, last), rows = order.count(first, last);
    const double flops = 2.0 * double(rows) * double(G * H);
    const auto step_back = [&](int64_t s, int64_t phase, int64_t a, int64_t n, Next follows, bool reset, Part part) {
      const int64_t row = order.row(s) + a;
      if (phase == 0) {
        if (follows == Next::reset && part.index == 0) {  // what would come back to h and c
          if (gru) zero(p.dh0 + a * H, n * H);
          if (lstm) zero(p.dc0 + a * H, n * H);
        }
        if (follows != Next::step) return;
        const float* const following = s + 1 < last ? dgates + (order.row(s + 1) - from) * D : next;
        recurrent.multiply(n, part, {following + a * D + second, D}, gru ? nullptr : zeros,
                           {(gru ? p.dh0 : dh) + a * H, H});
        return;
      }
      const float* const dstate = follows == Next::step            ? dh + a * H
                                  : follows == Next::end && p.dh_n ? p.dh_n + a * H
                                                                   : nullptr;
      const auto fill = [&](auto step) {
        step.rows = n;
        step.units = H;
        step.part = part;
        step.dy = p.dy ? p.dy + row * H : nullptr;
        step.dy_stride = H;
        return step;
      };
      float* const out = dgates + (row - from) * D;
      const auto gated = [&](auto step) {
        step.gates = p.reserve + row * R;
        step.gates_stride = R;
        step.dgates = out;
        step.dgates_stride = D;
        return fill(step);
      };
      if (lstm) {
        auto step = gated(LstmBackwardStep<float>{});
        step.dh_n = dstate;
        step.c = step.gates + 4 * H;
        step.c_stride = R;
        step.c_prev = reset ? zeros : s == 0 ? c0 + a * H : p.reserve + (order.row(s - 1) + a) * R + 4 * H;
        step.c_prev_stride = reset || s == 0 ? H : R;
        step.dc = p.dc0 + a * H;
        step.dc_next = step.dc;
        step.dc_stride = step.dc_next_stride = H;
        k.lstm_backward(step);
      } else if (gru) {
        auto step = gated(GruBackwardStep<float>{});
        step.h_prev = reset ? zeros : (s == 0 ? h0 : p.y + order.row(s - 1) * H) + a * H;
        step.h_prev_stride = H;
        step.carry = p.dh0 + a * H;
        step.carry_next = step.carry;
        step.carry_stride = step.carry_next_stride = H;
        k.gru_backward(step);
      } else {
        auto step = fill(RnnBackwardStep<float>{});
        step.dh_n = dstate;
        step.y = p.y + row * H;
        step.y_stride = H;
        step.relu = p.cell == LowPrecisionCell::rnn_relu;
        step.dz = out;
        step.dz_stride = D;
        k.rnn_backward(step);
      }
    };
    sharing.walk_phases(first, last, 2, flops,
                        [&](int64_t index, int64_t phase, int64_t slice, int64_t slice_end, Part part) {
                          const int64_t s = last - 1 - (index - first);
                          order.runs_back(s, slice, slice_end, [&](int64_t a, int64_t b, Next follows, bool reset) {
                            step_back(s, phase, a, b - a, follows, reset, part);
                          });
                        });
    if (p.dx) multiply_all(input, rows, 2.0 * double(G * I), {dgates, D}, zeros, {p.dx + from * I, I});
    column_sums<float>(k, rows, S, {dgates, D}, {}, nullptr, bias_sums);
    const WeightGradients of_block(k, {dgates, D}, rows, S);
    Scratch of_previous;
    const float* const x = p.x.read(of_previous, from * I, rows * I);
    if (gru)
      of_block.add(0, rows, x, I, {{0, H, p.dweight_ih + 2 * H * I}, {H, 2 * H, p.dweight_ih}});
    else
      of_block.add(0, rows, x, I, {{0, G, p.dweight_ih}});
    order.previous(first, last, H, h0, p.y, of_previous, [&](const float* h_prev, int64_t count, int64_t row) {
      of_block.add(row - from, count, h_prev, H, {{second, G, p.dweight_hh}});
    });
    hand_on(order, first, last, N, dgates, next, D);
  }
  multiply_all(recurrent, order.rows(0), 2.0 * double(G * H), {next + second, D}, gru ? nullptr : zeros, {p.dh0, H});
  order.runs(0, 0, N, [&](int64_t a, int64_t b, bool reset) {
    if (!reset) return;
    zero(p.dh0 + a * H, (b - a) * H);
    if (lstm) zero(p.dc0 + a * H, (b - a) * H);
  });
  if (gru) {
    add(p.dbias_ih, bias_sums + H, 2 * H);
    if (p.dbias_ih) add(p.dbias_ih + 2 * H, bias_sums, H);
  } else {
    add(p.dbias_ih, bias_sums, G);
  }
  add(p.dbias_hh, bias_sums + second, G);
}

}  // namespace fusedrnn
