#include <optional>

#include "../core/cells.hpp"
#include "options.hpp"

namespace fusedrnn::bindings {
namespace {

// A call's sizes and options; both directions of the gradient read them alike.
template <class T>
struct GruCall {
  Data data;
  std::optional<Options<T>> options;
  bool reset_after;
  int64_t H;

  GruCall(const py::object& x, const py::object& weight_ih, const py::object& weight_hh, bool after,
          const py::object& lengths, const py::object& batch_sizes, const py::object& resets, const py::object& object,
          bool reverse, bool training)
      : data(plain_data<T>(x, weight_ih, weight_hh, 3, lengths, batch_sizes, resets, reverse)),
        reset_after(after),
        H(data.shape.hidden) {
    if (object.is_none()) return;
    const auto dict = object.cast<py::dict>();
    options = read_options<T>(dict, data, reverse, training);
    if (!after && !dict["layer_norm"].is_none())
      throw py::value_error("layer_norm: expected None with reset_after=False, got gains and biases");
    read_activations(dict, {&options->gate, &options->candidate});
    read_layer_norm(dict, *options, norm_widths());
  }

  std::vector<int64_t> norm_widths() const { return {3 * H, 3 * H}; }
  int64_t reserve(bool recompute) const {
    return options ? gru_options_reserve(H, reset_after, *options) : recompute ? 0 : (reset_after ? 4 : 3) * H;
  }
};

py::tuple call_gru_forward(const Argument& x, const Argument& h0, const Argument& weight_ih, const Argument& weight_hh,
                           const Argument& bias_ih, const Argument& bias_hh, bool reset_after,
                           const py::object& lengths, const py::object& batch_sizes, const py::object& resets,
                           bool reverse, bool training, bool recompute, const py::object& options,
                           const py::object& given_y) {
  return dispatch_dtype(x, "x", [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    const GruCall<T> call(x, weight_ih, weight_hh, reset_after, lengths, batch_sizes, resets, options, reverse,
                          training);
    const Data& d = call.data;
    const auto [N, I, H] = std::array{d.shape.batch, d.shape.inputs, d.shape.hidden};
    GruForward<T> p{};
    p.shape = d.shape;
    p.reset_after = reset_after;
    p.reverse = reverse;
    p.x = input<T>(x, "x", "x", d.of(I));
    p.h0 = optional_input<T>(h0, "h0", "x", {N, H});
    p.weight_ih = input<T>(weight_ih, "weight_ih", "x", {3 * H, I});
    p.weight_hh = input<T>(weight_hh, "weight_hh", "x", {3 * H, H});
    p.bias_ih = optional_input<T>(bias_ih, "bias_ih", "x", {3 * H});
    p.bias_hh = optional_input<T>(bias_hh, "bias_hh", "x", {3 * H});
    auto y = given_or_empty<T>(given_y, "y", "x", d.of(H)), h_n = empty<T>({N, H});
    py::object reserve = py::none();
    if (training) {
      auto buffer = empty<T>(d.of(call.reserve(recompute)));
      if (!recompute) p.reserve = buffer.mutable_data();
      reserve = buffer;
    }
    p.y = y.mutable_data();
    p.h_n = h_n.mutable_data();
    run_forward(d, p, H,
                [&](const GruForward<T>& q) { call.options ? gru_options_forward(q, *call.options) : gru_forward(q); });
    return py::make_tuple(y, h_n, reserve);
  });
}

py::tuple call_gru_backward(const Argument& dy, const Argument& dh_n, const Argument& x, const Argument& h0,
                            const Argument& y, const Argument& weight_ih, const Argument& weight_hh,
                            const Argument& bias_ih, const Argument& bias_hh, const Argument& reserve, bool reset_after,
                            const py::object& lengths, const py::object& batch_sizes, const py::object& resets,
                            bool reverse, bool recompute, const py::object& options, bool input_grad,
                            const Argument& dweight_ih, const Argument& dweight_hh, const Argument& dbias_ih,
                            const Argument& dbias_hh, const py::object& dlayer_norm) {
  return dispatch_dtype(x, "x", [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    const GruCall<T> call(x, weight_ih, weight_hh, reset_after, lengths, batch_sizes, resets, options, reverse, true);
    const Data& d = call.data;
    const auto [N, I, H] = std::array{d.shape.batch, d.shape.inputs, d.shape.hidden};
    GruBackward<T> p{};
    p.shape = d.shape;
    p.reset_after = reset_after;
    p.reverse = reverse;
    p.dy = optional_input<T>(dy, "dy", "x", d.of(H));
    p.dh_n = optional_input<T>(dh_n, "dh_n", "x", {N, H});
    p.x = input<T>(x, "x", "x", d.of(I));
    p.h0 = optional_input<T>(h0, "h0", "x", {N, H});
    p.y = input<T>(y, "y", "x", d.of(H));
    p.weight_ih = input<T>(weight_ih, "weight_ih", "x", {3 * H, I});
    p.weight_hh = input<T>(weight_hh, "weight_hh", "x", {3 * H, H});
    p.recompute = recompute;
    p.bias_ih = optional_input<T>(bias_ih, "bias_ih", "x", {3 * H});
    p.bias_hh = optional_input<T>(bias_hh, "bias_hh", "x", {3 * H});
    p.reserve = input<T>(reserve, "reserve", "x", d.of(call.reserve(recompute)));
    p.dweight_ih = output<T>(dweight_ih, "dweight_ih", "x", {3 * H, I});
    p.dweight_hh = output<T>(dweight_hh, "dweight_hh", "x", {3 * H, H});
    p.dbias_ih = optional_output<T>(dbias_ih, "dbias_ih", "x", {3 * H});
    p.dbias_hh = optional_output<T>(dbias_hh, "dbias_hh", "x", {3 * H});
    OptionGradients<T> g{};
    read_layer_norm_gradients(dlayer_norm, call.options.value_or(Options<T>{}), g, call.norm_widths());
    auto dh0 = empty<T>({N, H});
    py::object dx = py::none();
    if (input_grad) {
      auto array = empty<T>(d.of(I));
      p.dx = array.mutable_data();
      dx = array;
    }
    p.dh0 = dh0.mutable_data();
    run_backward(d, p, H, [&](const GruBackward<T>& q) {
      call.options ? gru_options_backward(q, *call.options, g) : gru_backward(q);
    });
    return py::make_tuple(dx, dh0);
  });
}

}  // namespace

void register_gru(py::module_& m) {
  using namespace py::literals;
  m.def("gru_forward", &call_gru_forward, "x"_a, "h0"_a, "weight_ih"_a, "weight_hh"_a, "bias_ih"_a, "bias_hh"_a,
        "reset_after"_a, "lengths"_a, "batch_sizes"_a, "resets"_a, "reverse"_a, "training"_a, "recompute"_a,
        "options"_a, "y"_a = py::none());
  m.def("gru_backward", &call_gru_backward, "dy"_a, "dh_n"_a, "x"_a, "h0"_a, "y"_a, "weight_ih"_a, "weight_hh"_a,
        "bias_ih"_a, "bias_hh"_a, "reserve"_a, "reset_after"_a, "lengths"_a, "batch_sizes"_a, "resets"_a, "reverse"_a,
        "recompute"_a, "options"_a, "input_grad"_a, "dweight_ih"_a, "dweight_hh"_a, "dbias_ih"_a, "dbias_hh"_a,
        "dlayer_norm"_a);
}

}  // namespace fusedrnn::bindings
