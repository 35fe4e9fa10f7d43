// The C++ interface on one page: one struct per call, every pointer with its shape. T time, N batch, I input,
// H hidden; all arrays C-contiguous. Outputs are overwritten, but for the gradients of parameters (dweight_*,
// dbias_*), which are added to. No output may overlap another array of the call.
#pragma once

#include <cstdint>

#include "../kernels/table.hpp"

namespace fusedrnn {

struct Shape {
  int64_t steps, batch, inputs, hidden;  // T, N, I, H
  // [T], never increasing: how many rows each step has, from the first of the batch on; the arrays [T, N, ...] of the
  // call then hold these alone, step after step. Null: all N. Not together with reverse.
  const int64_t* batch_sizes = nullptr;
  const uint8_t* resets = nullptr;  // [T, N] or null: where not 0, the state is zero before this step
};

template <class T>
struct RnnForward {
  Shape shape;
  bool relu, reverse;
  const T* x;                      // [T, N, I]
  const T* h0;                     // [N, H] or null: zeros
  const T *weight_ih, *weight_hh;  // [H, I], [H, H]
  const T *bias_ih, *bias_hh;      // [H] or null
  T* y;                            // [T, N, H]
  T* h_n;                          // [N, H]
  T* reserve;                      // with options alone
};

template <class T>
struct RnnBackward {
  Shape shape;
  bool relu, reverse;
  const T *dy, *dh_n;  // [T, N, H], [N, H]; either may be null
  const T *x, *h0, *y;
  const T *weight_ih, *weight_hh;
  const T* reserve;            // with options alone
  T* dx;                       // [T, N, I] or null: not wanted
  T* dh0;                      // [N, H]
  T *dweight_ih, *dweight_hh;  // [H, I], [H, H], added to
  T *dbias_ih, *dbias_hh;      // [H], added to, or null
};

template <class T>
struct LstmForward {
  Shape shape;
  bool reverse;
  const T* x;
  const T *h0, *c0;                // [N, H] or null: zeros
  const T *weight_ih, *weight_hh;  // [4H, I], [4H, H]; gates i, f, g, o
  const T *bias_ih, *bias_hh;      // [4H] or null
  T* y;
  T *h_n, *c_n;  // [N, H]
  T* c;          // [T, N, H]: all of c, or null; with options alone
  T* reserve;    // [T, N, 5H]: activated i, f, g, o, then c; with recompute [T, N, H]: c; null: inference
  bool recompute;
};

template <class T>
struct LstmBackward {
  Shape shape;
  bool reverse;
  const T *dy, *dh_n, *dc_n;  // any may be null
  const T* dc;                // [T, N, H]: gradient of all of c, or null; with options alone
  const T *x, *h0, *c0, *y;
  const T *weight_ih, *weight_hh;
  const T* reserve;
  bool recompute;  // the gates again, from x, y and c; then the biases are needed
  const T *bias_ih, *bias_hh;
  T* dx;  // or null
  T *dh0, *dc0;
  T *dweight_ih, *dweight_hh, *dbias_ih, *dbias_hh;
};

template <class T>
struct GruForward {
  Shape shape;
  bool reset_after, reverse;
  const T *x, *h0;
  const T *weight_ih, *weight_hh;  // [3H, I], [3H, H]; gates r, z, n
  const T *bias_ih, *bias_hh;      // [3H] or null
  T *y, *h_n;
  T* reserve;  // [T, N, 4H]: r, z, n, W_hn h + b_hn; reset before: [T, N, 3H]; null: inference, or recompute
};

template <class T>
struct GruBackward {
  Shape shape;
  bool reset_after, reverse;
  const T *dy, *dh_n;
  const T *x, *h0, *y;
  const T *weight_ih, *weight_hh;
  const T* reserve;
  bool recompute;  // the gates again, from x and y; then the biases are needed
  const T *bias_ih, *bias_hh;
  T* dx;
  T* dh0;
  T *dweight_ih, *dweight_hh, *dbias_ih, *dbias_hh;
};

// Cells whose units see no state but their own, so that all products are with the input (core/elementwise.cpp).
template <class T>
struct ElementwiseForward {
  ElementwiseKind kind;
  Shape shape;
  bool reverse;
  const T *x, *h0;
  const T* weight_ih;     // [GH, I]: IndRNN G = 1; minGRU gates z, n
  const T* weight_hh;     // [H] of the IndRNN
  const T* bias;          // [GH] or null
  Activation activation;  // of the IndRNN
  T *y, *h_n;
  T* reserve;  // minGRU [T, N, 2H]: activated z, then n; IndRNN nothing, y suffices; null: inference
};

template <class T>
struct ElementwiseBackward {
  ElementwiseKind kind;
  Shape shape;
  bool reverse;
  const T *dy, *dh_n;
  const T *x, *h0, *y;
  const T *weight_ih, *weight_hh;
  Activation activation;
  const T* reserve;
  T* dx;
  T* dh0;
  T *dweight_ih, *dweight_hh, *dbias;
};

// What changes a cell's equations; python/fusedrnn/reference has them. Zeros and nulls are the plain cell.
struct OptionValues {
  double zoneout_h = 0, zoneout_c = 0, recurrent_dropout = 0, dropconnect = 0;  // probabilities
  double grad_clip = 0;  // of what comes back through weight_hh; 0: none
  // Where the random numbers of a call are: random.hpp.
  uint64_t seed = 0;
  uint32_t layer = 0, direction = 0, row_offset = 0, step_offset = 0;
  // The RNN's is `gate`.
  Activation gate = Activation::sigmoid, candidate = Activation::tanh, output = Activation::tanh;
  bool coupled = false;  // LSTM: three gates i, g, o, and f = 1 - i
  double cell_clip = 0;  // LSTM; 0: none
};

template <class T>
struct Options : OptionValues {
  // Layer normalisation [GH], [GH], and of the LSTM's c [H]; null: none. Its biases may be null.
  const T *gain_ih, *gain_hh, *gain_c;
  const T *norm_bias_ih, *norm_bias_hh, *norm_bias_c;
  bool training;               // masks are drawn; else expectations
  const int64_t* row_numbers;  // [N], of rows that lie in another order, or null
  const int64_t* lengths;      // [N], of rows that are walked from their own ends backward, or null
  // LSTM
  const T* weight_peephole;  // [3, H] or null
  const T* weight_hr;        // [P, H] or null: h, y and the columns of weight_hh have P elements
  int64_t projection;        // P, or H without
};

template <class T>
struct OptionGradients {  // added to, or null
  T *dgain_ih, *dgain_hh, *dgain_c, *dnorm_bias_ih, *dnorm_bias_hh, *dnorm_bias_c;
  T *dweight_peephole, *dweight_hr;
};

// Each is instantiated for float and double. std::bad_alloc is the only exception.
template <class T>
void rnn_forward(const RnnForward<T>&);
template <class T>
void rnn_backward(const RnnBackward<T>&);
template <class T>
void lstm_forward(const LstmForward<T>&);
template <class T>
void lstm_backward(const LstmBackward<T>&);
template <class T>
void gru_forward(const GruForward<T>&);
template <class T>
void gru_backward(const GruBackward<T>&);
template <class T>
void elementwise_forward(const ElementwiseForward<T>&);
template <class T>
void elementwise_backward(const ElementwiseBackward<T>&);
// Elements of a unit that forward keeps.
int64_t elementwise_kept(ElementwiseKind kind);

// The same cells with options. What forward keeps is longer: *_reserve elements for each row and step.
template <class T>
int64_t rnn_options_reserve(int64_t hidden, const Options<T>&);
template <class T>
void rnn_options_forward(const RnnForward<T>&, const Options<T>&);
template <class T>
void rnn_options_backward(const RnnBackward<T>&, const Options<T>&, const OptionGradients<T>&);
template <class T>
int64_t gru_options_reserve(int64_t hidden, bool reset_after, const Options<T>&);
template <class T>
void gru_options_forward(const GruForward<T>&, const Options<T>&);
template <class T>
void gru_options_backward(const GruBackward<T>&, const Options<T>&, const OptionGradients<T>&);
template <class T>
int64_t lstm_options_reserve(int64_t hidden, const Options<T>&);
template <class T>
void lstm_options_forward(const LstmForward<T>&, const Options<T>&);
template <class T>
void lstm_options_backward(const LstmBackward<T>&, const Options<T>&, const OptionGradients<T>&);

// y [R, O] = x [R, I] weight' + bias, weight [O, I], bias [O] or null.
template <class T>
void linear_forward(int64_t rows, int64_t inputs, int64_t outputs, const T* x, const T* weight, const T* bias, T* y);
// dx [R, I] or null is overwritten; dweight and dbias (or null) are added to.
template <class T>
void linear_backward(int64_t rows, int64_t inputs, int64_t outputs, const T* dy, const T* x, const T* weight, T* dx,
                     T* dweight, T* dbias);

}  // namespace fusedrnn
