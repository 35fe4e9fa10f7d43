#include "../core/low_precision.hpp"

#include <string>

#include "data.hpp"

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
  Small(const py::object& object, const char* name, const std::vector<int64_t>& shape) {
    if (object.is_none()) return;
    array_ = checked_either(object, name);
    require_shape(array_, name, shape);
    require_contiguous(array_, name);
    if (!is_bfloat16(array_)) return;
    auto wide = empty<float>(shape);
    widen(static_cast<const uint16_t*>(array_.data()), array_.size(), wide.mutable_data());
    array_ = wide;
  }
  const float* data() const { return array_ ? static_cast<const float*>(array_.data()) : nullptr; }

 private:
  py::array array_ = py::reinterpret_steal<py::array>(py::handle());
};

// A call's sizes and what it computes.
struct LowPrecisionCall {
  LowPrecisionCell cell;
  Data data;
  int64_t N, I, H, gates;
  bool lstm, rnn;

  LowPrecisionCall(const std::string& name, const py::object& x, const py::object& weight_ih,
                   const py::object& weight_hh, const py::object& lengths, const py::object& batch_sizes,
                   const py::object& resets, bool reverse) {
    const std::vector<std::string> names{"rnn_tanh", "rnn_relu", "lstm", "gru", "gru_reset_before"};
    std::size_t i = 0;
    while (i < names.size() && names[i] != name) ++i;
    if (i == names.size()) throw py::value_error("nonlinearity: expected tanh or relu, got " + name);
    cell = LowPrecisionCell(i);
    rnn = i < 2;
    lstm = cell == LowPrecisionCell::lstm;
    gates = rnn ? 1 : lstm ? 4 : 3;
    data = read_data(checked_either(x, "x"), lengths, batch_sizes, resets, reverse);
    N = data.shape.batch;
    I = data.shape.inputs;
    H = hidden_size(checked_either(weight_ih, "weight_ih"), checked_either(weight_hh, "weight_hh"), gates);
    set_hidden(data, H);
  }

  std::vector<int64_t> reserve() const { return data.of((rnn ? 0 : lstm ? 5 : 4) * H); }
};

py::tuple call_forward(const std::string& cell, const std::string& precision, const Argument& x, const Argument& h0,
                       const Argument& c0, const Argument& weight_ih, const Argument& weight_hh,
                       const Argument& bias_ih, const Argument& bias_hh, const py::object& lengths,
                       const py::object& batch_sizes, const py::object& resets, bool reverse, bool training,
                       const py::object& given_y) {
  const LowPrecisionCall call(cell, x, weight_ih, weight_hh, lengths, batch_sizes, resets, reverse);
  const auto [N, I, H, rows] = std::array{call.N, call.I, call.H, call.gates * call.H};
  const Data& d = call.data;
  require_int8_sums(precision, I, H);
  const Small of_h0(h0, "h0", {N, H}), of_c0(c0, "c0", {N, H});
  const Small of_bias_ih(bias_ih, "bias_ih", {rows}), of_bias_hh(bias_hh, "bias_hh", {rows});
  auto y = given_or_empty<float>(given_y, "y", "h_n", d.of(H)), h_n = empty<float>({N, H});
  LowPrecisionForward p{.precision = precision == "int8" ? Precision::int8 : Precision::bfloat16,
                        .cell = call.cell,
                        .shape = d.shape,
                        .reverse = reverse,
                        .x = factor(x, "x", d.of(I)),
                        .h0 = of_h0.data(),
                        .c0 = of_c0.data(),
                        .weight_ih = factor(weight_ih, "weight_ih", {rows, I}),
                        .weight_hh = factor(weight_hh, "weight_hh", {rows, H}),
                        .bias_ih = of_bias_ih.data(),
                        .bias_hh = of_bias_hh.data(),
                        .y = y.mutable_data(),
                        .h_n = h_n.mutable_data(),
                        .c_n = nullptr,
                        .reserve = nullptr};
  py::object c_n = py::none(), reserve = py::none();
  if (call.lstm) {
    auto array = empty<float>({N, H});
    p.c_n = array.mutable_data();
    c_n = array;
  }
  if (training) {
    auto buffer = empty<float>(call.reserve());
    p.reserve = buffer.mutable_data();
    reserve = buffer;
  }
  run_forward(d, p, H, low_precision_forward);
  return py::make_tuple(y, h_n, c_n, reserve);
}

