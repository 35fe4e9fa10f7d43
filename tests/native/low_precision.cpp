// Products in low precision: every instruction set of this processor against the definition, and the one that most
// processors lack, emulated, against all of them. Sums of integers are exact; sums of bfloat16 have the same bits
// wherever multiply-adds are fused.
#include "../../csrc/core/low_precision.hpp"

#include <bit>
#include <cmath>

#include "../../csrc/core/dispatch.hpp"
#include "../../csrc/core/subnormals.hpp"
#include "checks.hpp"

namespace fusedrnn {
#if defined(FUSEDRNN_EMULATED)
namespace emulated {
extern const LowPrecisionTable table_low_precision;
}
#endif
}  // namespace fusedrnn

using namespace fusedrnn;

namespace {

struct Case {
  int64_t rows, units, depth;
  std::vector<float> x, weights, bias;
};

// Numbers of many sizes, some of them so small that they or their products are flushed.
Case random_case(int64_t rows, int64_t units, int64_t depth) {
  std::mt19937 g(unsigned(rows * 10007 + units * 101 + depth));
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> exponent(-3, 3), rare(0, 40);
  const auto draw = [&](int64_t n) {
    std::vector<float> v(static_cast<std::size_t>(n));
    for (float& e : v) e = std::ldexp(normal(g), rare(g) == 0 ? -130 : rare(g) == 1 ? -70 : exponent(g));
    return v;
  };
  return {rows, units, depth, draw(rows * depth), draw(units * depth), draw(units)};
}

// out from bias, then once more on top of that; the units in `parts` shares.
std::vector<float> product(const LowPrecisionTable& table, Precision precision, const Case& c, int64_t parts) {
  const FlushSubnormals flush;
  Memory memory;
  const LowPrecisionWeights weights(memory, table, precision, c.units, c.depth, c.weights.data());
  const int64_t stride = c.units + 3;  // what lies between rows stays
  std::vector<float> out(std::size_t(c.rows * stride), 7);
  for (const float* bias : {c.bias.data(), static_cast<const float*>(nullptr)})
    for (int64_t i = 0; i < parts; ++i)
      weights.multiply(c.rows, {i, parts}, {c.x.data(), c.depth}, bias, {out.data(), stride});
  return out;
}

float rounded_to_bfloat16(float x) {
  if (std::fabs(x) < 0x1p-126f) return 0;
  int exponent;
  const double fraction = std::frexp(double(x), &exponent);
  return float(std::ldexp(std::nearbyint(fraction * 256), exponent - 8));
}

// A row as numbers whose products are summed exactly, times what it returns.
double rounded(Precision precision, const float* row, int64_t depth, std::vector<double>& to) {
  to.clear();
  if (precision == Precision::bfloat16) {
    for (int64_t k = 0; k < depth; ++k) to.push_back(rounded_to_bfloat16(row[k]));
    return 1;
  }
  float largest = 0;
  for (int64_t k = 0; k < depth; ++k) largest = std::max(largest, std::fabs(row[k]));
  if (largest < 0x1p-118f) {
    to.assign(std::size_t(depth), 0);
    return 0;
  }
  const float factor = 127 / largest;
  for (int64_t k = 0; k < depth; ++k) to.push_back(std::nearbyint(row[k] * factor));
  return largest / 127.0;
}

double largest_error(Precision precision, const Case& c, const std::vector<float>& out) {
  std::vector<double> x, w;
  double worst = 0;
  for (int64_t r = 0; r < c.rows; ++r) {
    const double x_scale = rounded(precision, &c.x[std::size_t(r * c.depth)], c.depth, x);
    for (int64_t u = 0; u < c.units; ++u) {
      const double scale = x_scale * rounded(precision, &c.weights[std::size_t(u * c.depth)], c.depth, w);
      double sum = 0, size = std::fabs(c.bias[std::size_t(u)]);
      for (std::size_t k = 0; k < x.size(); ++k) {
        sum += x[k] * w[k] * scale;
        size += 2 * std::fabs(x[k] * w[k] * scale);
      }
      const double error = out[std::size_t(r * (c.units + 3) + u)] - (c.bias[std::size_t(u)] + 2 * sum);
      worst = std::max(worst, std::fabs(error) / (size + 1e-30));
    }
  }
  return worst;
}

void test(Precision precision, int64_t rows, int64_t units, int64_t depth) {
  const Case c = random_case(rows, units, depth);
  const std::string what = std::string(precision == Precision::int8 ? "int8" : "bfloat16") + " rows " +
                           std::to_string(rows) + " units " + std::to_string(units) + " depth " + std::to_string(depth);
  // Half a unit in the last place for each rounding: of both scales, their product, the sum as a float and the two
  // additions; or of every term of a sum, which the baseline rounds twice, and the two additions.
  const double bound = double(precision == Precision::int8 ? 6 : 2 * depth + 2) * 0x1p-24;
  std::vector<float> fused;  // of an instruction set with fused multiply-adds
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    const std::vector<float> out = product(low_precision_kernels(), precision, c, 1);
    const double error = largest_error(precision, c, out);
    check(error <= bound, what + " " + isa + " errs by " + std::to_string(error / bound) + " of the bound");
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t u = 0; u < 3; ++u) check(out[std::size_t(r * (units + 3) + units + u)] == 7, what + ": the gap");
    check(product(low_precision_kernels(), precision, c, 3) == out, what + " " + isa + ": parts");
    if (isa == "avx2" || isa == "avx512") fused = out;
  }
