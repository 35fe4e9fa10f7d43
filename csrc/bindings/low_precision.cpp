#include "../core/low_precision.hpp"

#include "call.hpp"

namespace fusedrnn::bindings {
namespace {

// float32 or bfloat16, each array on its own.
py::array checked_either(const py::object& object, const char* name) {
  py::array a = as_array(object, name);
  if (!py::isinstance<py::array_t<float>>(a) && !is_bfloat16(a))
    throw py::type_error(std::string(name) + ": expected float32 or bfloat16 together with precision, got " +
                         dtype_text(a));
  return a;
}

// One side of a product, read in place.
Factor factor(const py::object& object, const char* name, const std::vector<int64_t>& shape) {
  const py::array a = checked_either(object, name);
  require_shape(a, name, shape);
  require_contiguous(a, name);
  if (is_bfloat16(a)) return static_cast<const uint16_t*>(a.data());
  return static_cast<const float*>(a.data());
}

// An initial state or bias, which no product rounds: as float32, small enough for a copy where it was none.
class Small {
 public:
  Small() = default;
  Small(const py::object& object, const char* name, const std::vector<int64_t>& shape, Owned& owned) {
    if (object.is_none()) return;
    array_ = checked_either(object, name);
    require_shape(array_, name, shape);
    require_contiguous(array_, name);
    owned.keep(array_, name);
    if (!is_bfloat16(array_)) return;
    auto wide = empty<float>(shape);
    widen(static_cast<const uint16_t*>(array_.data()), array_.size(), wide.mutable_data());
    array_ = wide;
  }
  const float* data() const { return array_ ? static_cast<const float*>(array_.data()) : nullptr; }

 private:
  py::array array_ = py::reinterpret_steal<py::array>(py::handle());
};

// Products of bfloat16 or int8; all else is float32.
class LowPrecisionCall : public Call {
 public:
  explicit LowPrecisionCall(const CallArguments& a) : Call(checked_x(a)), cell_(low_precision_cell(settings)) {
    if (!settings.changed.empty() || a.parameters.size() > 4) {
      for (std::size_t k = 4; k < a.parameters.size(); ++k)
        if (!a.parameters[k].is_none()) refuse_options();
      if (!settings.changed.empty()) refuse_options();
    }
    if (settings.recompute) throw py::value_error("precision: expected None together with recompute");
    const py::object x = Argument::of(a.x), ih = Argument::of(a.parameters[0]), hh = Argument::of(a.parameters[1]);
    P = H = hidden_size(checked_either(ih, "weight_ih"), checked_either(hh, "weight_hh"), settings.gates());
    set_hidden(data, H);
    const bool rnn = settings.cell == CellKind::rnn;
    reserve_width = (rnn ? 0 : settings.cell == CellKind::lstm ? 5 : 4) * H;
    require_int8_sums(*settings.precision, data.shape.inputs, H);
    x_ = factor(x, "x", data.of(data.shape.inputs));
    weight_ih_ = factor(ih, "weight_ih", shape_of_parameter(0));
    weight_hh_ = factor(hh, "weight_hh", shape_of_parameter(1));
    owned.keep(as_array(x, "x"), "x");
    owned.keep(as_array(ih, "weight_ih"), "weight_ih");
    owned.keep(as_array(hh, "weight_hh"), "weight_hh");
    static const char* const names[] = {"h0", "c0"};
    for (std::size_t k = 0; k < states(); ++k)
      state_[k] = Small(Argument::of(a.states[k]), names[k], state_shape(k), owned);
    static const char* const biases[] = {"bias_ih", "bias_hh"};
    for (std::size_t k = 0; k < 2; ++k)
      if (k + 2 < a.parameters.size())
        bias_[k] = Small(Argument::of(a.parameters[k + 2]), biases[k], shape_of_parameter(k + 2), owned);
    present = {true, true, bias_[0].data() != nullptr, bias_[1].data() != nullptr};
  }