py::tuple call_backward(const std::string& cell, const Argument& dy, const Argument& dh_n, const Argument& dc_n,
                        const Argument& x, const Argument& h0, const Argument& c0, const Argument& y,
                        const Argument& weight_ih, const Argument& weight_hh, const Argument& reserve,
                        const py::object& lengths, const py::object& batch_sizes, const py::object& resets,
                        bool reverse, bool input_grad, const Argument& dweight_ih, const Argument& dweight_hh,
                        const Argument& dbias_ih, const Argument& dbias_hh) {
  const LowPrecisionCall call(cell, x, weight_ih, weight_hh, lengths, batch_sizes, resets, reverse);
  const auto [N, I, H, rows] = std::array{call.N, call.I, call.H, call.gates * call.H};
  const Data& d = call.data;
  const Small of_h0(h0, "h0", {N, H}), of_c0(c0, "c0", {N, H});
  LowPrecisionBackward p{.cell = call.cell,
                         .shape = d.shape,
                         .reverse = reverse,
                         .dy = optional_input<float>(dy, "dy", "y", d.of(H)),
                         .dh_n = optional_input<float>(dh_n, "dh_n", "y", {N, H}),
                         .dc_n = optional_input<float>(dc_n, "dc_n", "y", {N, H}),
                         .x = factor(x, "x", d.of(I)),
                         .weight_ih = factor(weight_ih, "weight_ih", {rows, I}),
                         .weight_hh = factor(weight_hh, "weight_hh", {rows, H}),
                         .h0 = of_h0.data(),
                         .c0 = of_c0.data(),
                         .y = input<float>(y, "y", "x", d.of(H)),
                         .reserve = input<float>(reserve, "reserve", "x", call.reserve()),
                         .dx = nullptr,
                         .dh0 = nullptr,
                         .dc0 = nullptr,
                         .dweight_ih = output<float>(dweight_ih, "dweight_ih", "y", {rows, I}),
                         .dweight_hh = output<float>(dweight_hh, "dweight_hh", "y", {rows, H}),
                         .dbias_ih = optional_output<float>(dbias_ih, "dbias_ih", "y", {rows}),
                         .dbias_hh = optional_output<float>(dbias_hh, "dbias_hh", "y", {rows})};
  auto dh0 = empty<float>({N, H});
  p.dh0 = dh0.mutable_data();
  py::object dx = py::none(), dc0 = py::none();
  if (input_grad) {
    auto array = empty<float>(d.of(I));
    p.dx = array.mutable_data();
    dx = array;
  }
  if (call.lstm) {
    auto array = empty<float>({N, H});
    p.dc0 = array.mutable_data();
    dc0 = array;
  }
  run_backward(d, p, H, low_precision_backward);
  return py::make_tuple(dx, dh0, dc0);
}

}  // namespace

void require_int8_sums(const std::string& precision, int64_t inputs, int64_t hidden) {
  if (precision == "int8" && std::max(inputs, hidden) > longest_int8_sum)
    throw py::value_error("precision: expected bfloat16 for sums of more than " + std::to_string(longest_int8_sum) +
                          " terms, got int8");
}

void register_low_precision(py::module_& m) {
  using namespace py::literals;
  m.def("low_precision_forward", &call_forward, "cell"_a, "precision"_a, "x"_a, "h0"_a, "c0"_a, "weight_ih"_a,
        "weight_hh"_a, "bias_ih"_a, "bias_hh"_a, "lengths"_a, "batch_sizes"_a, "resets"_a, "reverse"_a, "training"_a,
        "y"_a = py::none());
  m.def("low_precision_backward", &call_backward, "cell"_a, "dy"_a, "dh_n"_a, "dc_n"_a, "x"_a, "h0"_a, "c0"_a, "y"_a,
        "weight_ih"_a, "weight_hh"_a, "reserve"_a, "lengths"_a, "batch_sizes"_a, "resets"_a, "reverse"_a,
        "input_grad"_a, "dweight_ih"_a, "dweight_hh"_a, "dbias_ih"_a, "dbias_hh"_a);
}

}  // namespace fusedrnn::bindings
