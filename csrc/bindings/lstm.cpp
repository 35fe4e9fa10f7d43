#include <optional>

#include "../core/cells.hpp"
#include "options.hpp"

namespace fusedrnn::bindings {
namespace {

// A call's sizes and options; both directions of the gradient read them alike.
template <class T>
struct LstmCall {
  Data data;
  std::optional<Options<T>> options;
  int64_t N, I, H, P, gates;  // P: elements of h

  LstmCall(const py::object& x, const py::object& weight_ih, const py::object& weight_hh, const py::object& lengths,
           const py::object& batch_sizes, const py::object& resets, const py::object& object, bool reverse,
           bool training)
      : data(read_data(x, lengths, batch_sizes, resets, reverse)), N(data.shape.batch), I(data.shape.inputs), gates(4) {
    if (object.is_none()) {
      P = H = hidden_size<T>(weight_ih, weight_hh, 4);
    } else {
      const auto dict = object.cast<py::dict>();
      Options<T> o = read_options<T>(dict, data, reverse, training);
      o.coupled = dict["coupled"].cast<bool>();
      gates = o.coupled ? 3 : 4;
      const py::object weight_hr = dict["weight_hr"];
      if (weight_hr.is_none()) {
        P = H = hidden_size<T>(weight_ih, weight_hh, gates);
      } else {
        const py::array hr = checked<T>(weight_hr, "weight_hr", "x");
        require_ndim(hr, "weight_hr", 2, "[P, H]");
        P = hr.shape(0);
        H = hr.shape(1);
        require_at_least_one(P, "weight_hr", "a projection size");
        require_at_least_one(H, "weight_hr", "a hidden size");
        o.weight_hr = input<T>(weight_hr, "weight_hr", "x", {P, H});
      }
      o.projection = P;
      o.weight_peephole = optional_input<T>(dict["weight_peephole"], "weight_peephole", "x", {3, H});
      o.cell_clip = limit(dict, "cell_clip");
      o.zoneout_c = probability(dict, "zoneout_c", false);
      read_activations(dict, {&o.gate, &o.candidate, &o.output});
      read_layer_norm(dict, o, norm_widths());
      options = o;
    }
    set_hidden(data, H, P);
  }

