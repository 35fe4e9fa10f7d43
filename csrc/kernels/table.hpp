// The contract between core and kernels: one struct per kernel, and the table of function pointers that each
// instruction set fills. Plain data only, so that including it from two instruction sets shares no code.
//
// Every kernel works on some rows of the batch for one time step (or on rows of many steps at once where the
// rows do not depend on each other). Strides count elements from one row to the next.
#pragma once

#include <cstdint>

#include "elementwise_cells.hpp"
#include "passes.hpp"

namespace fusedrnn {

// One factor of a product: rows [n, depth] times packed weights.
template <class T>
struct Operand {
  const T* rows = nullptr;    // [n, depth]
  int64_t stride = 0;         // from row to row
  const T* panels = nullptr;  // weights packed by core/pack.hpp
  int64_t depth = 0;          // the sum runs over this many terms, ascending
};

// Which of a step's panels of units to compute: all, or one of several even shares.
struct Part {
  int64_t index = 0, count = 1;
};

namespace {  // as all code here: without a symbol that two instruction sets could share
inline int64_t first_panel(Part p, int64_t panels) { return panels * p.index / p.count; }
inline int64_t last_panel(Part p, int64_t panels) { return panels * (p.index + 1) / p.count; }
}  // namespace

// out[n, units] = (bias | out) + x W. The input of linear layers, dx, dh0.
template <class T>
struct AffineStep {
  int64_t rows, units;
  Part part;
  Operand<T> x;
  const T* bias;    // [units] or null
  bool accumulate;  // start from what is in out
  T* out;           // [rows, units]
  int64_t out_stride;
};

template <class T>
struct RnnForwardStep {
  int64_t rows, units;
  Part part;
  Operand<T> x, h;
  const T* bias;  // [units]; null: start from the partial sums in y
  bool finish;    // false: leave partial sums in y
  bool relu;
  T* y;  // [rows, units]
  int64_t y_stride;
};

template <class T>
struct RnnBackwardStep {
  int64_t rows, units;
  Part part;
  Operand<T> dz_next;  // dz of the following step, times weight_hh; depth 0 at the last step
  const T* dy;         // [rows, units] or null
  int64_t dy_stride;
  const T* dh_n;  // [rows, units], added at the last step, or null
  const T* y;
  int64_t y_stride;
  bool relu;
  T* dz;  // [rows, units]: gradient before the activation
  int64_t dz_stride;
};

template <class T>
struct LstmForwardStep {
  int64_t rows, units;
  Part part;
  Operand<T> x, h;
  const T* bias;  // packed [panel][4][lanes], the last panel narrow; null: start from the partial sums
  bool finish;    // false: leave partial sums
  bool keep;      // write the activated gates
  T* partial;     // [rows, 4 * units]: partial sums
  int64_t partial_stride;
  T* gates;  // [rows, 4 * units]: activated i, f, g, o; unused without keep
  int64_t gates_stride;
  const T* c_prev;  // [rows, units]; may be c itself
  int64_t c_prev_stride;
  T* c;  // [rows, units]
  int64_t c_stride;
  T* y;  // [rows, units]
  int64_t y_stride;
};

template <class T>
struct LstmBackwardStep {
  int64_t rows, units;
  Part part;
  Operand<T> dgates_next;  // depth 4 * units, or 0 at the last step
  const T* dy;
  int64_t dy_stride;
  const T* dh_n;
  const T* gates;  // [rows, 4 * units] activated
  int64_t gates_stride;
  const T* c;
  int64_t c_stride;
  const T* c_prev;
  int64_t c_prev_stride;
  const T* dc_next;  // [rows, units]: what the future gives to c of this step
  int64_t dc_next_stride;
  T* dc;  // [rows, units]: what this step gives to the one before; may be dc_next itself
  int64_t dc_stride;
  T* dgates;  // [rows, 4 * units]
  int64_t dgates_stride;
};

// Reset after the product: gates holds r, z, n and W_hn h + b_hn. Reset before: r, z, n.
template <class T>
struct GruForwardStep {
  int64_t rows, units;
  Part part;
  Operand<T> x, h;
  const T* bias;  // packed [panel][4 or 3][lanes]; null: start from the partial sums
  bool finish;
  bool keep;
  T* partial;  // [rows, 4 or 3 * units]; with reset before the same as gates
  int64_t partial_stride;
  T* gates;
  int64_t gates_stride;
  const T* h_prev;  // [rows, units]
  int64_t h_prev_stride;
  T* y;  // [rows, units]; reset before: r * h goes here in the first pass
  int64_t y_stride;
};

// The second pass of reset-before: n = tanh(partial + (r * h) W_hn), h = (1 - z) n + z h.
template <class T>
struct GruCandidateStep {
  int64_t rows, units;
  Part part;
  Operand<T> reset_h;  // r * h
  bool keep;
  T* gates;  // [rows, 3 * units]
  int64_t gates_stride;
  const T* h_prev;
  int64_t h_prev_stride;
  T* y;
  int64_t y_stride;
};

// dgates rows are [dn, dr, dz, dnh] (reset after; dnh = r * dn) or [dn, dr, dz] (reset before), so that both
// the input product [dn, dr, dz] and the recurrent product [dr, dz, dnh] find their terms side by side.
template <class T>
struct GruBackwardStep {
  int64_t rows, units;
  Part part;
  Operand<T> dgates_next;
  const T* dy;
  int64_t dy_stride;
  const T* gates;
  int64_t gates_stride;
  const T* h_prev;
  int64_t h_prev_stride;
  const T* carry_next;  // [rows, units]: dh_n, or the part of dh that passed by the weights of the step after
  int64_t carry_next_stride;
  T* carry;  // [rows, units]: that part for the step before; may be carry_next itself
  int64_t carry_stride;
  T* dgates;
  int64_t dgates_stride;
};

// Second pass of reset-before: d(r * h) = dn W_hn, hence dr and the rest of the carry; r * h for dweight_hn.
template <class T>
struct GruResetBackwardStep {
  int64_t rows, units;
  Part part;
  Operand<T> dn;
  const T* gates;
  int64_t gates_stride;
  const T* h_prev;
  int64_t h_prev_stride;
  T* carry;
  int64_t carry_stride;
  T* dr;  // [rows, units] of a dgates row
  int64_t dr_stride;
  T* reset_h;  // [rows, units]
  int64_t reset_h_stride;
};

// out[k, g] += sum over rows of inputs[row, k] * dgates[row, g] for one panel of columns g; the transpose of a
// weight's gradient, because the gates of one row fill vectors and the inputs are broadcast.
template <class T>
struct WeightGradient {
  int64_t rows;
  const T* inputs;  // [rows, input_size], or as pack_inputs left them
  int64_t input_stride, input_size;
  bool packed;
  const T* dgates;  // [rows, columns]
  int64_t dgates_stride, columns;
  int vectors;  // of the panel that the columns fill
  T* out;       // [input_size][vectors][lanes]
  T* bias_out;  // [columns] or null: += sum over rows of dgates
  T* scratch;   // weight_gradient_scratch elements
};

// Rows whose products are summed in registers before they are added to memory. Fixed, so that a gradient's
// bits depend on the problem alone.
constexpr int64_t weight_gradient_chunk = 128;

namespace {
constexpr int64_t weight_gradient_scratch = weight_gradient_chunk * 3 * 16;  // a chunk of a panel of dgates

// Dense products cut n vectors of units into panels of 3, the last one or two of 2, never a lone one after others:
// how many panels, and the first vector of the i-th (of the last plus one: n).
inline int64_t dense_panels(int64_t n) { return (n + 2) / 3; }
inline int64_t dense_panel_first(int64_t n, int64_t i) {
  const int64_t last = dense_panels(n) - 1;
  return i > last ? n : i == last && i > 0 && n % 3 == 1 ? n - 2 : 3 * i;
}

// Lanes that the last units of an array need, when so many of them remain: a vector's, a half or a quarter of them,
// though no fewer than 16 bytes hold.
template <class T>
int tail_lanes(int64_t remaining, int lanes) {
  constexpr int fewest = 16 / int(sizeof(T));
  while (lanes > fewest && 2 * remaining <= lanes) lanes /= 2;
  return lanes;
}
}  // namespace

// to[c, r] = from[r, c], or += with add; zero for r from rows to width.
template <class T>
struct Transpose {
  int64_t rows, columns;
  const T* from;  // [rows, columns]
  int64_t from_stride;
  T* to;  // [columns, width]
  int64_t to_stride, width;
  bool add;
};

// Fused passes over flat buffers of n elements (kernels/optim.hpp, kernels/losses.hpp).
template <class T>
struct SgdStep {
  int64_t n;
  T* data;
  const T* grad;
  T* momentum_buffer;  // or null
  T lr, momentum, weight_decay;
  bool nesterov;
};

template <class T>
struct AdagradStep {
  int64_t n;
  T* data;
  const T* grad;
  T* sum;
  T lr, eps, weight_decay;
  bool eps_inside;
};

template <class T>
struct RmspropStep {
  int64_t n;
  T* data;
  const T* grad;
  T* square_avg;
  T* grad_avg;         // null: not centred
  T* momentum_buffer;  // or null
  T lr, alpha, eps, momentum, weight_decay;
  bool eps_inside;
};

template <class T>
struct AdamStep {
  int64_t n;
  T* data;
  const T* grad;
  T *exp_avg, *exp_avg_sq;
  T beta1, beta2, eps, weight_decay;
  T lr, step_size, inverse_sqrt_correction2;  // lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
  bool decoupled;
};

template <class T>
struct KernelTable {
  int lanes;  // elements in a vector: the width that panels are packed to

