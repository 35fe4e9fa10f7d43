#include "settings.hpp"

#include <array>
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

int place_of(const CellFacts& facts, const char* name) {
  for (std::size_t k = 0; k < facts.parameters.size(); ++k)
    if (!std::strcmp(facts.parameters[k].name, name)) return int(k);
  return -1;
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

double real(const py::handle value, const char* name) {
  const double number = PyFloat_AsDouble(value.ptr());
  if (!PyErr_Occurred()) return number;
  PyErr_Clear();
  throw py::type_error(std::string(name) + ": expected a number, got " + text_of(value));
}

// A probability: below 1 where no element would be left.
double probability(const py::handle value, const char* name, bool below_one) {
  const double p = real(value, name);
  if (!(p >= 0 && (p < 1 || (p == 1 && !below_one))))
    throw py::value_error(std::string(name) + ": expected 0 <= p " + (below_one ? "< 1" : "<= 1") + ", got " +
                          text_of(value));
  return p;
}

// A limit above 0; None is 0: none.
double limit(const py::handle value, const char* name) {
  if (value.is_none()) return 0;
  const double number = real(value, name);
  if (!(number > 0))
    throw py::value_error(std::string(name) + ": expected a positive number or None, got " + text_of(value));
  return std::isinf(number) ? 0 : number;
}

// An integer of so many bits.
uint64_t counter(const py::handle value, const char* name, int bits) {
  if (!PyIndex_Check(value.ptr()))
    throw py::type_error(std::string(name) + ": expected an integer, got " + text_of(value));
  const py::int_ integer = py::reinterpret_steal<py::int_>(PyNumber_Index(value.ptr()));
  const uint64_t number = PyLong_AsUnsignedLongLong(integer.ptr());
  const bool failed = PyErr_Occurred();
  PyErr_Clear();
  if (failed || (bits < 64 && number >> bits))
    throw py::value_error(std::string(name) + ": expected an integer from 0 to below 2^" + std::to_string(bits) +
                          ", got " + text_of(value));
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
  std::string known;
  for (int i = 0; i < int(CellKind::count); ++i) {
    if (name == facts_of(CellKind(i)).name) return CellKind(i);
    known += (i == 0 ? "" : i + 1 < int(CellKind::count) ? ", " : " or ") + std::string(facts_of(CellKind(i)).name);
  }
  throw py::value_error("cell: expected " + known + ", got '" + name + "'");
}

}  // namespace

namespace {

enum class Option {
  reverse,
  recompute,
  reset_after,
  coupled,
  nonlinearity,
  activations,
  zoneout_h,
  zoneout_c,
  recurrent_dropout,
  dropconnect,
  grad_clip,
  cell_clip,
  seed,
  layer,
  row_offset,
  step_offset,
  precision,
};
constexpr const char* option_names[] = {
    "reverse",   "recompute", "reset_after",       "coupled",     "nonlinearity", "activations",
    "zoneout_h", "zoneout_c", "recurrent_dropout", "dropconnect", "grad_clip",    "cell_clip",
    "seed",      "layer",     "row_offset",        "step_offset", "precision"};

// Python's own strings of those names, which keywords written in code are: found by address, in a call of microseconds.
PyObject* const* interned_names() {
  static PyObject* names[std::size(option_names)] = {};
  if (!names[0])
    for (std::size_t i = std::size(option_names); i-- > 0;) names[i] = PyUnicode_InternFromString(option_names[i]);
  return names;
}

// Bits of the options that a cell has.
uint32_t options_of(CellKind cell) {
  static const auto masks = [] {
    std::array<uint32_t, std::size_t(CellKind::count)> all{};
    for (int c = 0; c < int(CellKind::count); ++c) {
      all[std::size_t(c)] = 1u << int(Option::reverse);
      for (std::size_t i = 0; i < std::size(option_names); ++i)
        for (const char* const own : facts_of(CellKind(c)).options)
          if (!std::strcmp(own, option_names[i])) all[std::size_t(c)] |= 1u << i;
    }
    return all;
  }();
  return masks[std::size_t(cell)];
}

Option option_of(const py::handle key, CellKind cell) {
  PyObject* const* const names = interned_names();
  std::size_t i = 0;
  while (i < std::size(option_names) && names[i] != key.ptr()) ++i;
  if (i == std::size(option_names)) {
    const auto text = py::cast<std::string>(key);
    for (i = 0; i < std::size(option_names) && text != option_names[i];) ++i;
  }
  if (i == std::size(option_names) || !(options_of(cell) >> i & 1))
    throw py::type_error(py::cast<std::string>(key) + ": expected an option of " + facts_of(cell).name +
                         ", which has none of this name");
  return Option(i);
}

}  // namespace

Settings::Settings(const std::string& name, const py::dict& options) : cell(kind_of(name)), given(options) {
  if (cell == CellKind::rnn) gate = Activation::tanh;
  if (cell == CellKind::indrnn) gate = Activation::relu;
  for (const auto& [key, value] : options) {
    const Option option = option_of(key, cell);
    const char* const text = option_names[int(option)];
    bool other = false;
    switch (option) {
      case Option::reverse:
        reverse = truth(value);
        break;
      case Option::recompute:
        recompute = truth(value);
        break;
      case Option::reset_after:
        reset_after = truth(value);
        break;
      case Option::coupled:
        other = coupled = truth(value);
        break;
      case Option::nonlinearity:
        if (!py::isinstance<py::str>(value))
          throw py::type_error("nonlinearity: expected a name, got " + text_of(value));
        gate = activation(py::str(value), text);
        other = gate != Activation::tanh && gate != Activation::relu;
        break;
      case Option::activations:
        other = cell == CellKind::lstm ? read_activations(value, {&gate, &candidate, &output})
                                       : read_activations(value, {&gate, &candidate});
        break;
      case Option::zoneout_h:
        other = (zoneout_h = probability(value, text, false)) > 0;
        break;
      case Option::zoneout_c:
        other = (zoneout_c = probability(value, text, false)) > 0;
        break;
      case Option::recurrent_dropout:
        other = (recurrent_dropout = probability(value, text, true)) > 0;
        break;
      case Option::dropconnect:
        other = (dropconnect = probability(value, text, true)) > 0;
        break;
      case Option::grad_clip:
        other = (grad_clip = limit(value, text)) > 0;
        break;
      case Option::cell_clip:
        other = (cell_clip = limit(value, text)) > 0;
        break;
      case Option::seed:
        seed = counter(value, text, 64);
        break;
      case Option::layer:
        layer = uint32_t(counter(value, text, 28));
        break;
      case Option::row_offset:
        row_offset = uint32_t(counter(value, text, 32));
        break;
      case Option::step_offset:
        step_offset = uint32_t(counter(value, text, 32));
        break;
      case Option::precision:
        if (!value.is_none()) precision = precision_of(value);
        break;
    }
    if (other) changed.push_back(text);
  }
  if (is_elementwise(cell)) changed.clear();  // which have one kernel for every activation
}

}  // namespace fusedrnn::bindings
