#include "../core/cells.hpp"
#include "arrays.hpp"

namespace fusedrnn::bindings {
namespace {

py::object call_linear_forward(const py::object& x, const py::object& weight, const py::object& bias) {
  return dispatch_dtype(x, "x", [&](auto scalar) -> py::object {
    using T = decltype(scalar);
    const py::array x_array = as_array(x, "x"), w = checked<T>(weight, "weight", "x");
    require_ndim(x_array, "x", 2, "[R, I]");
    require_ndim(w, "weight", 2, "[O, I]");
    const int64_t R = x_array.shape(0), I = x_array.shape(1), O = w.shape(0);
    require_at_least_one(I, "x", "an input size");
    require_at_least_one(O, "weight", "an output size");
    const T* xp = input<T>(x, "x", "x", {R, I});
    const T* wp = input<T>(weight, "weight", "x", {O, I});
    const T* bp = optional_input<T>(bias, "bias", "x", {O});
    auto y = empty<T>({R, O});
    T* yp = y.mutable_data();
    without_gil([&] { linear_forward(R, I, O, xp, wp, bp, yp); });
    return y;
  });
}

py::object call_linear_backward(const py::object& dy, const py::object& x, const py::object& weight,
                                const py::object& dweight, const py::object& dbias, bool input_grad) {
  return dispatch_dtype(x, "x", [&](auto scalar) -> py::object {
    using T = decltype(scalar);
    const py::array x_array = as_array(x, "x"), w = checked<T>(weight, "weight", "x");
    require_ndim(x_array, "x", 2, "[R, I]");
    require_ndim(w, "weight", 2, "[O, I]");
    const int64_t R = x_array.shape(0), I = x_array.shape(1), O = w.shape(0);
    const T* dyp = input<T>(dy, "dy", "x", {R, O});
    const T* xp = input<T>(x, "x", "x", {R, I});
    const T* wp = input<T>(weight, "weight", "x", {O, I});
    T* dwp = output<T>(dweight, "dweight", "x", {O, I});
    T* dbp = optional_output<T>(dbias, "dbias", "x", {O});
    py::object dx = py::none();
    T* dxp = nullptr;
    if (input_grad) {
      auto array = empty<T>({R, I});
      dxp = array.mutable_data();
      dx = array;
    }
    without_gil([&] { linear_backward(R, I, O, dyp, xp, wp, dxp, dwp, dbp); });
    return dx;
  });
}

const int64_t* checked_indices(const py::object& indices, const char* name, int64_t rows, int64_t limit) {
  const py::array a = as_array(indices, name);
  if (!py::isinstance<py::array_t<int64_t>>(a))
    throw py::type_error(std::string(name) + ": expected dtype int64, got " + dtype_text(a));
  require_shape(a, name, {rows});
  require_contiguous(a, name);
  const auto* p = static_cast<const int64_t*>(a.data());
  for (int64_t i = 0; i < rows; ++i)
    if (p[i] < 0 || p[i] >= limit)
      throw py::value_error(std::string(name) + ": expected values from 0 to " + std::to_string(limit - 1) + ", got " +
                            std::to_string(p[i]) + " at position " + std::to_string(i));
  return p;
}

void embedding_backward(const py::object& dy, const py::object& indices, const py::object& dweight) {
  dispatch_dtype(dy, "dy", [&](auto scalar) {
    using T = decltype(scalar);
    const py::array a = as_array(dy, "dy"), w = checked<T>(dweight, "dweight", "dy");
    require_ndim(a, "dy", 2, "[R, E]");
    require_ndim(w, "dweight", 2, "[V, E]");
    const int64_t R = a.shape(0), E = a.shape(1), V = w.shape(0);
    const T* d = input<T>(dy, "dy", "dy", {R, E});
    T* out = output<T>(dweight, "dweight", "dy", {V, E});
    const int64_t* row = checked_indices(indices, "indices", R, V);
    without_gil([&] {
      for (int64_t r = 0; r < R; ++r)
        for (int64_t e = 0; e < E; ++e) out[row[r] * E + e] += d[r * E + e];
    });
  });
}

}  // namespace

void register_linear(py::module_& m) {
  using namespace py::literals;
  m.def("linear_forward", &call_linear_forward, "x"_a, "weight"_a, "bias"_a);
  m.def("linear_backward", &call_linear_backward, "dy"_a, "x"_a, "weight"_a, "dweight"_a, "dbias"_a, "input_grad"_a);
  m.def("embedding_backward", &embedding_backward, "dy"_a, "indices"_a, "dweight"_a);
}

}  // namespace fusedrnn::bindings
