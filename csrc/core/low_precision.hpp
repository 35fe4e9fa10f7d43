// Weights of one product, rounded to bfloat16 or int8 and packed once, and layers made of such products.
#pragma once

#include <memory>

#include "../kernels/low_precision_table.hpp"
#include "frozen.hpp"
#include "pack.hpp"
#include "sequence.hpp"

namespace fusedrnn {

enum class Precision { bfloat16, int8 };

// Terms of an int8 sum that never leave int32.
constexpr int64_t longest_int8_sum = int64_t(1) << 17;

// As float32, which holds every bfloat16.
void widen(const uint16_t* bfloat16, int64_t count, float* to);

// An array of one side of a product, which is read to be rounded and for nothing else: float32, or bfloat16, whose rows
// are widened when their turn has come.
class Factor {
 public:
  Factor() = default;
  Factor(const float* array) : float32_(array) {}
  Factor(const uint16_t* array) : bfloat16_(array) {}

  const float* read(Scratch& scratch, int64_t first, int64_t count) const {
    if (!bfloat16_) return float32_ + first;
    float* const to = scratch.take<float>(count);
    widen(bfloat16_ + first, count, to);
    return to;
  }

  // What f makes of the array, as a Factor again.
  template <class F>
  Factor map(F f) const {
    return bfloat16_ ? Factor(f(bfloat16_)) : Factor(f(float32_));
  }

 private:
  const float* float32_ = nullptr;
  const uint16_t* bfloat16_ = nullptr;
};

class LowPrecisionWeights {
 public:
  // weights: [units, depth] from element `first` on.
  template <class Owner>
  LowPrecisionWeights(Owner& memory, const LowPrecisionTable& table, Precision precision, int64_t units, int64_t depth,
                      Factor weights, int64_t first = 0)
      : k_(precision == Precision::int8 ? table.int8 : table.bfloat16),
        units_(units),
        depth_(depth),
        words_((depth + k_.elements - 1) / k_.elements) {
    const int64_t wide = padded(units, table.lanes);
    uint32_t* const panels = memory.template take<uint32_t>(wide * words_);
    float* const scales = k_.scaled ? memory.template zeros<float>(wide) : nullptr;
    uint32_t* const offsets = k_.scaled ? memory.template zeros<uint32_t>(wide) : nullptr;
    for_panels(units, table.lanes, double(units * depth), [&](int64_t unit, int64_t width, int64_t count) {
      Scratch scratch;
      uint32_t* const row = scratch.zeros<uint32_t>(words_);
      for (int64_t i = 0; i < width; ++i) {
        if (i < count) {
          Scratch of_row;
          k_.weights(depth, weights.read(of_row, first + (unit + i) * depth, depth), row,
                     scales ? scales + unit + i : nullptr);
        } else
          zero(row, words_);
        for (int64_t w = 0; w < words_; ++w) panels[unit * words_ + w * width + i] = row[w];
        if (offsets && i < count) offsets[unit + i] = offset(row);
      }
    });
    panels_ = panels;
    scales_ = scales;
    offsets_ = offsets;
  }

  // out [rows, units] = (bias, or what is in out) + x weights', of some of the units.
  void multiply(int64_t rows, Part part, Rows<const float> x, const float* bias, Rows<float> out) const {
    Scratch scratch;
    const int64_t stride = spread<float>(words_ * k_.row_words);
    uint32_t* const words = scratch.take<uint32_t>(rows * stride);
    float* const scales = k_.scaled ? scratch.take<float>(rows) : nullptr;
    k_.rows({rows, depth_, x.data, x.stride, words, stride, scales});
    k_.product(
        {rows, units_, part, {words, stride, panels_, words_}, scales, scales_, offsets_, bias, out.data, out.stride});
  }

 private:
  uint32_t offset(const uint32_t* row) const {
    const auto* const weights = reinterpret_cast<const signed char*>(row);
    int32_t sum = 0;
    for (int64_t i = 0; i < words_ * k_.elements; ++i) sum += weights[i];
    return uint32_t(128) * uint32_t(sum);
  }

  const LowPrecision& k_;
  int64_t units_, depth_, words_;
  const uint32_t* panels_;
  const float* scales_;
  const uint32_t* offsets_;
};

enum class LowPrecisionCell { rnn_tanh, rnn_relu, lstm, gru, gru_reset_before };

// One layer in one direction, its weights rounded for this call alone.
struct LowPrecisionForward {
  Precision precision;
  LowPrecisionCell cell;
  Shape shape;
  bool reverse;
  Factor x;  // this and all others as in cells.hpp
  const float *h0, *c0;
  Factor weight_ih, weight_hh;
  const float *bias_ih, *bias_hh;
  float *y, *h_n, *c_n;
  float* reserve;  // null: inference; not with reset before
};
void low_precision_forward(const LowPrecisionForward&);

// Its gradient in bfloat16: gates' gradients are rounded as well where they are factors, sums are float32. Not with
// reset before.
struct LowPrecisionBackward {
  LowPrecisionCell cell;
  Shape shape;
  bool reverse;
  const float *dy, *dh_n, *dc_n;  // any may be null
  Factor x, weight_ih, weight_hh;
  const float *h0, *c0, *y, *reserve;
  float *dx, *dh0, *dc0;  // dx may be null; dc0 of an LSTM alone
  float *dweight_ih, *dweight_hh, *dbias_ih, *dbias_hh;
};
void low_precision_backward(const LowPrecisionBackward&);

// As in frozen.hpp, weights [G H, I], [G H, H] and biases [G H] or null.
std::unique_ptr<Frozen<float>> frozen_low_precision(Precision precision, LowPrecisionCell cell, int64_t batch,
                                                    int64_t inputs, int64_t hidden, const float* weight_ih,
                                                    const float* weight_hh, const float* bias_ih, const float* bias_hh);

}  // namespace fusedrnn