  std::vector<int64_t> norm_widths() const { return {gates * H, gates * H, H}; }
  int64_t reserve(bool recompute) const {
    return options ? lstm_options_reserve(H, *options) : (recompute ? 1 : 5) * H;
  }
};

py::tuple call_lstm_forward(const Argument& x, const Argument& h0, const Argument& c0, const Argument& weight_ih,
                            const Argument& weight_hh, const Argument& bias_ih, const Argument& bias_hh,
                            const py::object& lengths, const py::object& batch_sizes, const py::object& resets,
                            bool reverse, bool training, bool recompute, const py::object& options, bool return_c,
                            const py::object& given_y) {
  return dispatch_dtype(x, "x", [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    const LstmCall<T> call(x, weight_ih, weight_hh, lengths, batch_sizes, resets, options, reverse, training);
    const auto [N, I, H, P, rows] = std::array{call.N, call.I, call.H, call.P, call.gates * call.H};
    const Data& d = call.data;
    LstmForward<T> p{};
    p.shape = d.shape;
    p.reverse = reverse;
    p.recompute = recompute;
    p.x = input<T>(x, "x", "x", d.of(I));
    p.h0 = optional_input<T>(h0, "h0", "x", {N, P});
    p.c0 = optional_input<T>(c0, "c0", "x", {N, H});
    p.weight_ih = input<T>(weight_ih, "weight_ih", "x", {rows, I});
    p.weight_hh = input<T>(weight_hh, "weight_hh", "x", {rows, P});
    p.bias_ih = optional_input<T>(bias_ih, "bias_ih", "x", {rows});
    p.bias_hh = optional_input<T>(bias_hh, "bias_hh", "x", {rows});
    auto y = given_or_empty<T>(given_y, "y", "x", d.of(P)), h_n = empty<T>({N, P}), c_n = empty<T>({N, H});
    py::object reserve = py::none(), c = py::none();
    if (training) {
      auto buffer = empty<T>(d.of(call.reserve(recompute)));
      p.reserve = buffer.mutable_data();
      reserve = buffer;
    }
    if (return_c) {
      auto array = empty<T>(d.of(H));
      p.c = array.mutable_data();
      c = array;
    }
    p.y = y.mutable_data();
    p.h_n = h_n.mutable_data();
    p.c_n = c_n.mutable_data();
    run_forward(d, p, P, [&](const LstmForward<T>& q) {
      call.options ? lstm_options_forward(q, *call.options) : lstm_forward(q);
    });
    return py::make_tuple(y, h_n, c_n, reserve, c);
  });
}

py::tuple call_lstm_backward(const Argument& dy, const Argument& dh_n, const Argument& dc_n, const Argument& dc,
                             const Argument& x, const Argument& h0, const Argument& c0, const Argument& y,
                             const Argument& weight_ih, const Argument& weight_hh, const Argument& bias_ih,
                             const Argument& bias_hh, const Argument& reserve, const py::object& lengths,
                             const py::object& batch_sizes, const py::object& resets, bool reverse, bool recompute,
                             const py::object& options, bool input_grad, const Argument& dweight_ih,
                             const Argument& dweight_hh, const Argument& dbias_ih, const Argument& dbias_hh,
                             const Argument& dweight_peephole, const Argument& dweight_hr,
                             const py::object& dlayer_norm) {
  return dispatch_dtype(x, "x", [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    const LstmCall<T> call(x, weight_ih, weight_hh, lengths, batch_sizes, resets, options, reverse, true);
    const auto [N, I, H, P, rows] = std::array{call.N, call.I, call.H, call.P, call.gates * call.H};
    const Data& d = call.data;
    LstmBackward<T> p{};
    p.shape = d.shape;
    p.reverse = reverse;
    p.recompute = recompute;
    p.dy = optional_input<T>(dy, "dy", "x", d.of(P));
    p.dh_n = optional_input<T>(dh_n, "dh_n", "x", {N, P});
    p.dc_n = optional_input<T>(dc_n, "dc_n", "x", {N, H});
    p.dc = optional_input<T>(dc, "dc", "x", d.of(H));
    p.x = input<T>(x, "x", "x", d.of(I));
    p.h0 = optional_input<T>(h0, "h0", "x", {N, P});
    p.c0 = optional_input<T>(c0, "c0", "x", {N, H});
    p.y = input<T>(y, "y", "x", d.of(P));
    p.weight_ih = input<T>(weight_ih, "weight_ih", "x", {rows, I});
    p.weight_hh = input<T>(weight_hh, "weight_hh", "x", {rows, P});
    p.bias_ih = optional_input<T>(bias_ih, "bias_ih", "x", {rows});
    p.bias_hh = optional_input<T>(bias_hh, "bias_hh", "x", {rows});
    p.reserve = input<T>(reserve, "reserve", "x", d.of(call.reserve(recompute)));
    p.dweight_ih = output<T>(dweight_ih, "dweight_ih", "x", {rows, I});
    p.dweight_hh = output<T>(dweight_hh, "dweight_hh", "x", {rows, P});
    p.dbias_ih = optional_output<T>(dbias_ih, "dbias_ih", "x", {rows});
    p.dbias_hh = optional_output<T>(dbias_hh, "dbias_hh", "x", {rows});
    OptionGradients<T> g{};
    const Options<T> o = call.options.value_or(Options<T>{});
    g.dweight_peephole = gradient_of(o.weight_peephole, dweight_peephole, "dweight_peephole", {3, H});
    g.dweight_hr = gradient_of(o.weight_hr, dweight_hr, "dweight_hr", {P, H});
    read_layer_norm_gradients(dlayer_norm, o, g, call.norm_widths());
    auto dh0 = empty<T>({N, P}), dc0 = empty<T>({N, H});
    py::object dx = py::none();
    if (input_grad) {
      auto array = empty<T>(d.of(I));
      p.dx = array.mutable_data();
      dx = array;
    }
    p.dh0 = dh0.mutable_data();
    p.dc0 = dc0.mutable_data();
    run_backward(d, p, P, [&](const LstmBackward<T>& q) {
      call.options ? lstm_options_backward(q, *call.options, g) : lstm_backward(q);
    });
    return py::make_tuple(dx, dh0, dc0);
  });
}

}  // namespace

void register_lstm(py::module_& m) {
  using namespace py::literals;
  m.def("lstm_forward", &call_lstm_forward, "x"_a, "h0"_a, "c0"_a, "weight_ih"_a, "weight_hh"_a, "bias_ih"_a,
        "bias_hh"_a, "lengths"_a, "batch_sizes"_a, "resets"_a, "reverse"_a, "training"_a, "recompute"_a, "options"_a,
        "return_c"_a, "y"_a = py::none());
  m.def("lstm_backward", &call_lstm_backward, "dy"_a, "dh_n"_a, "dc_n"_a, "dc"_a, "x"_a, "h0"_a, "c0"_a, "y"_a,
        "weight_ih"_a, "weight_hh"_a, "bias_ih"_a, "bias_hh"_a, "reserve"_a, "lengths"_a, "batch_sizes"_a, "resets"_a,
        "reverse"_a, "recompute"_a, "options"_a, "input_grad"_a, "dweight_ih"_a, "dweight_hh"_a, "dbias_ih"_a,
        "dbias_hh"_a, "dweight_peephole"_a, "dweight_hr"_a, "dlayer_norm"_a);
}

}  // namespace fusedrnn::bindings