  void (*affine)(const AffineStep<T>&);
  void (*rnn_forward)(const RnnForwardStep<T>&);
  void (*rnn_backward)(const RnnBackwardStep<T>&);
  void (*lstm_forward)(const LstmForwardStep<T>&);
  void (*lstm_backward)(const LstmBackwardStep<T>&);
  void (*gru_forward)(const GruForwardStep<T>&);        // reset after
  void (*gru_reset_forward)(const GruForwardStep<T>&);  // reset before: r, z and r * h
  void (*gru_candidate)(const GruCandidateStep<T>&);    // reset before: n and h
  void (*gru_backward)(const GruBackwardStep<T>&);      // reset after
  void (*gru_before_backward)(const GruBackwardStep<T>&);
  void (*gru_reset_backward)(const GruResetBackwardStep<T>&);
  ElementwiseCell<T> elementwise[int(ElementwiseKind::count)];
  // Some rows [rows, size] as weight_gradient reads them, in rows * size elements; a chunk's at most.
  void (*pack_inputs)(int64_t rows, int64_t size, const T* inputs, int64_t stride, T* packed);
  void (*weight_gradient)(const WeightGradient<T>&);
  void (*transpose)(const Transpose<T>&);

  void (*random_mask)(const RandomMask<T>&);
  void (*normalize)(const Normalize<T>&);
  void (*normalize_backward)(const NormalizeBackward<T>&);
  void (*column_sums)(const ColumnSums<T>&);
  void (*zoneout)(const Zoneout<T>&);
  void (*state_gradient)(const StateGradient<T>&);
  void (*multiply)(const Multiply<T>&);
  void (*lstm_pointwise)(const LstmPointwise<T>&);
  void (*lstm_pointwise_backward)(const LstmPointwiseBackward<T>&);
  void (*gru_gates)(const GruGates<T>&);
  void (*gru_output)(const GruOutput<T>&);
  void (*gru_output_backward)(const GruOutputBackward<T>&);
  void (*gru_gates_backward)(const GruGatesBackward<T>&);
  void (*rnn_pointwise)(const RnnPointwise<T>&);
  void (*rnn_pointwise_backward)(const RnnPointwiseBackward<T>&);

