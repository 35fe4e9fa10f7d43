#include "low_precision.hpp"

#include <bit>
#include <cstring>
#include <optional>

#include "dispatch.hpp"

namespace fusedrnn {
namespace {

// Products in low precision write their float32 sums to memory, from where the step kernels of the plain cells finish:
// they are given no operands and start from partial sums. The input's product comes first, for all steps of a block.
class FrozenLowPrecision final : public Frozen<float> {
 public:
  FrozenLowPrecision(Precision precision, LowPrecisionCell cell, int64_t N, int64_t I, int64_t H, Factor weight_ih,
                     Factor weight_hh, const float* bias_ih, const float* bias_hh)
      : Frozen<float>(N, I, H),
        k_(kernels<float>()),
        cell_(cell),
        element_(precision == Precision::int8 ? 1 : 2),
        gates_(rnn()    ? 1
               : lstm() ? 4
                        : 3),
        columns_((rnn()               ? 1
                  : lstm() || after() ? 4
                                      : 3) *
                 H),
        input_(memory_, low_precision_kernels(), precision, gates_ * H, I, weight_ih),
        recurrent_(memory_, low_precision_kernels(), precision, (gru() ? 2 : gates_) * H, H, weight_hh),
        bias_(memory_.take<float>(columns_)),
        sums_(memory_.take<float>(N * columns_)),
        reset_h_(memory_.take<float>(N * H)),
        c_(memory_.zeros<float>(N * H)) {
    if (gru()) candidate_.emplace(memory_, low_precision_kernels(), precision, H, H, weight_hh, 2 * H * H);
    const int64_t shared = after() ? 2 * H : gates_ * H;
    add_biases(bias_, bias_ih, bias_hh, shared);
    if (!after()) return;
    copy_or_zero(bias_ + 2 * H, bias_ih ? bias_ih + 2 * H : nullptr, H);
    copy_or_zero(bias_ + 3 * H, bias_hh ? bias_hh + 2 * H : nullptr, H);
  }

  float* c() override { return has_c() ? c_ : nullptr; }
  bool has_c() const override { return lstm(); }

  void sequence(const Sequence<float>& s) const override {
    LowPrecisionForward p{};
    p.shape = {s.steps, s.batch, inputs, hidden};
    p.reverse = s.reverse;
    p.x = s.x;
    p.h0 = s.h0;
    p.c0 = s.c0;
    p.y = s.y;
    p.h_n = s.h_n;
    p.c_n = s.c_n;
    run(p);
  }

  // With the layer's own weights.
  void run(const LowPrecisionForward& p) const {
    const int64_t T_ = p.shape.steps, N = p.shape.batch, I = inputs, H = hidden;
    float* const reserve = p.reserve;
    Scratch scratch;
    const float* const zeros = scratch.zeros<float>(N * H);
    const float *const h0 = p.h0 ? p.h0 : zeros, *const c0 = p.c0 ? p.c0 : zeros;
    if (lstm() && !reserve) copy(p.c_n, c0, N * H);
    const Steps order(p.shape, p.reverse, columns_);
    const Sharing sharing(p.shape, gates_, H, element_);
    const int64_t stride = rnn() ? H : spread<float>(columns_), R = kept();
    float* const sums = rnn() ? nullptr : scratch.take<float>(order.block_rows() * stride);
    float* const reset_h = scratch.take<float>(N * H);
    // An LSTM's c of a step's row: in the reserve, or in place.
    const auto c_at = [&](int64_t step, int64_t a) -> Rows<float> {
      if (!lstm()) return {};
      return reserve ? Rows<float>{reserve + (order.row(step) + a) * R + 4 * H, R} : Rows<float>{p.c_n + a * H, H};
    };
    const auto c_prev = [&](int64_t step, int64_t a, bool reset) -> Rows<const float> {
      if (reset) return {zeros, H};
      if (step == 0) return {(reserve ? c0 : p.c_n) + a * H, H};
      return c_at(step - 1, a).read();
    };
    for (int64_t first = 0, last; first < T_; first = last) {
      last = order.block_end(first);
      const int64_t from = order.row_from(first, last), rows = order.count(first, last);
      float* const of_block = rnn() ? p.y + from * H : sums;  // the RNN's sums wait in y
      parallel_rows(rows, 2.0 * double(rows) * double(gates_ * I * H), [&](int64_t a, int64_t b) {
        Scratch of_rows;
        const float* const factor = p.x.read(of_rows, (from + a) * I, (b - a) * I);
        input_.multiply(b - a, {}, {factor, I}, bias_, {of_block + a * stride, stride});
      });
      const double flops = 2.0 * double(rows) * double(gates_ * H * H);
      sharing.walk_phases(
          first, last, phases(), flops, [&](int64_t step, int64_t phase, int64_t slice, int64_t slice_end, Part part) {
            order.runs(step, slice, slice_end, [&](int64_t a, int64_t b, bool reset) {
              const int64_t row = order.row(step) + a;
              advance(phase, part, b - a,
                      {.h_prev = reset ? zeros : (step == 0 ? h0 : p.y + order.row(step - 1) * H) + a * H,
                       .sums = {of_block + (row - from) * stride, stride},
                       .gates = {reserve && !rnn() ? reserve + row * R : nullptr, R},
                       .c_prev = lstm() ? c_prev(step, a, reset) : Rows<const float>{},
                       .c = c_at(step, a),
                       .reset_h = reset_h + a * H,
                       .y = p.y + row * H});
            });
          });
    }
    last_states(order, N, H, h0, p.y, H, p.h_n);
    if (lstm() && reserve) last_states(order, N, H, c0, reserve + 4 * H, R, p.c_n);
  }

