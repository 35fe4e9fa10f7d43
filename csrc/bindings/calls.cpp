// forward and backward from Python, and the reserve between them.
#include <pybind11/stl.h>

#include "call.hpp"

namespace fusedrnn::bindings {
namespace {

const void* gradient_in(const Call& call, const py::handle object, const char* name,
                        const std::vector<int64_t>& shape) {
  const Argument a = Argument::of(object);
  return call.doubles ? static_cast<const void*>(optional_input<double>(a, name, "x", shape))
                      : optional_input<float>(a, name, call.settings.precision ? "y" : "x", shape);
}

void* array_out(const Call& call, const py::handle object, const char* name, const std::vector<int64_t>& shape) {
  const Argument a = Argument::of(object);
  return call.doubles ? static_cast<void*>(output<double>(a, name, "x", shape))
                      : output<float>(a, name, call.settings.precision ? "y" : "x", shape);
}

}  // namespace

Reserve::Reserve(std::shared_ptr<const Call> c, py::tuple inputs_, py::object y_, py::object buffer_)
    : call(std::move(c)), inputs(std::move(inputs_)), y(std::move(y_)), buffer(std::move(buffer_)) {
  owned.keep(as_array(y, "y"), "y");
  owned.keep(as_array(buffer, "reserve"), "reserve");
}

std::shared_ptr<Reserve> reserve_of(const std::shared_ptr<const Settings>& settings, const Argument& x,
                                    const py::tuple& states, const py::tuple& parameters, const py::object& sequences,
                                    const Argument& y, const Argument& buffer) {
  std::shared_ptr<const Call> call = make_call(settings, x, states, parameters, sequences);
  gradient_in(*call, as_array(y, "y"), "y", call->data.of(call->P));
  gradient_in(*call, as_array(buffer, "reserve"), "reserve", call->data.of(call->reserve_width));
  return std::make_shared<Reserve>(call, py::make_tuple(py::object(x), states, parameters, sequences), y, buffer);
}

py::tuple call_forward(const std::shared_ptr<const Settings>& settings, const Argument& x, const py::tuple& states,
                       const py::tuple& parameters, const py::object& sequences, bool training, const Argument& given_y,
                       bool return_c) {
  std::shared_ptr<const Call> call = make_call(settings, x, states, parameters, sequences);
  if (training) call->require_training();
  if (return_c) call->require_c();
  const bool two = call->states() == 2;
  const std::vector<int64_t> of_y = call->data.of(call->P);
  Fresh y, h_n(call->doubles, call->state_shape(0)), c_n, buffer, c;
  if (given_y.is_none()) {
    y = Fresh(call->doubles, of_y);
  } else {
    y.data = array_out(*call, given_y, "y", of_y);
    y.array = given_y;
  }
  if (two) c_n = Fresh(call->doubles, call->state_shape(1));
  if (training) buffer = Fresh(call->doubles, call->data.of(call->reserve_width));
  if (return_c) c = Fresh(call->doubles, call->data.of(call->H));
  const ForwardArrays f{y.data, h_n.data, c_n.data, buffer.data, c.data, training};
  without_gil([&] { call->forward(f); });
  py::object reserve = py::none();
  if (training)
    reserve = py::cast(std::make_shared<Reserve>(call, py::make_tuple(py::object(x), states, parameters, sequences),
                                                 y.array, buffer.array));
  py::tuple results(2 + call->states() + return_c);
  py::ssize_t at = 0;
  const auto add = [&](const py::object& o) { PyTuple_SET_ITEM(results.ptr(), at++, o.inc_ref().ptr()); };
  add(y.array);
  add(h_n.array);
  if (two) add(c_n.array);
  add(reserve);
  if (return_c) add(c.array);
  return results;
}

void read_parameter_gradients(const Call& call, const py::tuple& given, BackwardArrays& b) {
  const auto& list = call.settings.facts().parameters;
  if (given.size() > list.size()) throw py::type_error("dparameters: expected at most as many as there are parameters");
  for (std::size_t k = 0; k < list.size(); ++k) {
    const py::object part = k < given.size() ? py::object(given[k]) : py::none();
    const std::string label = list[k].label;
    const std::string name = label.starts_with("layer_norm") ? "dlayer_norm" : "d" + label;
    if (!call.present[k]) {
      if (!part.is_none()) throw py::value_error(name + ": expected None, as forward had no such array");
    } else if (!part.is_none() || !label.starts_with("bias")) {
      b.dparameters[k] = array_out(call, part, name.c_str(), call.shape_of_parameter(k));
    }
  }
}

py::object backward_of(const Reserve& reserve, const py::tuple& doutputs, bool input_grad, const py::tuple& dparameters,
                       void* const dinitial[2]) {
  const Call& call = *reserve.call;
  const std::size_t states = call.states();
  const bool has_dc = doutputs.size() == states + 2 && !doutputs[states + 1].is_none();
  if (doutputs.size() != states + 1 && doutputs.size() != states + 2)
    throw py::type_error("doutputs: expected the gradients of y and the states");
  reserve.require_in_place();
  BackwardArrays b{};
  b.dy = gradient_in(call, doutputs[0], "dy", call.data.of(call.P));
  b.dh_n = gradient_in(call, doutputs[1], "dh_n", call.state_shape(0));
  if (states == 2) b.dc_n = gradient_in(call, doutputs[2], "dc_n", call.state_shape(1));
  if (has_dc) {
    call.require_c_gradient();
    b.dc = gradient_in(call, doutputs[states + 1], "dc", call.data.of(call.H));
  }
  b.y = as_array(reserve.y, "y").data();
  b.reserve = as_array(reserve.buffer, "reserve").data();
  read_parameter_gradients(call, dparameters, b);
  b.dh0 = dinitial[0];
  b.dc0 = dinitial[1];
  Fresh dx;
  if (input_grad) dx = Fresh(call.doubles, call.data.of(call.data.shape.inputs));
  b.dx = dx.data;
  without_gil([&] { call.backward(b); });
  return dx.array;
}

py::tuple call_backward(const Reserve& reserve, const py::tuple& doutputs, bool input_grad,
                        const py::tuple& dparameters) {
  const Call& call = *reserve.call;
  Fresh dh0(call.doubles, call.state_shape(0)), dc0;
  if (call.states() == 2) dc0 = Fresh(call.doubles, call.state_shape(1));
  void* const into[2] = {dh0.data, dc0.data};
  const py::object dx = backward_of(reserve, doutputs, input_grad, dparameters, into);
  if (call.states() == 2) return py::make_tuple(dx, dh0.array, dc0.array);
  return py::make_tuple(dx, dh0.array);
}

void register_calls(py::module_& m) {
  using namespace py::literals;
  py::class_<Settings, std::shared_ptr<Settings>>(m, "Settings")
      .def(py::init(
               [](const std::string& cell, const py::kwargs& options) { return Settings(cell, py::dict(options)); }),
           "cell"_a)
      .def_property_readonly("cell", [](const Settings& s) { return s.facts().name; })
      .def_property_readonly("options", [](const Settings& s) { return s.given.attr("copy")(); })
      .def_readonly("changed", &Settings::changed)
      .def("replace",
           [](const Settings& s, const py::kwargs& options) {
             py::dict both = s.given.attr("copy")();
             both.attr("update")(options);
             return Settings(s.facts().name, both);
           })
      .def(py::pickle(
          [](const Settings& s) { return py::make_tuple(s.facts().name, s.given); },
          [](const py::tuple& state) { return Settings(state[0].cast<std::string>(), state[1].cast<py::dict>()); }));
  py::class_<Reserve, std::shared_ptr<Reserve>>(m, "Reserve")
      .def(py::init(&reserve_of), "settings"_a, "x"_a, "states"_a, "parameters"_a, "sequences"_a, "y"_a, "buffer"_a)
      .def_readwrite("digests", &Reserve::digests)
      .def_property_readonly("cell", [](const Reserve& r) { return r.call->settings.facts().name; })
      .def_property_readonly("settings", [](const Reserve& r) { return std::make_shared<Settings>(r.call->settings); })
      .def_property_readonly("x", [](const Reserve& r) { return r.inputs[0]; })
      .def_property_readonly("states", [](const Reserve& r) { return r.inputs[1]; })
      .def_property_readonly("parameters", [](const Reserve& r) { return r.inputs[2]; })
      .def_property_readonly("sequences", [](const Reserve& r) { return r.inputs[3]; })
      .def_readonly("y", &Reserve::y)
      .def_readonly("buffer", &Reserve::buffer);
  m.def("forward", &call_forward, "settings"_a, "x"_a, "states"_a, "parameters"_a, "sequences"_a, "training"_a,
        "y"_a = py::none(), "return_c"_a = false);
  m.def("backward", &call_backward, "reserve"_a, "doutputs"_a, "input_grad"_a, "dparameters"_a);
  m.def("cell_facts", [] {
    py::dict all;
    for (int i = 0; i < int(CellKind::count); ++i) {
      const CellFacts& facts = facts_of(CellKind(i));
      py::dict parameters;
      for (const Parameter& p : facts.parameters) parameters[p.name] = p.axes;
      all[facts.name] = py::make_tuple(facts.gates, py::cast(facts.states), parameters, py::cast(facts.options));
    }
    return all;
  });
}

}  // namespace fusedrnn::bindings
