#include "elementwise.hpp"
#include "options.hpp"

namespace fusedrnn::bindings {
namespace {

constexpr int64_t indrnn_gates = 1, indrnn_kept = 0;  // y is all that backward needs: the reserve is an empty buffer

py::tuple call_indrnn_forward(const Argument& x, const Argument& h0, const Argument& weight_ih,
                              const Argument& weight_hh, const Argument& bias, const std::string& nonlinearity,
                              const py::object& lengths, const py::object& batch_sizes, const py::object& resets,
                              bool reverse, bool training) {
  return call_elementwise_forward(
      {indrnn_gates, indrnn_kept, x, h0, weight_ih, bias, lengths, batch_sizes, resets, reverse}, training,
      [&]<class T>(ElementwiseForward<T>& p) {
        p.weight_hh = input<T>(weight_hh, "weight_hh", "x", {p.shape.hidden});
        p.activation = activation(py::str(nonlinearity), "nonlinearity");
      },
      [](const auto& p) { indrnn_forward(p); });
}

py::tuple call_indrnn_backward(const Argument& dy, const Argument& dh_n, const Argument& x, const Argument& h0,
                               const Argument& y, const Argument& weight_ih, const Argument& weight_hh,
                               const Argument& reserve, const std::string& nonlinearity, const py::object& lengths,
                               const py::object& batch_sizes, const py::object& resets, bool reverse, bool input_grad,
                               const Argument& dweight_ih, const Argument& dweight_hh, const Argument& dbias) {
  return call_elementwise_backward(
      {indrnn_gates, indrnn_kept, x, h0, weight_ih, dbias, lengths, batch_sizes, resets, reverse}, dy, dh_n, y, reserve,
      input_grad, dweight_ih, dbias,
      [&]<class T>(ElementwiseBackward<T>& p) {
        p.weight_hh = input<T>(weight_hh, "weight_hh", "x", {p.shape.hidden});
        p.dweight_hh = output<T>(dweight_hh, "dweight_hh", "x", {p.shape.hidden});
        p.activation = activation(py::str(nonlinearity), "nonlinearity");
      },
      [](const auto& p) { indrnn_backward(p); });
}

}  // namespace

void register_indrnn(py::module_& m) {
  using namespace py::literals;
  m.def("indrnn_forward", &call_indrnn_forward, "x"_a, "h0"_a, "weight_ih"_a, "weight_hh"_a, "bias"_a, "nonlinearity"_a,
        "lengths"_a, "batch_sizes"_a, "resets"_a, "reverse"_a, "training"_a);
  m.def("indrnn_backward", &call_indrnn_backward, "dy"_a, "dh_n"_a, "x"_a, "h0"_a, "y"_a, "weight_ih"_a, "weight_hh"_a,
        "reserve"_a, "nonlinearity"_a, "lengths"_a, "batch_sizes"_a, "resets"_a, "reverse"_a, "input_grad"_a,
        "dweight_ih"_a, "dweight_hh"_a, "dbias"_a);
}

}  // namespace fusedrnn::bindings
