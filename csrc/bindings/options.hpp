// The options of a cell, from the dict that functional.py makes of its arguments.
#pragma once

#include <cmath>

#include "../core/cells.hpp"
#include "data.hpp"

namespace fusedrnn::bindings {

inline Activation activation(const py::handle& object, const char* name) {
  static const char* const names[] = {"sigmoid",   "tanh",     "relu",     "hard_sigmoid",
                                      "hard_tanh", "softsign", "softplus", "identity"};
  const std::string text = py::str(object);
  for (int i = 0; i < 8; ++i)
    if (text == names[i]) return Activation(i);
  throw py::value_error(
      std::string(name) +
      ": expected sigmoid, tanh, relu, hard_sigmoid, hard_tanh, softsign, softplus or identity, got '" + text + "'");
}

inline double number(const py::dict& options, const char* name, double low, double high, bool open) {
  const double value = options[name].cast<double>();
  if (!(value >= low && (open ? value < high : value <= high)))
    throw py::value_error(std::string(name) + ": expected a number from " +
                          py::str(py::float_(low)).cast<std::string>() + (open ? " to below " : " to ") +
                          py::str(py::float_(high)).cast<std::string>() + ", got " +
                          py::str(py::float_(value)).cast<std::string>());
  return value;
}

// A limit of at least 0; None is 0: none.
inline double limit(const py::dict& options, const char* name) {
  if (options[name].is_none()) return 0;
  const double value = options[name].cast<double>();
  if (!(value > 0)) throw py::value_error(std::string(name) + ": expected a positive number or None");
  return std::isinf(value) ? 0 : value;
}

// What all cells have. G: rows of the gates, P: elements of h.
template <class T>
Options<T> read_options(const py::dict& options, const Data& d, bool reverse, bool training) {
  Options<T> o{};
  o.training = training;
  o.zoneout_h = number(options, "zoneout_h", 0, 1, false);
  o.recurrent_dropout = number(options, "recurrent_dropout", 0, 1, true);
  o.dropconnect = number(options, "dropconnect", 0, 1, true);
  o.grad_clip = limit(options, "grad_clip");
  o.seed = options["seed"].cast<uint64_t>();
  o.layer = options["layer"].cast<uint32_t>();
  o.direction = reverse;
  o.row_offset = options["row_offset"].cast<uint32_t>();
  o.step_offset = options["step_offset"].cast<uint32_t>();
  if (d.ragged) {
    o.row_numbers = d.ragged->row_numbers();
    if (reverse) o.lengths = d.ragged->lengths();
  }
  return o;
}

// layer_norm: (gains, biases), each of `parts`: of the input product, of the recurrent one, of the LSTM's c.
template <class T>
void read_layer_norm(const py::dict& options, Options<T>& o, const char* like, const std::vector<int64_t>& widths) {
  if (options["layer_norm"].is_none()) return;
  static const char* const gains[] = {"gain_ih", "gain_hh", "gain_c"};
  static const char* const biases[] = {"norm_bias_ih", "norm_bias_hh", "norm_bias_c"};
  const T** const to[2][3] = {{&o.gain_ih, &o.gain_hh, &o.gain_c}, {&o.norm_bias_ih, &o.norm_bias_hh, &o.norm_bias_c}};
  const auto both = options["layer_norm"].cast<py::sequence>();
  if (both.size() != 2) throw py::value_error("layer_norm: expected (gains, biases)");
  for (std::size_t kind = 0; kind < 2; ++kind) {
    const auto parts = both[kind].cast<py::sequence>();
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

// The gradients of layer_norm, arrays of the same form as it.
template <class T>
void read_layer_norm_gradients(const py::dict& gradients, OptionGradients<T>& g, const std::vector<int64_t>& widths) {
  if (gradients["dlayer_norm"].is_none()) return;
  T** const to[2][3] = {{&g.dgain_ih, &g.dgain_hh, &g.dgain_c}, {&g.dnorm_bias_ih, &g.dnorm_bias_hh, &g.dnorm_bias_c}};
  const auto both = gradients["dlayer_norm"].cast<py::sequence>();
  for (std::size_t kind = 0; kind < 2; ++kind) {
    const auto parts = both[kind].cast<py::sequence>();
    for (std::size_t i = 0; i < widths.size(); ++i)
      *to[kind][i] = optional_output<T>(parts[i], "dlayer_norm", "x", {widths[i]});
  }
}

}  // namespace fusedrnn::bindings