  void forward(const ForwardArrays& f) const override {
    const LowPrecisionForward p{.precision = *settings.precision,
                                .cell = cell_,
                                .shape = data.shape,
                                .reverse = settings.reverse,
                                .x = x_,
                                .h0 = state_[0].data(),
                                .c0 = state_[1].data(),
                                .weight_ih = weight_ih_,
                                .weight_hh = weight_hh_,
                                .bias_ih = bias_[0].data(),
                                .bias_hh = bias_[1].data(),
                                .y = static_cast<float*>(f.y),
                                .h_n = static_cast<float*>(f.h_n),
                                .c_n = static_cast<float*>(f.c_n),
                                .reserve = static_cast<float*>(f.reserve)};
    data.ragged ? forward_ragged(*data.ragged, p, H, low_precision_forward) : low_precision_forward(p);
  }

  void backward(const BackwardArrays& b) const override {
    const auto parameter = [&](std::size_t k) { return static_cast<float*>(b.dparameters[k]); };
    const LowPrecisionBackward p{.cell = cell_,
                                 .shape = data.shape,
                                 .reverse = settings.reverse,
                                 .dy = static_cast<const float*>(b.dy),
                                 .dh_n = static_cast<const float*>(b.dh_n),
                                 .dc_n = static_cast<const float*>(b.dc_n),
                                 .x = x_,
                                 .weight_ih = weight_ih_,
                                 .weight_hh = weight_hh_,
                                 .h0 = state_[0].data(),
                                 .c0 = state_[1].data(),
                                 .y = static_cast<const float*>(b.y),
                                 .reserve = static_cast<const float*>(b.reserve),
                                 .dx = static_cast<float*>(b.dx),
                                 .dh0 = static_cast<float*>(b.dh0),
                                 .dc0 = static_cast<float*>(b.dc0),
                                 .dweight_ih = parameter(0),
                                 .dweight_hh = parameter(1),
                                 .dbias_ih = parameter(2),
                                 .dbias_hh = parameter(3)};
    data.ragged ? backward_ragged(*data.ragged, p, H, low_precision_backward) : low_precision_backward(p);
  }

  void require_training() const override {
    const bool int8 = settings.precision == Precision::int8;
    if (int8 || cell_ == LowPrecisionCell::gru_reset_before)
      throw py::value_error(std::string("training: expected False ") + (int8 ? "for int8" : "with reset_after=False") +
                            ", got True");
  }
  void require_c() const override { refuse_options(); }
  void require_c_gradient() const override {
    throw py::value_error("dc: expected None, as forward was called with a precision");
  }

 private:
  static CallArguments checked_x(const CallArguments& a) {
    CallArguments checked = a;
    checked.x = checked_either(Argument::of(a.x), "x");
    return checked;
  }
  [[noreturn]] static void refuse_options() {
    throw py::value_error("precision: expected None together with options that change the equations or the results");
  }

  const LowPrecisionCell cell_;
  Factor x_, weight_ih_, weight_hh_;
  Small state_[2], bias_[2];
};

}  // namespace

LowPrecisionCell low_precision_cell(const Settings& s) {
  using Cell = LowPrecisionCell;
  switch (s.cell) {
    case CellKind::rnn:
      return s.gate == Activation::relu ? Cell::rnn_relu : Cell::rnn_tanh;
    case CellKind::lstm:
      return Cell::lstm;
    default:
      return s.reset_after ? Cell::gru : Cell::gru_reset_before;
  }
}

void require_int8_sums(Precision precision, int64_t inputs, int64_t hidden) {
  if (precision == Precision::int8 && std::max(inputs, hidden) > longest_int8_sum)
    throw py::value_error("precision: expected bfloat16 for sums of more than " + std::to_string(longest_int8_sum) +
                          " terms, got int8");
}

std::unique_ptr<Call> make_low_precision(const CallArguments& a) { return std::make_unique<LowPrecisionCall>(a); }

}  // namespace fusedrnn::bindings