 private:
  struct State {
    const float* h_prev;  // [rows, H]
    Rows<float> sums;     // [rows, columns]; the RNN's are y
    Rows<float> gates;    // what is kept of them, or null
    Rows<const float> c_prev;
    Rows<float> c;
    float *reset_h, *y;
  };

  bool rnn() const { return cell_ == LowPrecisionCell::rnn_tanh || cell_ == LowPrecisionCell::rnn_relu; }
  bool lstm() const { return cell_ == LowPrecisionCell::lstm; }
  bool gru() const { return !rnn() && !lstm(); }
  bool after() const { return cell_ == LowPrecisionCell::gru; }
  int64_t kept() const { return (lstm() ? 5 : rnn() ? 0 : 4) * hidden; }
  int64_t phases() const { return gru() && !after() ? 4 : 2; }

  void advance(const float* x, const float* h_prev, float* h) override {
    const Rows<float> c{c_, hidden};
    const State state{h_prev, rnn() ? Rows<float>{h, hidden} : Rows<float>{sums_, columns_}, {}, c.read(), c, reset_h_,
                      h};
    input_.multiply(batch, {}, {x, inputs}, bias_, state.sums);
    for (int64_t phase = 0; phase < phases(); ++phase) advance(phase, {}, batch, state);
  }

  void advance(int64_t phase, Part part, int64_t rows, const State& s) const {
    const int64_t H = hidden;
    const Rows<const float> h_prev{s.h_prev, H};
    const auto sums = [&](int64_t gate) { return Rows<float>{s.sums.data + gate * H, s.sums.stride}; };
    switch (phase) {
      case 0:
        recurrent_.multiply(rows, part, h_prev, nullptr, s.sums);
        if (after()) candidate_->multiply(rows, part, h_prev, bias_ + 3 * H, sums(3));
        break;
      case 1:
        finish(part, rows, s);
        break;
      case 2:
        candidate_->multiply(rows, part, {s.reset_h, H}, nullptr, sums(2));
        break;
      default:
        k_.gru_candidate({.rows = rows,
                          .units = H,
                          .part = part,
                          .reset_h = {},
                          .keep = false,
                          .gates = s.sums.data,
                          .gates_stride = s.sums.stride,
                          .h_prev = s.h_prev,
                          .h_prev_stride = H,
                          .y = s.y,
                          .y_stride = H});
    }
  }

  // From the sums to the state; with reset before to r, z and r * h.
  void finish(Part part, int64_t rows, const State& s) const {
    const int64_t H = hidden;
    if (rnn())
      return k_.rnn_forward({.rows = rows,
                             .units = H,
                             .part = part,
                             .x = {},
                             .h = {},
                             .bias = nullptr,
                             .finish = true,
                             .relu = cell_ == LowPrecisionCell::rnn_relu,
                             .y = s.y,
                             .y_stride = H});
    const auto common = [&](auto step) {
      step.rows = rows;
      step.units = H;
      step.part = part;
      step.finish = true;
      step.partial = s.sums.data;
      step.partial_stride = s.sums.stride;
      step.keep = s.gates.data != nullptr;
      step.gates = s.gates.data;
      step.gates_stride = s.gates.stride;
      step.y = s.y;
      step.y_stride = H;
      return step;
    };
    if (lstm()) {
      auto step = common(LstmForwardStep<float>{});
      step.c_prev = s.c_prev.data;
      step.c_prev_stride = s.c_prev.stride;
      step.c = s.c.data;
      step.c_stride = s.c.stride;
      return k_.lstm_forward(step);
    }
    auto step = common(GruForwardStep<float>{});
    step.h_prev = s.h_prev;
    step.h_prev_stride = H;
    if (after()) return k_.gru_forward(step);
    step.gates = step.partial;
    step.gates_stride = step.partial_stride;
    step.y = s.reset_h;
    k_.gru_reset_forward(step);
  }

  const KernelTable<float>& k_;
  LowPrecisionCell cell_;
  std::size_t element_;
  int64_t gates_, columns_;                       // columns: of the sums
  LowPrecisionWeights input_, recurrent_;         // recurrent: of all gates, but of a GRU's r and z alone
  std::optional<LowPrecisionWeights> candidate_;  // a GRU's n
  float *bias_, *sums_, *reset_h_, *c_;
};

}  // namespace

void widen(const uint16_t* bfloat16, int64_t count, float* to) {
  constexpr int64_t together = 8;  // by the compiler's vectors: -O2 makes none of a loop
  using Halves [[gnu::vector_size(2 * together)]] = uint16_t;
  using Words [[gnu::vector_size(4 * together)]] = uint32_t;
  int64_t i = 0;
  for (; i + together <= count; i += together) {
    Halves halves;
    std::memcpy(&halves, bfloat16 + i, sizeof halves);
    const Words words = __builtin_convertvector(halves, Words) << 16;
    std::memcpy(to + i, &words, sizeof words);
  }
  for (; i < count; ++i) to[i] = std::bit_cast<float>(uint32_t(bfloat16[i]) << 16);
}

void low_precision_forward(const LowPrecisionForward& p) {
  const FrozenLowPrecision layer(p.precision, p.cell, 0, p.shape.inputs, p.shape.hidden, p.weight_ih, p.weight_hh,
                                 p.bias_ih, p.bias_hh);
  layer.run(p);
}

std::unique_ptr<Frozen<float>> frozen_low_precision(Precision precision, LowPrecisionCell cell, int64_t batch,
                                                    int64_t inputs, int64_t hidden, const float* weight_ih,
                                                    const float* weight_hh, const float* bias_ih,
                                                    const float* bias_hh) {
  return std::make_unique<FrozenLowPrecision>(precision, cell, batch, inputs, hidden, weight_ih, weight_hh, bias_ih,
                                              bias_hh);
}

}  // namespace fusedrnn
