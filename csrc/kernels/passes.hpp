// The part of the contract (table.hpp) that is passes over rows beside products: what options need
// (kernels/options.hpp), and cells without a recurrent product (kernels/elementwise.hpp).
#pragma once

#include <cstdint>

namespace fusedrnn {

enum class Activation { sigmoid, tanh, relu, hard_sigmoid, hard_tanh, softsign, softplus, identity };

// An array [rows, units] with its stride from row to row, which may be zero: the same row for all. Or null: absent.
template <class T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;
  T* at(int64_t row) const { return data ? data + row * stride : nullptr; }
  Rows<const T> read() const { return {data, stride}; }
};

// out[u] = dropped where the u-th random word is below the threshold, else kept; kernels/random.hpp.
template <class T>
struct RandomMask {
  int64_t units;
  uint64_t seed;
  uint32_t row, step, stream;
  uint64_t threshold;  // up to 2^32
  T dropped, kept;
  T* out;
};

// Layer normalisation (Ba et al. 2016) of rows: out = (out +) gain (in - mean) / sqrt(variance + 1e-5) + bias.
template <class T>
struct Normalize {
  int64_t rows, units;
  Rows<const T> in;
  const T *gain, *bias;  // [units]; bias may be null
  Rows<T> normalized;    // before gain and bias
  Rows<T> deviation;     // [rows, 1]: 1 / sqrt(variance + 1e-5), or absent
  Rows<T> out;
  bool add;
};

// Also products[u] += sum over rows of dout normalized, the gain's gradient, and sums[u] += sum over rows of dout, the
// bias's, where that is not null.
template <class T>
struct NormalizeBackward {
  int64_t rows, units;
  Rows<const T> dout, normalized, deviation;
  const T* gain;
  Rows<T> din;  // may be dout itself
  T *products, *sums;
};

// products[u] += sum over rows of a b, and sums[u] += sum over rows of a; either may be null.
template <class T>
struct ColumnSums {
  int64_t rows, units;
  Rows<const T> a, b;
  T *products, *sums;
};

// state = zone before + (1 - zone) state.
template <class T>
struct Zoneout {
  int64_t rows, units;
  Rows<const T> zone, before;
  Rows<T> state;
};

// dh = clip(mask recurrent) + carry_next + dh_n + dy; carry = zone dh, or zero without zone; out = dh - carry. Any but
// out may be absent; zone not without carry.
template <class T>
struct StateGradient {
  int64_t rows, units;
  Rows<const T> recurrent = {}, mask = {}, carry_next = {}, dh_n = {}, dy = {}, zone = {};
  T clip = 0;  // 0: none
  Rows<T> carry = {}, out = {};
};

// out = a b.
template <class T>
struct Multiply {
  int64_t rows, units;
  Rows<const T> a, b;
  Rows<T> out;
};

// From the sums of the gates to the state; what is absent is left out of the equations.
template <class T>
struct LstmPointwise {
  int64_t rows, units;
  int gates;  // 4, or 3 where f = 1 - i
  Activation gate, candidate, output;
  T cell_clip;                         // 0: none
  const T* peephole;                   // [3, units] of i, f, o
  const T *gain_c, *norm_bias_c;       // [units]
  Rows<const T> sums, c_prev, zone_c;  // sums [rows, gates units]
  Rows<T> kept;                        // [rows, 4 units]: activated i, f, g, o
  Rows<T> moments_c;                   // [rows, 2]: mean and inverse deviation of c~, or absent
  Rows<T> c, m;                        // m = o output(c~): h, but for projection and zoneout
  T* row;                              // [units] of scratch
};

template <class T>
struct LstmPointwiseBackward {
  int64_t rows, units;
  int gates;
  Activation gate, candidate, output;
  T cell_clip;
  const T* peephole;
  const T *gain_c, *norm_bias_c;
  Rows<const T> kept, moments_c, c_prev, zone_c, dm, dc_next, dc_given;
  Rows<T> dc;                 // for the step before; may be dc_next itself
  Rows<T> dgates;             // [rows, gates units]
  Rows<T> m, c_candidate;     // for gradients of weights
  T *dgain_c, *dnorm_bias_c;  // [units], added to
  T* row;                     // [3 units] of scratch
};

// y = activation(sums), and to kept where that is not absent.
template <class T>
struct RnnPointwise {
  int64_t rows, units;
  Activation activation;
  Rows<const T> sums;
  Rows<T> y, kept;
};

// The gradient of the value becomes that of the sum.
template <class T>
struct RnnPointwiseBackward {
  int64_t rows, units;
  Activation activation;
  Rows<const T> value;
  Rows<T> gradient;
};

// r, z = gate(x + h). Reset before: h is absent, its products being in x, and reset_h = r dropped.
template <class T>
struct GruGates {
  int64_t rows, units;
  Activation gate;
  Rows<const T> x, h;     // [rows, 2 units] of sums
  Rows<const T> dropped;  // h_(t-1) as the products see it
  Rows<T> gates;          // [rows, 2 units]
  Rows<T> reset_h;
};

// n = candidate(x + r h), or without h where it is absent; y = (1 - z) n + z h_prev.
template <class T>
struct GruOutput {
  int64_t rows, units;
  Activation candidate;
  Rows<const T> gates;  // [rows, 2 units]: r, z
  Rows<const T> x, h;   // the candidate's sums
  Rows<const T> h_prev;
  Rows<T> kept;  // [rows, units or 2 units]: n, and h where there is one; or absent
  Rows<T> y;
};

// dz and dn of the sums, and carry += z dh.
template <class T>
struct GruOutputBackward {
  int64_t rows, units;
  Activation gate, candidate;
  Rows<const T> kept;  // r, z, n
  Rows<const T> h_prev, dh;
  Rows<T> carry;
  Rows<T> dx, dh_sums;  // [rows, 3 units]: dz to both, dn to dx
};

// Of a product r gated: what n's sum of h is with reset after, or h_(t-1), times mask, with reset before.
template <class T>
struct GruGatesBackward {
  int64_t rows, units;
  Activation gate;
  Rows<const T> r, gated = {}, mask = {};
  Rows<const T> dproduct = {};
  Rows<T> dr = {}, dr_hidden = {};  // of r's sum; the second the same again, or absent
  Rows<T> dgated = {};              // before mask
  Rows<T> product = {};             // again, or absent
};

// A step of a cell whose units see no state but their own (kernels/elementwise.hpp), for some of its units: gate g of
// unit u is element g * hidden + u of a row.
template <class T>
struct ElementwiseForwardStep {
  int64_t rows, units, hidden;
  const T* weight_hh;     // [units], of a cell that has it
  Activation activation;  // likewise
  bool keep;              // write the activated gates
  Rows<T> gates;          // [rows, G hidden]: the input's product and, with keep, what backward needs
  Rows<const T> h_prev;   // absent: zeros
  Rows<T> h;              // may be gates where G is 1 and nothing is kept
};

template <class T>
struct ElementwiseBackwardStep {
  int64_t rows, units, hidden;
  const T* weight_hh;
  Activation activation;
  Rows<const T> gates;   // as forward left them; absent where a cell needs none
  Rows<const T> h_prev;  // absent: zeros, to which no gradient goes
  Rows<const T> h;
  Rows<const T> dy;  // or absent
  Rows<T> dh;        // in: what the future gives to h; out: what this step gives to h_prev
  Rows<T> dgates;    // [rows, G hidden], before activation
};

}  // namespace fusedrnn
