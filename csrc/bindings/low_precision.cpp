#include "../core/low_precision.hpp"

#include <string>

#include "arrays.hpp"

namespace fusedrnn::bindings {
namespace {

// A call's sizes and what it computes.
struct LowPrecisionCall {
  LowPrecisionCell cell;
  int64_t T, N, I, H, gates;
  bool lstm, rnn;

  LowPrecisionCall(const std::string& name, const py::object& x, const py::object& weight_ih,
                   const py::object& weight_hh) {
    const std::vector<std::string> names{"rnn_tanh", "rnn_relu", "lstm", "gru", "gru_reset_before"};
    std::size_t i = 0;
    while (i < names.size() && names[i] != name) ++i;
    if (i == names.size()) throw py::value_error("nonlinearity: expected tanh or relu, got " + name);
    cell = LowPrecisionCell(i);
    rnn = i < 2;
    lstm = cell == LowPrecisionCell::lstm;
    gates = rnn ? 1 : lstm ? 4 : 3;
    const py::array a = as_array(x, "x");
    if (!py::isinstance<py::array_t<float>>(a))
      throw py::type_error("x: expected float32 together with precision, got " + dtype_text(a));
    require_ndim(a, "x", 3, "[T, N, I]");
    T = a.shape(0);
    N = a.shape(1);
    I = a.shape(2);
    require_at_least_one(T, "x", "a sequence length");
    require_at_least_one(I, "x", "an input size");
    H = hidden_size<float>(weight_ih, weight_hh, gates);
    require_addressable({T, N, H, 5, 8});
    require_addressable({H, H + I, 4, 8});
  }

  std::vector<int64_t> reserve() const { return {T, N, (rnn ? 0 : lstm ? 5 : 4) * H}; }
};

py::tuple call_forward(const std::string& cell, const std::string& precision, const py::object& x, const py::object& h0,
                       const py::object& c0, const py::object& weight_ih, const py::object& weight_hh,
                       const py::object& bias_ih, const py::object& bias_hh, bool reverse, bool training) {
  const LowPrecisionCall call(cell, x, weight_ih, weight_hh);
  const auto [T, N, I, H, rows] = std::array{call.T, call.N, call.I, call.H, call.gates * call.H};
  require_int8_sums(precision, I, H);
  LowPrecisionForward p{};
  p.precision = precision == "int8" ? Precision::int8 : Precision::bfloat16;
  p.cell = call.cell;
  p.inputs = I;
  p.hidden = H;
  p.weight_ih = input<float>(weight_ih, "weight_ih", "x", {rows, I});
  p.weight_hh = input<float>(weight_hh, "weight_hh", "x", {rows, H});
  p.bias_ih = optional_input<float>(bias_ih, "bias_ih", "x", {rows});
  p.bias_hh = optional_input<float>(bias_hh, "bias_hh", "x", {rows});
  auto y = empty<float>({T, N, H}), h_n = empty<float>({N, H});
  p.sequence = {T,
                N,
                reverse,
                input<float>(x, "x", "x", {T, N, I}),
                optional_input<float>(h0, "h0", "x", {N, H}),
                optional_input<float>(c0, "c0", "x", {N, H}),
                y.mutable_data(),
                h_n.mutable_data(),
                nullptr};
  py::object c_n = py::none(), reserve = py::none();
  if (call.lstm) {
    auto array = empty<float>({N, H});
    p.sequence.c_n = array.mutable_data();
    c_n = array;
  }
  if (training) {
    auto buffer = empty<float>(call.reserve());
    p.reserve = buffer.mutable_data();
    reserve = buffer;
  }
  without_gil([&] { low_precision_forward(p); });
  return py::make_tuple(y, h_n, c_n, reserve);
}

py::tuple call_backward(const std::string& cell, const py::object& dy, const py::object& dh_n, const py::object& dc_n,
                        const py::object& x, const py::object& h0, const py::object& c0, const py::object& y,
                        const py::object& weight_ih, const py::object& weight_hh, const py::object& reserve,
                        bool reverse, bool input_grad, const py::object& dweight_ih, const py::object& dweight_hh,
                        const py::object& dbias_ih, const py::object& dbias_hh) {
  const LowPrecisionCall call(cell, x, weight_ih, weight_hh);
  const auto [T, N, I, H, rows] = std::array{call.T, call.N, call.I, call.H, call.gates * call.H};
  LowPrecisionBackward p{};
  p.cell = call.cell;
  p.shape = {T, N, I, H};
  p.reverse = reverse;
  p.dy = optional_input<float>(dy, "dy", "x", {T, N, H});
  p.dh_n = optional_input<float>(dh_n, "dh_n", "x", {N, H});
  p.dc_n = optional_input<float>(dc_n, "dc_n", "x", {N, H});
  p.x = input<float>(x, "x", "x", {T, N, I});
  p.h0 = optional_input<float>(h0, "h0", "x", {N, H});
  p.c0 = optional_input<float>(c0, "c0", "x", {N, H});
  p.y = input<float>(y, "y", "x", {T, N, H});
  p.weight_ih = input<float>(weight_ih, "weight_ih", "x", {rows, I});
  p.weight_hh = input<float>(weight_hh, "weight_hh", "x", {rows, H});
  p.reserve = input<float>(reserve, "reserve", "x", call.reserve());
  p.dweight_ih = output<float>(dweight_ih, "dweight_ih", "x", {rows, I});
  p.dweight_hh = output<float>(dweight_hh, "dweight_hh", "x", {rows, H});
  p.dbias_ih = optional_output<float>(dbias_ih, "dbias_ih", "x", {rows});
  p.dbias_hh = optional_output<float>(dbias_hh, "dbias_hh", "x", {rows});
  auto dh0 = empty<float>({N, H});
  p.dh0 = dh0.mutable_data();
  py::object dx = py::none(), dc0 = py::none();
  if (input_grad) {
    auto array = empty<float>({T, N, I});
    p.dx = array.mutable_data();
    dx = array;
  }
  if (call.lstm) {
    auto array = empty<float>({N, H});
    p.dc0 = array.mutable_data();
    dc0 = array;
  }
  without_gil([&] { low_precision_backward(p); });
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
        "weight_hh"_a, "bias_ih"_a, "bias_hh"_a, "reverse"_a, "training"_a);
  m.def("low_precision_backward", &call_backward, "cell"_a, "dy"_a, "dh_n"_a, "dc_n"_a, "x"_a, "h0"_a, "c0"_a, "y"_a,
        "weight_ih"_a, "weight_hh"_a, "reserve"_a, "reverse"_a, "input_grad"_a, "dweight_ih"_a, "dweight_hh"_a,
        "dbias_ih"_a, "dbias_hh"_a);
}

}  // namespace fusedrnn::bindings
