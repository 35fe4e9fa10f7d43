#include "bindings.hpp"

#include <pybind11/native_enum.h>
#include <pybind11/stl.h>

#include <map>

#include "launch.hpp"

namespace py = pybind11;

namespace fusedrnn::cuda {
namespace {

template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// The arrays by the names of Arguments' fields, as addresses on the GPU; absent ones are null.
Arguments arguments_of(const std::map<std::string, std::uintptr_t>& arrays, uint32_t reverse, bool relu) {
  Arguments a{};
  const std::map<std::string, const void**> in{{"gates_x", &a.gates_x}, {"weight", &a.weight}, {"bias_hn", &a.bias_hn},
                                               {"h0", &a.h0},           {"c0", &a.c0},         {"dy", &a.dy},
                                               {"dh_n", &a.dh_n},       {"dc_n", &a.dc_n}};
  const std::map<std::string, void**> out{{"y", &a.y},           {"h_n", &a.h_n}, {"c_n", &a.c_n}, {"gates", &a.gates},
                                          {"dgates", &a.dgates}, {"dh0", &a.dh0}, {"dc0", &a.dc0}};
  for (const auto& [name, address] : arrays) {
    if (in.count(name))
      *in.at(name) = pointer<const void>(address);
    else if (out.count(name))
      *out.at(name) = pointer<void>(address);
    else if (name == "cells")
      a.cells = pointer<float>(address);
    else if (name == "lengths")
      a.lengths = pointer<const int32_t>(address);
    else
      throw py::value_error("arrays: there is none of the name " + name);
  }
  a.reverse = reverse;
  a.relu = relu;
  return a;
}

}  // namespace

void bind(py::module_& m) {
  py::native_enum<CellKind>(m, "Cell", "enum.Enum")
      .value("rnn", CellKind::rnn)
      .value("lstm", CellKind::lstm)
      .value("gru", CellKind::gru)
      .finalize();
  py::native_enum<ProductKind>(m, "Product", "enum.Enum")
      .value("fma", ProductKind::fma)
      .value("tf32", ProductKind::tf32)
      .value("bfloat16", ProductKind::bfloat16)
      .value("float16", ProductKind::float16)
      .finalize();
  py::native_enum<Tier>(m, "Tier", "enum.Enum")
      .value("block", Tier::block)
      .value("cluster", Tier::cluster)
      .value("grid", Tier::grid)
      .value("steps", Tier::steps)
      .finalize();

  py::class_<Gpu>(m, "Gpu")
      .def(py::init(&known_gpu), py::arg("major"), py::arg("minor"), py::arg("multiprocessors"))
      .def_readonly("major", &Gpu::major)
      .def_readonly("minor", &Gpu::minor)
      .def_readonly("multiprocessors", &Gpu::multiprocessors)
      .def_readwrite("shared_bytes", &Gpu::shared_bytes)
      .def_readwrite("cluster", &Gpu::cluster);

  py::class_<Problem>(m, "Problem")
      .def(py::init([](CellKind cell, ProductKind product, bool backward, int steps, int batch, int hidden,
                       int directions) { return Problem{cell, product, backward, steps, batch, hidden, directions}; }),
           py::arg("cell"), py::arg("product"), py::arg("backward"), py::arg("steps"), py::arg("batch"),
           py::arg("hidden"), py::arg("directions"));

  py::class_<Layout> layout(m, "Layout");
  layout.def_readwrite("rows", &Layout::rows)
      .def_readonly("members", &Layout::members)
      .def_readonly("groups", &Layout::groups)
      .def_readonly("splits", &Layout::splits)
      .def_readonly("padded_units", &Layout::padded_units)
      .def_readonly("operand_stride", &Layout::operand_stride)
      .def_readonly("tiles", &Layout::tiles)
      .def_readonly("tiles_per_warp", &Layout::tiles_per_warp)
      .def_readwrite("register_tiles", &Layout::register_tiles)
      .def_readwrite("shared_tiles", &Layout::shared_tiles)
      .def_readonly("shared_bytes", &Layout::shared_bytes);
  py::class_<Plan>(m, "Plan")
      .def_readonly("tier", &Plan::tier)
      .def_readonly("layout", &Plan::layout)
      .def_readonly("threads", &Plan::threads)
      .def_readonly("row_tiles", &Plan::row_tiles)
      .def_readwrite("tiles_per_launch", &Plan::tiles_per_launch)
      .def_readonly("scratch_bytes", &Plan::scratch_bytes);

  m.def("make_plan", &make_plan, py::arg("problem"), py::arg("gpu"), py::arg("tier") = py::none(),
        py::arg("rows") = py::none());
  m.def(
      "run",
      [](const Problem& problem, const Plan& plan, const std::map<std::string, std::uintptr_t>& arrays,
         uint32_t reverse, bool relu, std::uintptr_t scratch, std::uintptr_t stream) {
        const Arguments a = arguments_of(arrays, reverse, relu);
        py::gil_scoped_release release;
        run(problem, plan, a, pointer<void>(scratch), pointer<void>(stream));
      },
      py::arg("problem"), py::arg("plan"), py::arg("arrays"), py::arg("reverse"), py::arg("relu"), py::arg("scratch"),
      py::arg("stream"));
}

}  // namespace fusedrnn::cuda
