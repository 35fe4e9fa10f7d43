#include "elementwise.hpp"

namespace fusedrnn::bindings {
namespace {

constexpr int64_t mingru_gates = 2, mingru_kept = 2;  // z and n

py::tuple call_mingru_forward(const Argument& x, const Argument& h0, const Argument& weight_ih, const Argument& bias,
                              const py::object& lengths, const py::object& batch_sizes, const py::object& resets,
                              bool reverse, bool training) {
  return call_elementwise_forward(
      {mingru_gates, mingru_kept, x, h0, weight_ih, bias, lengths, batch_sizes, resets, reverse}, training,
      [](auto&) {}, [](const auto& p) { mingru_forward(p); });
}

py::tuple call_mingru_backward(const Argument& dy, const Argument& dh_n, const Argument& x, const Argument& h0,
                               const Argument& y, const Argument& weight_ih, const Argument& reserve,
                               const py::object& lengths, const py::object& batch_sizes, const py::object& resets,
                               bool reverse, bool input_grad, const Argument& dweight_ih, const Argument& dbias) {
  return call_elementwise_backward(
      {mingru_gates, mingru_kept, x, h0, weight_ih, dbias, lengths, batch_sizes, resets, reverse}, dy, dh_n, y, reserve,
      input_grad, dweight_ih, dbias, [](auto&) {}, [](const auto& p) { mingru_backward(p); });
}

}  // namespace

void register_mingru(py::module_& m) {
  using namespace py::literals;
  m.def("mingru_forward", &call_mingru_forward, "x"_a, "h0"_a, "weight_ih"_a, "bias"_a, "lengths"_a, "batch_sizes"_a,
        "resets"_a, "reverse"_a, "training"_a);
  m.def("mingru_backward", &call_mingru_backward, "dy"_a, "dh_n"_a, "x"_a, "h0"_a, "y"_a, "weight_ih"_a, "reserve"_a,
        "lengths"_a, "batch_sizes"_a, "resets"_a, "reverse"_a, "input_grad"_a, "dweight_ih"_a, "dbias"_a);
}

}  // namespace fusedrnn::bindings
