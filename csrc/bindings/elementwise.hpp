// The calls of cells whose units see no state but their own: what they share. Each adds its own parameters (`own`).
#pragma once

#include "../core/cells.hpp"
#include "data.hpp"

namespace fusedrnn::bindings {

// H from weight_ih [gates H, I].
template <class T>
int64_t elementwise_units(const py::object& weight_ih, int64_t gates, const char* like) {
  const py::array a = checked<T>(weight_ih, "weight_ih", like);
  const std::string letters = "[" + (gates == 1 ? "" : std::to_string(gates)) + "H, I]";
  require_ndim(a, "weight_ih", 2, letters.c_str());
  require_at_least_one(a.shape(0), "weight_ih", "a hidden size");
  if (a.shape(0) % gates)
    throw py::value_error("weight_ih: expected shape " + letters + ", got " + shape_text(shape_of(a)));
  return a.shape(0) / gates;
}

struct ElementwiseArguments {
  int64_t gates, kept;  // of a unit: products, and elements of the reserve
  const py::object &x, &h0, &weight_ih, &bias, &lengths, &batch_sizes, &resets;
  bool reverse;

  template <class T>
  Data data() const {
    Data d = read_data(x, lengths, batch_sizes, resets, reverse);
    set_hidden(d, elementwise_units<T>(weight_ih, gates, "x"));
    return d;
  }

  // Forward and backward have the same names for the same things.
  template <class T, class Call>
  void read(Call& p, const Data& d) const {
    p.shape = d.shape;
    p.reverse = reverse;
    p.x = input<T>(x, "x", "x", d.of(d.shape.inputs));
    p.h0 = optional_input<T>(h0, "h0", "x", {d.shape.batch, d.shape.hidden});
    p.weight_ih = input<T>(weight_ih, "weight_ih", "x", {gates * d.shape.hidden, d.shape.inputs});
  }
};

// own(p), a template over the scalar, fills in the cell's own arguments; forward(p) is the core's.
template <class Own, class F>
py::tuple call_elementwise_forward(const ElementwiseArguments& arguments, bool training, Own own, F forward) {
  return dispatch_dtype(arguments.x, "x", [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    const Data d = arguments.data<T>();
    const int64_t N = d.shape.batch, H = d.shape.hidden;
    ElementwiseForward<T> p{};
    arguments.read<T>(p, d);
    p.bias = optional_input<T>(arguments.bias, "bias", "x", {arguments.gates * H});
    own(p);
    auto y = empty<T>(d.of(H)), h_n = empty<T>({N, H});
    p.y = y.mutable_data();
    p.h_n = h_n.mutable_data();
    py::object reserve = py::none();
    if (training) {
      auto array = empty<T>(d.of(arguments.kept * H));
      if (arguments.kept) p.reserve = array.mutable_data();
      reserve = array;
    }
    run_forward(d, p, H, forward);
    return py::make_tuple(y, h_n, reserve);
  });
}

template <class Own, class F>
py::tuple call_elementwise_backward(const ElementwiseArguments& arguments, const py::object& dy, const py::object& dh_n,
                                    const py::object& y, const py::object& reserve, bool input_grad,
                                    const py::object& dweight_ih, const py::object& dbias, Own own, F backward) {
  return dispatch_dtype(arguments.x, "x", [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    const Data d = arguments.data<T>();
    const auto [N, I, H, width] =
        std::array{d.shape.batch, d.shape.inputs, d.shape.hidden, arguments.gates * d.shape.hidden};
    ElementwiseBackward<T> p{};
    arguments.read<T>(p, d);
    p.dy = optional_input<T>(dy, "dy", "x", d.of(H));
    p.dh_n = optional_input<T>(dh_n, "dh_n", "x", {N, H});
    p.y = input<T>(y, "y", "x", d.of(H));
    const T* const kept = input<T>(reserve, "reserve", "x", d.of(arguments.kept * H));
    if (arguments.kept) p.reserve = kept;
    p.dweight_ih = output<T>(dweight_ih, "dweight_ih", "x", {width, I});
    p.dbias = optional_output<T>(dbias, "dbias", "x", {width});
    own(p);
    auto dh0 = empty<T>({N, H});
    p.dh0 = dh0.mutable_data();
    py::object dx = py::none();
    if (input_grad) {
      auto array = empty<T>(d.of(I));
      p.dx = array.mutable_data();
      dx = array;
    }
    run_backward(d, p, H, backward);
    return py::make_tuple(dx, dh0);
  });
}

}  // namespace fusedrnn::bindings