  void (*sgd)(const SgdStep<T>&);
  void (*adagrad)(const AdagradStep<T>&);
  void (*rmsprop)(const RmspropStep<T>&);
  void (*adam)(const AdamStep<T>&);
  void (*clip_value)(int64_t n, T* grad, T limit);
  void (*scale)(int64_t n, T* grad, T factor);
  double (*squared_norm)(int64_t n, const T* grad);

  // Sum over rows of weight * -log softmax(logits)[target], logits and their gradient [rows, classes]; with smoothing s
  // the target has 1 - s and all classes share s. In the losses below weights, at least 0, may be null for 1.
  double (*softmax_cross_entropy)(int64_t rows, int64_t classes, const T* logits, const int64_t* targets,
                                  const T* weights, T smoothing, T* dlogits);
  double (*binary_cross_entropy)(int64_t n, const T* logits, const T* targets, const T* weights, T* dlogits);
  double (*squared_error)(int64_t n, const T* prediction, const T* target, const T* weights, T* dprediction);
  // Negative log density of target [rows, 3] (x, y, end) under parameters [rows, 6 K + 1]; weights [rows] times both,
  // [rows, 2] times the point's and the end flag's part, or null.
  double (*mixture_density)(int64_t rows, int64_t components, const T* parameters, const T* target, const T* weights,
                            int64_t weight_columns, T* dparameters);

  // y[i] = f(x[i]) with f 0 exp, 1 sigmoid, 2 tanh, 3 softplus, 4 log, 5 log1p, 6 expm1, 7 sin, 8 cos: for the accuracy
  // sweep in the tests.
  void (*math)(int function, int64_t n, const T* x, T* y);
};

}  // namespace fusedrnn
