// The options of a cell, from the dict that functional.py makes of its arguments.
#pragma once

#include <cmath>

#include "../core/cells.hpp"
#include "data.hpp"

namespace fusedrnn::bindings {

inline Activation activation(const std::string& text, const char* name) {
  static const char* const names[] = {"sigmoid",   "tanh",     "relu",     "hard_sigmoid",
                                      "hard_tanh", "softsign", "softplus", "identity"};
  for (int i = 0; i < 8; ++i)
    if (text == names[i]) return Activation(i);
  throw py::value_error(
      std::string(name) +
      ": expected sigmoid, tanh, relu, hard_sigmoid, hard_tanh, softsign, softplus or identity, got '" + text + "'");
}

inline double real(const py::dict& options, const char* name) {
  const double value = PyFloat_AsDouble(options[name].ptr());
  if (!PyErr_Occurred()) return value;
  PyErr_Clear();
  throw py::type_error(std::string(name) + ": expected a number, got " + py::repr(options[name]).cast<std::string>());
}

// A probability: below 1 where no element would be left.
inline double probability(const py::dict& options, const char* name, bool below_one) {
  const double p = real(options, name);
  if (!(p >= 0 && (p < 1 || (p == 1 && !below_one))))
    throw py::value_error(std::string(name) + ": expected 0 <= p " + (below_one ? "< 1" : "<= 1") + ", got " +
                          py::repr(options[name]).cast<std::string>());
  return p;
}

// A limit above 0; None is 0: none.
inline double limit(const py::dict& options, const char* name) {
  if (options[name].is_none()) return 0;
  const double value = real(options, name);
  if (!(value > 0))
    throw py::value_error(std::string(name) + ": expected a positive number or None, got " +
                          py::repr(options[name]).cast<std::string>());
  return std::isinf(value) ? 0 : value;
}

// An integer of so many bits.
inline uint64_t counter(const py::dict& options, const char* name, int bits) {
  const py::object value = options[name], text = py::repr(value);
  if (!PyIndex_Check(value.ptr()))
    throw py::type_error(std::string(name) + ": expected an integer, got " + text.cast<std::string>());
  const py::int_ integer = py::reinterpret_steal<py::int_>(PyNumber_Index(value.ptr()));
  const uint64_t number = PyLong_AsUnsignedLongLong(integer.ptr());
  const bool failed = PyErr_Occurred();
  PyErr_Clear();
  if (failed || (bits < 64 && number >> bits))
    throw py::value_error(std::string(name) + ": expected an integer from 0 to below 2^" + std::to_string(bits) +
                          ", got " + text.cast<std::string>());
  return number;
}

inline py::sequence as_sequence(const py::object& object, const char* name, const char* what) {
  if (!py::isinstance<py::sequence>(object))
    throw py::type_error(std::string(name) + ": expected " + what + ", got " + py::repr(object).cast<std::string>());
  return py::reinterpret_borrow<py::sequence>(object);
}

// What all cells have.
template <class T>
Options<T> read_options(const py::dict& options, const Data& d, bool reverse, bool training) {
  Options<T> o{};
  o.training = training;
  o.zoneout_h = probability(options, "zoneout_h", false);
  o.recurrent_dropout = probability(options, "recurrent_dropout", true);
  o.dropconnect = probability(options, "dropconnect", true);
  o.grad_clip = limit(options, "grad_clip");
  o.seed = counter(options, "seed", 64);
  o.layer = uint32_t(counter(options, "layer", 28));
  o.direction = reverse;
  o.row_offset = uint32_t(counter(options, "row_offset", 32));
  o.step_offset = uint32_t(counter(options, "step_offset", 32));
  o.projection = d.shape.hidden;
  if (d.ragged) {
    o.row_numbers = d.ragged->row_numbers();
    if (reverse) o.lengths = d.ragged->lengths();
  }
  return o;
}

// activations: the names of the gates' and so on.
inline void read_activations(const py::dict& options, std::initializer_list<Activation*> to) {
  const py::sequence names = as_sequence(options["activations"], "activations", "names");
  if (names.size() != to.size())
    throw py::value_error("activations: expected " + std::to_string(to.size()) + " names, got " +
                          std::to_string(names.size()));
  std::size_t i = 0;
  for (Activation* const a : to) *a = activation(py::str(names[i++]), "activations");
}

// layer_norm: (gains, biases), each of `parts`: of the input product, of the recurrent one, of the LSTM's c.
template <class T>
void read_layer_norm(const py::dict& options, Options<T>& o, const char* like, const std::vector<int64_t>& widths) {
  if (options["layer_norm"].is_none()) return;
  static const char* const gains[] = {"layer_norm gain_ih", "layer_norm gain_hh", "layer_norm gain_c"};
  static const char* const biases[] = {"layer_norm bias_ih", "layer_norm bias_hh", "layer_norm bias_c"};
  const T** const to[2][3] = {{&o.gain_ih, &o.gain_hh, &o.gain_c}, {&o.norm_bias_ih, &o.norm_bias_hh, &o.norm_bias_c}};
  const py::sequence both = as_sequence(options["layer_norm"], "layer_norm", "(gains, biases)");
  if (both.size() != 2)
    throw py::value_error("layer_norm: expected (gains, biases), got " + std::to_string(both.size()) + " of them");
  for (std::size_t kind = 0; kind < 2; ++kind) {
    const py::sequence parts = as_sequence(both[kind], "layer_norm", kind ? "biases" : "gains");
    if (parts.size() != widths.size())
      throw py::value_error("layer_norm: expected " + std::to_string(widths.size()) + (kind ? " biases" : " gains") +
                            ", got " + std::to_string(parts.size()));
    for (std::size_t i = 0; i < widths.size(); ++i) {
      const py::object part = parts[i];
      *to[kind][i] =
          kind ? optional_input<T>(part, biases[i], like, {widths[i]}) : input<T>(part, gains[i], like, {widths[i]});
    }
  }
}

// The gradients of layer_norm, arrays of the same form as it; None without.
template <class T>
void read_layer_norm_gradients(const py::object& dlayer_norm, OptionGradients<T>& g,
                               const std::vector<int64_t>& widths) {
  if (dlayer_norm.is_none()) return;
  T** const to[2][3] = {{&g.dgain_ih, &g.dgain_hh, &g.dgain_c}, {&g.dnorm_bias_ih, &g.dnorm_bias_hh, &g.dnorm_bias_c}};
  const py::sequence both = as_sequence(dlayer_norm, "dlayer_norm", "(dgains, dbiases)");
  for (std::size_t kind = 0; kind < 2; ++kind) {
    const py::sequence parts = as_sequence(both[kind], "dlayer_norm", kind ? "dbiases" : "dgains");
    for (std::size_t i = 0; i < widths.size(); ++i)
      *to[kind][i] = optional_output<T>(parts[i], "dlayer_norm", "x", {widths[i]});
  }
}

}  // namespace fusedrnn::bindings