#if defined(FUSEDRNN_EMULATED)
  const std::vector<float> out = product(emulated::table_low_precision, precision, c, 1);
  check(largest_error(precision, c, out) <= bound, what + " emulated");
  check(product(emulated::table_low_precision, precision, c, 3) == out, what + " emulated: parts");
  if (!fused.empty()) check(fused == out, what + ": emulated and fused sets differ");
#endif
}

// Whole layers, for the sanitizers above all: what is kept for backward changes no result, gradients are finite, and
// arrays in bfloat16 give the bits of the same numbers in float32.
void test_layer(LowPrecisionCell cell, Precision precision, bool reverse, bool uneven) {
  constexpr int64_t T = 5, N = 3, I = 7, H = 19;
  const int64_t batch_sizes[T] = {2, 2, 2, 1, 1};  // of 3 rows one has no steps
  const uint8_t resets[T * N] = {0, 1, 0, 0, 1, 0, 0, 0, 1};
  Shape shape{T, N, I, H};
  if (uneven) {
    shape.batch_sizes = batch_sizes;
    shape.resets = resets;
  }
  const int64_t gates = cell == LowPrecisionCell::lstm ? 4 : cell >= LowPrecisionCell::gru ? 3 : 1;
  const bool trains = precision == Precision::bfloat16 && cell != LowPrecisionCell::gru_reset_before;
  std::mt19937 g(1);
  std::normal_distribution<float> normal(0, 0.5f);
  using Halves = std::vector<uint16_t>;
  const auto draw = [&](int64_t n) {
    Halves halves(static_cast<std::size_t>(n));
    for (uint16_t& e : halves) e = uint16_t(std::bit_cast<uint32_t>(normal(g)) >> 16);
    std::vector<float> v(halves.size());
    widen(halves.data(), n, v.data());
    return std::pair{v, halves};
  };
  const auto [x, x_half] = draw(T * N * I);
  const auto [weight_ih, weight_ih_half] = draw(gates * H * I);
  const auto [weight_hh, weight_hh_half] = draw(gates * H * H);
  const auto h0 = draw(N * H).first, c0 = draw(N * H).first, bias = draw(gates * H).first, dy = draw(T * N * H).first;
  struct Gradients {
    std::vector<float> dx, dh0, dc0, dweight_ih, dweight_hh, dbias;
    bool operator==(const Gradients&) const = default;
  };
  std::vector<float> y[3], h_n(N * H), c_n(N * H), reserve(std::size_t(T * N * 5 * H));
  Gradients of_run[2];
  const std::string what = "cell " + std::to_string(int(cell));
  for (int run = 0; run < 3; ++run) {  // inference; then, if it trains, training from float32 and from bfloat16
    const bool halves = run == 2, keep = run > 0 && trains;
    const Factor of_x = halves ? Factor(x_half.data()) : Factor(x.data()),
                 ih = halves ? Factor(weight_ih_half.data()) : Factor(weight_ih.data()),
                 hh = halves ? Factor(weight_hh_half.data()) : Factor(weight_hh.data());
    y[run].resize(T * N * H);
    low_precision_forward({.precision = precision,
                           .cell = cell,
                           .shape = shape,
                           .reverse = reverse,
                           .x = of_x,
                           .h0 = h0.data(),
                           .c0 = c0.data(),
                           .weight_ih = ih,
                           .weight_hh = hh,
                           .bias_ih = bias.data(),
                           .bias_hh = nullptr,
                           .y = y[run].data(),
                           .h_n = h_n.data(),
                           .c_n = c_n.data(),
                           .reserve = keep ? reserve.data() : nullptr});
    for (const float v : y[run]) check(std::isfinite(v), what + ": y is not finite");
    check(y[run] == y[0], what + (halves ? ": bfloat16 and float32 differ" : ": training and inference differ"));
    if (!keep) continue;
    Gradients& d = of_run[run - 1];
    d = {std::vector<float>(T * N * I),
         std::vector<float>(N * H),
         std::vector<float>(N * H),
         std::vector<float>(weight_ih.size()),
         std::vector<float>(weight_hh.size()),
         std::vector<float>(bias.size())};
    LowPrecisionBackward p{};
    p.cell = cell;
    p.shape = shape;
    p.reverse = reverse;
    p.dy = dy.data();
    p.x = of_x;
    p.weight_ih = ih;
    p.weight_hh = hh;
    p.h0 = h0.data();
    p.c0 = c0.data();
    p.y = y[run].data();
    p.reserve = reserve.data();
    p.dx = d.dx.data();
    p.dh0 = d.dh0.data();
    p.dc0 = d.dc0.data();
    p.dweight_ih = d.dweight_ih.data();
    p.dweight_hh = d.dweight_hh.data();
    p.dbias_ih = d.dbias.data();
    low_precision_backward(p);
    for (const auto* gradient : {&d.dx, &d.dh0, &d.dweight_ih, &d.dweight_hh, &d.dbias}) {
      float largest = 0;
      for (const float v : *gradient) largest = std::max(largest, std::isfinite(v) ? std::fabs(v) : 1e9f);
      check(largest > 1e-3f && largest < 1e3f, what + ": a gradient's size");
    }
  }
  check(of_run[0] == of_run[1], what + ": gradients of bfloat16 and float32 differ");
}

}  // namespace

int main() {
  using Cell = LowPrecisionCell;
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    for (const Cell cell : {Cell::rnn_tanh, Cell::rnn_relu, Cell::lstm, Cell::gru, Cell::gru_reset_before})
      for (const Precision precision : {Precision::bfloat16, Precision::int8})
        for (const bool reverse : {false, true})
          for (const bool uneven : {false, true})
            if (!(reverse && uneven)) test_layer(cell, precision, reverse, uneven);
  }
  for (const Precision precision : {Precision::bfloat16, Precision::int8})
    for (const int64_t units : {1, 16, 17, 31, 96, 100})
      for (const int64_t depth : {1, 2, 3, 5, 8, 63, 130})
        for (const int64_t rows : {1, 2, 7, 29}) test(precision, rows, units, depth);
  return report();
}
