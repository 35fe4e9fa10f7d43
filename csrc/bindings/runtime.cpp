#include "../core/dispatch.hpp"
#include "../core/parallel.hpp"
#include "arrays.hpp"

namespace fusedrnn::bindings {
namespace {

std::string compiler() {
  const auto version = [](int major, int minor, int patch) {
    return std::to_string(major) + '.' + std::to_string(minor) + '.' + std::to_string(patch);
  };
#if defined(__clang__)
  return "clang " + version(__clang_major__, __clang_minor__, __clang_patchlevel__);
#else
  return "gcc " + version(__GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
}

py::list as_list(const std::vector<std::string>& names) {
  py::list list;
  for (const std::string& name : names) list.append(name);
  return list;
}

py::object math_sweep(const std::string& name, const py::object& x) {
  const std::vector<std::string> functions{"exp", "sigmoid", "tanh", "softplus", "log", "log1p", "expm1", "sin", "cos"};
  int function = -1;
  for (int i = 0; i < int(functions.size()); ++i)
    if (functions[std::size_t(i)] == name) function = i;
  if (function < 0)
    throw py::value_error("name: expected exp, sigmoid, tanh, softplus, log, log1p, expm1, sin or cos, got '" + name +
                          "'");
  return dispatch_dtype(x, "x", [&](auto scalar) -> py::object {
    using T = decltype(scalar);
    const std::vector<int64_t> shape = shape_of(as_array(x, "x"));
    const T* in = input<T>(x, "x", "x", shape);
    auto y = empty<T>(shape);
    kernels<T>().math(function, y.size(), in, y.mutable_data());
    return y;
  });
}

}  // namespace

void register_runtime(py::module_& m) {
  using namespace py::literals;
  m.attr("__version__") = FUSEDRNN_VERSION;
  m.attr("compiler") = compiler();
  m.attr("NO_STEPS") = no_steps;
  m.def("built_isas", [] { return as_list(built_isas()); });
  m.def("available_isas", [] { return as_list(available_isas()); });
  m.def("isa", &isa);
  m.def("set_isa", &set_isa, "name"_a);
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads, "n"_a);
  m.def(
      "as_array", [](const Argument& object, const char* name) { return as_array(object, name); }, "object"_a,
      "name"_a);
  m.def(
      "views",
      [](const py::sequence& objects) {
        py::list found(objects.size());
        for (py::size_t i = 0; i < objects.size(); ++i) {
          const py::object object = objects[i];
          found[i] = object.is_none() ? object : dlpack::viewed(object);
        }
        return found;
      },
      "objects"_a);
  m.def("math_sweep", &math_sweep, "name"_a, "x"_a);
}

}  // namespace fusedrnn::bindings
