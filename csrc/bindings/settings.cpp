#include "settings.hpp"

#include <cmath>
#include <cstring>

namespace fusedrnn::bindings {

const CellFacts& facts_of(CellKind cell) {
  static const Parameter weight_ih{"weight_ih", "weight_ih", "RI", true},
      weight_hh{"weight_hh", "weight_hh", "RP", true}, bias_ih{"bias_ih", "bias_ih", "R", false},
      bias_hh{"bias_hh", "bias_hh", "R", false};
  static const Parameter gain_ih{"gain_ih", "layer_norm gain_ih", "R", false},
      gain_hh{"gain_hh", "layer_norm gain_hh", "R", false}, gain_c{"gain_c", "layer_norm gain_c", "H", false},
      norm_bias_ih{"norm_bias_ih", "layer_norm bias_ih", "R", false},
      norm_bias_hh{"norm_bias_hh", "layer_norm bias_hh", "R", false},
      norm_bias_c{"norm_bias_c", "layer_norm bias_c", "H", false};
  static const std::vector<Parameter> of_one_state{weight_ih, weight_hh, bias_ih,      bias_hh,
                                                   gain_ih,   gain_hh,   norm_bias_ih, norm_bias_hh};
  static const CellFacts all[] = {
      {"rnn",
       1,
       {"NP"},
       of_one_state,
       {"nonlinearity", "zoneout_h", "recurrent_dropout", "dropconnect", "grad_clip", "seed", "layer", "row_offset",
        "step_offset", "precision"}},
      {"lstm",
       4,
       {"NP", "NH"},
       {weight_ih,
        weight_hh,
        bias_ih,
        bias_hh,
        {"weight_peephole", "weight_peephole", "3H", false},
        {"weight_hr", "weight_hr", "PH", false},
        gain_ih,
        gain_hh,
        gain_c,
        norm_bias_ih,
        norm_bias_hh,
        norm_bias_c},
       {"recompute", "coupled", "cell_clip", "zoneout_h", "zoneout_c", "recurrent_dropout", "dropconnect",
        "activations", "grad_clip", "seed", "layer", "row_offset", "step_offset", "precision"}},
      {"gru",
       3,
       {"NP"},
       of_one_state,
       {"reset_after", "recompute", "zoneout_h", "recurrent_dropout", "dropconnect", "activations", "grad_clip", "seed",
        "layer", "row_offset", "step_offset", "precision"}},
      {"indrnn",
       1,
       {"NP"},
       {weight_ih, {"weight_hh", "weight_hh", "H", true}, {"bias", "bias", "R", false}},
       {"nonlinearity"}},
      {"mingru", 2, {"NP"}, {weight_ih, {"bias", "bias", "R", false}}, {}},
  };
  return all[int(cell)];
}

Activation activation(const std::string& text, const char* name) {
  static const char* const names[] = {"sigmoid",   "tanh",     "relu",     "hard_sigmoid",
                                      "hard_tanh", "softsign", "softplus", "identity"};
  for (int i = 0; i < 8; ++i)
    if (text == names[i]) return Activation(i);
  throw py::value_error(
      std::string(name) +
      ": expected sigmoid, tanh, relu, hard_sigmoid, hard_tanh, softsign, softplus or identity, got '" + text + "'");
}

namespace {

std::string text_of(const py::handle value) { return py::repr(value).cast<std::string>(); }

double real(const py::handle value, const std::string& name) {
  const double number = PyFloat_AsDouble(value.ptr());
  if (!PyErr_Occurred()) return number;
  PyErr_Clear();
  throw py::type_error(name + ": expected a number, got " + text_of(value));
}

// A probability: below 1 where no element would be left.
double probability(const py::handle value, const std::string& name, bool below_one) {
  const double p = real(value, name);
  if (!(p >= 0 && (p < 1 || (p == 1 && !below_one))))
    throw py::value_error(name + ": expected 0 <= p " + (below_one ? "< 1" : "<= 1") + ", got " + text_of(value));
  return p;
}

// A limit above 0; None is 0: none.
double limit(const py::handle value, const std::string& name) {
  if (value.is_none()) return 0;
  const double number = real(value, name);
  if (!(number > 0)) throw py::value_error(name + ": expected a positive number or None, got " + text_of(value));
  return std::isinf(number) ? 0 : number;
}

// An integer of so many bits.
uint64_t counter(const py::handle value, const std::string& name, int bits) {
  if (!PyIndex_Check(value.ptr())) throw py::type_error(name + ": expected an integer, got " + text_of(value));
  const py::int_ integer = py::reinterpret_steal<py::int_>(PyNumber_Index(value.ptr()));
  const uint64_t number = PyLong_AsUnsignedLongLong(integer.ptr());
  const bool failed = PyErr_Occurred();
  PyErr_Clear();
  if (failed || (bits < 64 && number >> bits))
    throw py::value_error(name + ": expected an integer from 0 to below 2^" + std::to_string(bits) + ", got " +
                          text_of(value));
  return number;
}

bool truth(const py::handle value) { return PyObject_IsTrue(value.ptr()) == 1; }

// The names of the gates' activation and so on; whether they are others than the plain cell's.
bool read_activations(const py::handle value, std::initializer_list<Activation*> to) {
  if (value.is_none()) return false;
  if (!py::isinstance<py::sequence>(value))
    throw py::type_error("activations: expected a sequence of names, got " + text_of(value));
  const auto names = py::reinterpret_borrow<py::sequence>(value);
  if (names.size() != to.size())
    throw py::value_error("activations: expected " + std::to_string(to.size()) + " names, got " +
                          std::to_string(names.size()));
  bool other = false;
  std::size_t i = 0;
  for (Activation* const a : to) {
    const Activation read = activation(py::str(names[i++]), "activations");
    other = other || read != *a;
    *a = read;
  }
  return other;
}

Precision precision_of(const py::handle value) {
  const std::string name = py::isinstance<py::str>(value) ? py::cast<std::string>(value) : "";
  if (name == "int8") return Precision::int8;
  if (name != "bfloat16")
    throw py::value_error("precision: expected None, 'bfloat16' or 'int8', got " + text_of(value));
  return Precision::bfloat16;
}

CellKind kind_of(const std::string& name) {
  for (int i = 0; i < 5; ++i)
    if (name == facts_of(CellKind(i)).name) return CellKind(i);
  throw py::value_error("cell: expected rnn, lstm, gru, indrnn or mingru, got '" + name + "'");
}

}  // namespace

Settings::Settings(const std::string& name, const py::dict& options) : cell(kind_of(name)), given(options) {
  if (cell == CellKind::rnn) gate = Activation::tanh;
  if (cell == CellKind::indrnn) gate = Activation::relu;
  for (const auto& [key, value] : options) {
    const auto option = py::cast<std::string>(key);
    bool known = option == "reverse", other = false;
    for (const char* const own : facts().options) known = known || option == own;
    if (!known) throw py::type_error(option + ": expected an option of " + name + ", which has none of this name");
    if (option == "reverse")
      reverse = truth(value);
    else if (option == "recompute")
      recompute = truth(value);
    else if (option == "reset_after")
      reset_after = truth(value);
    else if (option == "coupled")
      other = coupled = truth(value);
    else if (option == "nonlinearity") {
      if (!py::isinstance<py::str>(value)) throw py::type_error("nonlinearity: expected a name, got " + text_of(value));
      gate = activation(py::str(value), "nonlinearity");
      other = gate != Activation::tanh && gate != Activation::relu;
    } else if (option == "activations")
      other = cell == CellKind::lstm ? read_activations(value, {&gate, &candidate, &output})
                                     : read_activations(value, {&gate, &candidate});
    else if (option == "zoneout_h")
      other = (zoneout_h = probability(value, option, false)) > 0;
    else if (option == "zoneout_c")
      other = (zoneout_c = probability(value, option, false)) > 0;
    else if (option == "recurrent_dropout")
      other = (recurrent_dropout = probability(value, option, true)) > 0;
    else if (option == "dropconnect")
      other = (dropconnect = probability(value, option, true)) > 0;
    else if (option == "grad_clip")
      other = (grad_clip = limit(value, option)) > 0;
    else if (option == "cell_clip")
      other = (cell_clip = limit(value, option)) > 0;
    else if (option == "seed")
      seed = counter(value, option, 64);
    else if (option == "layer")
      layer = uint32_t(counter(value, option, 28));
    else if (option == "row_offset")
      row_offset = uint32_t(counter(value, option, 32));
    else if (option == "step_offset")
      step_offset = uint32_t(counter(value, option, 32));
    else if (!value.is_none())
      precision = precision_of(value);
    if (other) changed.push_back(option);
  }
  if (cell == CellKind::indrnn) changed.clear();  // which takes every activation
}

}  // namespace fusedrnn::bindings
