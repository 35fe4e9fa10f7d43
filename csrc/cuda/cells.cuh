// What a unit does with its sums: the formulas of ../kernels/pointwise.hpp between a thread's values. Forward beside
// backward, one struct to a cell.
//
//   gates      sums to a unit; in backward as many gradients go into the product that gives dh
//   saved      values to a unit that forward keeps beside y (and c)
//   written    gradients to a unit that backward leaves behind: of the gates' input sums, and the GRU's of W_hn h +
//   b_hn sent(i)    which of these the i-th gate of the recurrent product needs
#pragma once

#include "scalar.hpp"

#include "../kernels/pointwise.hpp"

namespace fusedrnn::cuda {

struct State {
  float h, c;
};

// What backward reads of a step. S: as it lies in memory, or float.
template <class S, int saved>
struct Past {
  S gates[saved > 0 ? saved : 1];
  S dy, h, h_prev;
  float c, c_prev;

  FUSEDRNN_DEVICE Past<float, saved> in_float() const {
    Past<float, saved> past;
    FUSEDRNN_UNROLL
    for (int g = 0; g < saved; ++g) past.gates[g] = device::to_float(gates[g]);
    past.dy = device::to_float(dy);
    past.h = device::to_float(h);
    past.h_prev = device::to_float(h_prev);
    past.c = c;
    past.c_prev = c_prev;
    return past;
  }
};

struct Rnn {
  static constexpr int gates = 1, saved = 0, written = 1;
  static constexpr bool has_c = false, has_bias_hn = false, reads_h = true, reads_h_prev = false;
  static constexpr FUSEDRNN_DEVICE int sent(int gate) { return gate; }

  static FUSEDRNN_DEVICE void forward(const float (&x)[1], const float (&sums)[1], float, bool relu, State& s, float*) {
    s.h = rnn_pointwise_forward(x[0] + sums[0], relu);
  }
  static FUSEDRNN_DEVICE void backward(float dh, const Past<float, 0>& past, bool relu, State& d, float (&dgates)[1]) {
    dgates[0] = rnn_pointwise_backward(dh, past.h, relu);
    d.h = 0;
  }
};

struct Lstm {
  static constexpr int gates = 4, saved = 4, written = 4;
  static constexpr bool has_c = true, has_bias_hn = false, reads_h = false, reads_h_prev = false;
  static constexpr FUSEDRNN_DEVICE int sent(int gate) { return gate; }

  static FUSEDRNN_DEVICE void forward(const float (&x)[4], const float (&sums)[4], float, bool, State& s,
                                      float (&kept)[4]) {
    const LstmState<float> next =
        lstm_pointwise_forward(x[0] + sums[0], x[1] + sums[1], x[2] + sums[2], x[3] + sums[3], s.c);
    kept[0] = next.i, kept[1] = next.f, kept[2] = next.g, kept[3] = next.o;
    s = {next.h, next.c};
  }
  static FUSEDRNN_DEVICE void backward(float dh, const Past<float, 4>& past, bool, State& d, float (&dgates)[4]) {
    const LstmGradient<float> g = lstm_pointwise_backward(dh, d.c, past.gates[0], past.gates[1], past.gates[2],
                                                          past.gates[3], past.c, past.c_prev);
    dgates[0] = g.zi, dgates[1] = g.zf, dgates[2] = g.zg, dgates[3] = g.zo;
    d = {0, g.c_prev};
  }
};

// Reset after the product.
struct Gru {
  static constexpr int gates = 3, saved = 4, written = 4;
  static constexpr bool has_c = false, has_bias_hn = true, reads_h = false, reads_h_prev = true;
  static constexpr FUSEDRNN_DEVICE int sent(int gate) { return gate < 2 ? gate : 3; }

  static FUSEDRNN_DEVICE void forward(const float (&x)[3], const float (&sums)[3], float bias_hn, bool, State& s,
                                      float (&kept)[4]) {
    const float n_h = sums[2] + bias_hn;
    const GruState<float> next = gru_pointwise_forward(x[0] + sums[0], x[1] + sums[1], x[2], n_h, s.h);
    kept[0] = next.r, kept[1] = next.z, kept[2] = next.n, kept[3] = n_h;
    s.h = next.h;
  }
  static FUSEDRNN_DEVICE void backward(float dh, const Past<float, 4>& past, bool, State& d, float (&dgates)[4]) {
    const GruGradient<float> g = gru_pointwise_backward(dh, past.gates[1], past.gates[2], past.h_prev);
    const GruResetGradient<float> reset = gru_reset_after_backward(g.dn, past.gates[0], past.gates[3]);
    dgates[0] = reset.dr, dgates[1] = g.dz, dgates[2] = g.dn, dgates[3] = reset.dn_h;
    d.h = g.carry;
  }
};

}  // namespace fusedrnn::cuda
