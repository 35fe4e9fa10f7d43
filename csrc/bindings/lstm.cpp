#include "../core/cells.hpp"
#include "arrays.hpp"

namespace fusedrnn::bindings {
namespace {

py::tuple call_lstm_forward(const py::object& x, const py::object& h0, const py::object& c0,
                            const py::object& weight_ih, const py::object& weight_hh, const py::object& bias_ih,
                            const py::object& bias_hh, bool reverse, bool training, bool recompute) {
  return dispatch_dtype(x, "x", [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    const auto [steps, N, I, H] = recurrent_sizes<T>(x, weight_ih, weight_hh, 4);
    LstmForward<T> p{};
    p.shape = {steps, N, I, H};
    p.reverse = reverse;
    p.recompute = recompute;
    p.x = input<T>(x, "x", "x", {steps, N, I});
    p.h0 = optional_input<T>(h0, "h0", "x", {N, H});
    p.c0 = optional_input<T>(c0, "c0", "x", {N, H});
    p.weight_ih = input<T>(weight_ih, "weight_ih", "x", {4 * H, I});
    p.weight_hh = input<T>(weight_hh, "weight_hh", "x", {4 * H, H});
    p.bias_ih = optional_input<T>(bias_ih, "bias_ih", "x", {4 * H});
    p.bias_hh = optional_input<T>(bias_hh, "bias_hh", "x", {4 * H});
    auto y = empty<T>({steps, N, H}), h_n = empty<T>({N, H}), c_n = empty<T>({N, H});
    py::object reserve = py::none();
    if (training) {
      auto buffer = empty<T>({steps, N, (recompute ? 1 : 5) * H});
      p.reserve = buffer.mutable_data();
      reserve = buffer;
    }
    p.y = y.mutable_data();
    p.h_n = h_n.mutable_data();
    p.c_n = c_n.mutable_data();
    without_gil([&] { lstm_forward(p); });
    return py::make_tuple(y, h_n, c_n, reserve);
  });
}

py::tuple call_lstm_backward(const py::object& dy, const py::object& dh_n, const py::object& dc_n, const py::object& x,
                             const py::object& h0, const py::object& c0, const py::object& y,
                             const py::object& weight_ih, const py::object& weight_hh, const py::object& bias_ih,
                             const py::object& bias_hh, const py::object& reserve, bool reverse, bool recompute,
                             bool input_grad, const py::object& dweight_ih, const py::object& dweight_hh,
                             const py::object& dbias_ih, const py::object& dbias_hh) {
  return dispatch_dtype(x, "x", [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    const auto [steps, N, I, H] = recurrent_sizes<T>(x, weight_ih, weight_hh, 4);
    LstmBackward<T> p{};
    p.shape = {steps, N, I, H};
    p.reverse = reverse;
    p.recompute = recompute;
    p.dy = optional_input<T>(dy, "dy", "x", {steps, N, H});
    p.dh_n = optional_input<T>(dh_n, "dh_n", "x", {N, H});
    p.dc_n = optional_input<T>(dc_n, "dc_n", "x", {N, H});
    p.x = input<T>(x, "x", "x", {steps, N, I});
    p.h0 = optional_input<T>(h0, "h0", "x", {N, H});
    p.c0 = optional_input<T>(c0, "c0", "x", {N, H});
    p.y = input<T>(y, "y", "x", {steps, N, H});
    p.weight_ih = input<T>(weight_ih, "weight_ih", "x", {4 * H, I});
    p.weight_hh = input<T>(weight_hh, "weight_hh", "x", {4 * H, H});
    p.bias_ih = optional_input<T>(bias_ih, "bias_ih", "x", {4 * H});
    p.bias_hh = optional_input<T>(bias_hh, "bias_hh", "x", {4 * H});
    p.reserve = input<T>(reserve, "reserve", "x", {steps, N, (recompute ? 1 : 5) * H});
    p.dweight_ih = output<T>(dweight_ih, "dweight_ih", "x", {4 * H, I});
    p.dweight_hh = output<T>(dweight_hh, "dweight_hh", "x", {4 * H, H});
    p.dbias_ih = optional_output<T>(dbias_ih, "dbias_ih", "x", {4 * H});
    p.dbias_hh = optional_output<T>(dbias_hh, "dbias_hh", "x", {4 * H});
    auto dh0 = empty<T>({N, H}), dc0 = empty<T>({N, H});
    py::object dx = py::none();
    if (input_grad) {
      auto array = empty<T>({steps, N, I});
      p.dx = array.mutable_data();
      dx = array;
    }
    p.dh0 = dh0.mutable_data();
    p.dc0 = dc0.mutable_data();
    without_gil([&] { lstm_backward(p); });
    return py::make_tuple(dx, dh0, dc0);
  });
}

}  // namespace

void register_lstm(py::module_& m) {
  using namespace py::literals;
  m.def("lstm_forward", &call_lstm_forward, "x"_a, "h0"_a, "c0"_a, "weight_ih"_a, "weight_hh"_a, "bias_ih"_a,
        "bias_hh"_a, "reverse"_a, "training"_a, "recompute"_a);
  m.def("lstm_backward", &call_lstm_backward, "dy"_a, "dh_n"_a, "dc_n"_a, "x"_a, "h0"_a, "c0"_a, "y"_a, "weight_ih"_a,
        "weight_hh"_a, "bias_ih"_a, "bias_hh"_a, "reserve"_a, "reverse"_a, "recompute"_a, "input_grad"_a,
        "dweight_ih"_a, "dweight_hh"_a, "dbias_ih"_a, "dbias_hh"_a);
}

}  // namespace fusedrnn::bindings
