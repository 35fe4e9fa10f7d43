#include <optional>

#include "../core/cells.hpp"
#include "options.hpp"

namespace fusedrnn::bindings {
namespace {

// A call's sizes and options; both directions of the gradient read them alike.
template <class T>
struct RnnCall {
  Data data;
  std::optional<Options<T>> options;
  Activation nonlinearity;
  int64_t H;

  RnnCall(const py::object& x, const py::object& weight_ih, const py::object& weight_hh, const std::string& f,
          const py::object& lengths, const py::object& batch_sizes, const py::object& resets, const py::object& object,
          bool reverse, bool training)
      : data(plain_data<T>(x, weight_ih, weight_hh, 1, lengths, batch_sizes, resets, reverse)),
        nonlinearity(activation(f, "nonlinearity")),
        H(data.shape.hidden) {
    if (object.is_none()) {
      if (nonlinearity != Activation::tanh && nonlinearity != Activation::relu)
        throw py::value_error("nonlinearity: expected tanh or relu without options, got '" + f + "'");
      return;
    }
    const auto dict = object.cast<py::dict>();
    options = read_options<T>(dict, data, reverse, training);
    options->gate = nonlinearity;
    read_layer_norm(dict, *options, norm_widths());
  }

  bool relu() const { return nonlinearity == Activation::relu; }
  std::vector<int64_t> norm_widths() const { return {H, H}; }
  int64_t reserve() const { return options ? rnn_options_reserve(H, *options) : 0; }
};

py::tuple call_rnn_forward(const Argument& x, const Argument& h0, const Argument& weight_ih, const Argument& weight_hh,
                           const Argument& bias_ih, const Argument& bias_hh, const std::string& nonlinearity,
                           const py::object& lengths, const py::object& batch_sizes, const py::object& resets,
                           bool reverse, bool training, const py::object& options, const py::object& given_y) {
  return dispatch_dtype(x, "x", [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    const RnnCall<T> call(x, weight_ih, weight_hh, nonlinearity, lengths, batch_sizes, resets, options, reverse,
                          training);
    const Data& d = call.data;
    const auto [N, I, H] = std::array{d.shape.batch, d.shape.inputs, d.shape.hidden};
    RnnForward<T> p{};
    p.shape = d.shape;
    p.relu = call.relu();
    p.reverse = reverse;
    p.x = input<T>(x, "x", "x", d.of(I));
    p.h0 = optional_input<T>(h0, "h0", "x", {N, H});
    p.weight_ih = input<T>(weight_ih, "weight_ih", "x", {H, I});
    p.weight_hh = input<T>(weight_hh, "weight_hh", "x", {H, H});
    p.bias_ih = optional_input<T>(bias_ih, "bias_ih", "x", {H});
    p.bias_hh = optional_input<T>(bias_hh, "bias_hh", "x", {H});
    auto y = given_or_empty<T>(given_y, "y", "x", d.of(H)), h_n = empty<T>({N, H});
    py::object reserve = py::none();
    if (training) {  // an empty buffer where y is all that backward needs
      auto buffer = empty<T>(d.of(call.reserve()));
      p.reserve = buffer.mutable_data();
      reserve = buffer;
    }
    p.y = y.mutable_data();
    p.h_n = h_n.mutable_data();
    run_forward(d, p, H,
                [&](const RnnForward<T>& q) { call.options ? rnn_options_forward(q, *call.options) : rnn_forward(q); });
    return py::make_tuple(y, h_n, reserve);
  });
}

py::tuple call_rnn_backward(const Argument& dy, const Argument& dh_n, const Argument& x, const Argument& h0,
                            const Argument& y, const Argument& weight_ih, const Argument& weight_hh,
                            const Argument& reserve, const std::string& nonlinearity, const py::object& lengths,
                            const py::object& batch_sizes, const py::object& resets, bool reverse,
                            const py::object& options, bool input_grad, const Argument& dweight_ih,
                            const Argument& dweight_hh, const Argument& dbias_ih, const Argument& dbias_hh,
                            const py::object& dlayer_norm) {
  return dispatch_dtype(x, "x", [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    const RnnCall<T> call(x, weight_ih, weight_hh, nonlinearity, lengths, batch_sizes, resets, options, reverse, true);
    const Data& d = call.data;
    const auto [N, I, H] = std::array{d.shape.batch, d.shape.inputs, d.shape.hidden};
    RnnBackward<T> p{};
    p.shape = d.shape;
    p.relu = call.relu();
    p.reverse = reverse;
    p.dy = optional_input<T>(dy, "dy", "x", d.of(H));
    p.dh_n = optional_input<T>(dh_n, "dh_n", "x", {N, H});
    p.x = input<T>(x, "x", "x", d.of(I));
    p.h0 = optional_input<T>(h0, "h0", "x", {N, H});
    p.y = input<T>(y, "y", "x", d.of(H));
    p.weight_ih = input<T>(weight_ih, "weight_ih", "x", {H, I});
    p.weight_hh = input<T>(weight_hh, "weight_hh", "x", {H, H});
    p.reserve = input<T>(reserve, "reserve", "x", d.of(call.reserve()));
    p.dweight_ih = output<T>(dweight_ih, "dweight_ih", "x", {H, I});
    p.dweight_hh = output<T>(dweight_hh, "dweight_hh", "x", {H, H});
    p.dbias_ih = optional_output<T>(dbias_ih, "dbias_ih", "x", {H});
    p.dbias_hh = optional_output<T>(dbias_hh, "dbias_hh", "x", {H});
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
    run_backward(d, p, H, [&](const RnnBackward<T>& q) {
      call.options ? rnn_options_backward(q, *call.options, g) : rnn_backward(q);
    });
    return py::make_tuple(dx, dh0);
  });
}

}  // namespace

void register_rnn(py::module_& m) {
  using namespace py::literals;
  m.def("rnn_forward", &call_rnn_forward, "x"_a, "h0"_a, "weight_ih"_a, "weight_hh"_a, "bias_ih"_a, "bias_hh"_a,
        "nonlinearity"_a, "lengths"_a, "batch_sizes"_a, "resets"_a, "reverse"_a, "training"_a, "options"_a,
        "y"_a = py::none());
  m.def("rnn_backward", &call_rnn_backward, "dy"_a, "dh_n"_a, "x"_a, "h0"_a, "y"_a, "weight_ih"_a, "weight_hh"_a,
        "reserve"_a, "nonlinearity"_a, "lengths"_a, "batch_sizes"_a, "resets"_a, "reverse"_a, "options"_a,
        "input_grad"_a, "dweight_ih"_a, "dweight_hh"_a, "dbias_ih"_a, "dbias_hh"_a, "dlayer_norm"_a);
}

}  // namespace fusedrnn::bindings
