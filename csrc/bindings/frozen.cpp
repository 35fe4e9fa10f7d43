#include <memory>
#include <vector>

#include "../core/frozen.hpp"
#include "../core/low_precision.hpp"
#include "elementwise.hpp"
#include "options.hpp"

namespace fusedrnn::bindings {
namespace {

// A layer whose products are in low precision; float32 alone has them.
template <class T>
std::unique_ptr<Frozen<T>> frozen_in(const std::string& precision, const std::string& cell, const std::string& option,
                                     int64_t batch, int64_t I, int64_t H, const T* weight_ih, const T* weight_hh,
                                     const T* bias_ih, const T* bias_hh) {
  if constexpr (std::is_same_v<T, float>) {
    require_int8_sums(precision, I, H);
    using Cell = LowPrecisionCell;
    return frozen_low_precision(precision == "int8" ? Precision::int8 : Precision::bfloat16,
                                cell == "rnn"    ? (option == "relu" ? Cell::rnn_relu : Cell::rnn_tanh)
                                : cell == "lstm" ? Cell::lstm
                                                 : (option == "reset_before" ? Cell::gru_reset_before : Cell::gru),
                                batch, I, H, weight_ih, weight_hh, bias_ih, bias_hh);
  }
  throw py::value_error("precision: expected float64 of a layer in float64, got " + precision);
}

// parts: (weight_ih, weight_hh, bias) of an IndRNN, whose activation is the option; (weight_ih, bias) of a minGRU.
template <class T>
std::unique_ptr<Frozen<T>> frozen_elementwise(const std::string& cell, const std::string& option, int64_t batch,
                                              const py::sequence& parts) {
  const bool indrnn = cell == "indrnn";
  if (parts.size() != (indrnn ? 3 : 2))
    throw py::value_error(indrnn ? "layers: expected (weight_ih, weight_hh, bias) of each"
                                 : "layers: expected (weight_ih, bias) of each");
  const int64_t gates = indrnn ? 1 : 2;
  const py::object weight_ih = parts[0], bias = parts[parts.size() - 1];
  ElementwiseForward<T> p{};
  p.shape.hidden = elementwise_units<T>(weight_ih, gates, "the layer");
  p.shape.inputs = as_array(weight_ih, "weight_ih").shape(1);
  const int64_t I = p.shape.inputs, H = p.shape.hidden;
  require_addressable("batch", std::to_string(batch), {batch, H});
  p.weight_ih = input<T>(weight_ih, "weight_ih", "the layer", {gates * H, I});
  p.bias = optional_input<T>(bias, "bias", "the layer", {gates * H});
  if (!indrnn) return frozen_mingru(batch, p);
  p.weight_hh = input<T>(parts[1], "weight_hh", "the layer", {H});
  p.activation = activation(py::str(option), "option");
  return frozen_indrnn(batch, p);
}

// The layers and directions of a stack, with their weights packed once: any of them over a sequence, or all one time
// step a call. Steps are not for two threads at once; the lock of the interpreter is held, for they take microseconds.
template <class T>
class FrozenStack {
 public:
  // layers: a list of (weight_ih, weight_hh, bias_ih, bias_hh), or as frozen_elementwise has it; option: of the cell,
  // "relu" or "reset_before". precision: of the products, "bfloat16" or "int8", or "" for that of the layer. batch: of
  // steps, 0 for sequences alone.
  FrozenStack(const std::string& cell, const std::string& option, const std::string& precision, int64_t batch,
              const py::list& layers) {
    const int64_t gates = cell == "rnn" ? 1 : cell == "gru" ? 3 : 4;
    if (batch < 0) throw py::value_error("batch: expected at least 0, got " + std::to_string(batch));
    if (layers.empty()) throw py::value_error("layers: expected at least one");
    const FlushSubnormals flush;  // as in a call, for the biases are added here
    for (const py::handle& item : layers) {
      const auto parts = item.cast<py::sequence>();
      if (cell == "indrnn" || cell == "mingru") {
        layers_.push_back(frozen_elementwise<T>(cell, option, batch, parts));
        continue;
      }
      if (parts.size() != 4) throw py::value_error("layers: expected (weight_ih, weight_hh, bias_ih, bias_hh) of each");
      const py::object weights[] = {parts[0], parts[1], parts[2], parts[3]};
      const int64_t H = hidden_size<T>(weights[0], weights[1], gates);
      const int64_t I = as_array(weights[0], "weight_ih").shape(1);
      require_addressable("batch", std::to_string(batch), {batch, H});
      const T* const weight_ih = input<T>(weights[0], "weight_ih", "the layer", {gates * H, I});
      const T* const weight_hh = input<T>(weights[1], "weight_hh", "the layer", {gates * H, H});
      const T* const bias_ih = optional_input<T>(weights[2], "bias_ih", "the layer", {gates * H});
      const T* const bias_hh = optional_input<T>(weights[3], "bias_hh", "the layer", {gates * H});
      if (!precision.empty())
        layers_.push_back(frozen_in<T>(precision, cell, option, batch, I, H, weight_ih, weight_hh, bias_ih, bias_hh));
      else if (cell == "rnn")
        layers_.push_back(frozen_rnn(batch, I, H, option == "relu", weight_ih, weight_hh, bias_ih, bias_hh));
      else if (cell == "gru")
        layers_.push_back(frozen_gru(batch, I, H, option != "reset_before", weight_ih, weight_hh, bias_ih, bias_hh));
      else
        layers_.push_back(frozen_lstm(batch, I, H, weight_ih, weight_hh, bias_ih, bias_hh));
    }
  }

  // [N, H] from x [N, I], or [H] from [I] where N is 1.
  py::array_t<T> step(const py::object& object) {
    const int64_t N = layers_[0]->batch, I = layers_[0]->inputs, H = layers_.back()->hidden;
    const py::array x = checked<T>(object, "x", "the weights");
    const bool flat = x.ndim() == 1 && N == 1;
    if (flat ? x.shape(0) != I : x.ndim() != 2 || x.shape(0) != N || x.shape(1) != I) require_shape(x, "x", {N, I});
    require_contiguous(x, "x");
    const FlushSubnormals flush;
    const T* input = static_cast<const T*>(x.data());
    for (const auto& layer : layers_) input = layer->step(input);
    py::array_t<T> y = flat ? py::array_t<T>(H) : py::array_t<T>({N, H});
    std::copy_n(input, N * H, y.mutable_data());
    return y;
  }

  // y [T, N, H], h_n [N, H] and c_n of one layer and direction; c_n is None for a cell without.
  py::tuple sequence(int64_t index, const py::object& x, const py::object& h0, const py::object& c0,
                     bool reverse) const {
    const Frozen<T>& layer = *layers_.at(std::size_t(index));
    const py::array a = checked<T>(x, "x", "the weights");
    require_ndim(a, "x", 3, "[T, N, I]");
    Sequence<T> s{};
    s.steps = a.shape(0);
    s.batch = a.shape(1);
    require_steps(s.steps);
    require_addressable("x", "shape " + shape_text(shape_of(a)), {s.steps, s.batch, layer.hidden});
    s.reverse = reverse;
    s.x = input<T>(x, "x", "the weights", {s.steps, s.batch, layer.inputs});
    s.h0 = optional_input<T>(h0, "h0", "the weights", {s.batch, layer.hidden});
    s.c0 = optional_input<T>(c0, "c0", "the weights", {s.batch, layer.hidden});
    auto y = empty<T>({s.steps, s.batch, layer.hidden}), h_n = empty<T>({s.batch, layer.hidden});
    s.y = y.mutable_data();
    s.h_n = h_n.mutable_data();
    py::object c_n = py::none();
    if (layer.has_c()) {
      auto array = empty<T>({s.batch, layer.hidden});
      s.c_n = array.mutable_data();
      c_n = array;
    }
    without_gil([&] { layer.sequence(s); });
    return py::make_tuple(y, h_n, c_n);
  }

  // h and c [L, N, H]; c is None for a cell without.
  py::tuple state() {
    return py::make_tuple(
        gathered([](auto& layer) { return layer.h(); }),
        layers_[0]->has_c() ? py::object(gathered([](auto& layer) { return layer.c(); })) : py::none());
  }

  void set_state(const py::object& h, const py::object& c) {
    const std::vector<int64_t> shape{int64_t(layers_.size()), layers_[0]->batch, layers_[0]->hidden};
    const T* const new_h = input<T>(h, "h", "the weights", shape);
    const T* const new_c = layers_[0]->has_c() ? input<T>(c, "c", "the weights", shape) : nullptr;
    const int64_t size = shape[1] * shape[2];
    for (int64_t l = 0; l < shape[0]; ++l) {
      std::copy_n(new_h + l * size, size, layers_[std::size_t(l)]->h());
      if (new_c) std::copy_n(new_c + l * size, size, layers_[std::size_t(l)]->c());
    }
  }

 private:
  template <class F>
  py::array_t<T> gathered(F part) {
    const int64_t L = int64_t(layers_.size()), N = layers_[0]->batch, H = layers_[0]->hidden;
    py::array_t<T> all({L, N, H});
    for (int64_t l = 0; l < L; ++l) std::copy_n(part(*layers_[std::size_t(l)]), N * H, all.mutable_data() + l * N * H);
    return all;
  }

  std::vector<std::unique_ptr<Frozen<T>>> layers_;
};

template <class T>
void register_frozen_of(py::module_& m, const char* name) {
  using namespace py::literals;
  py::class_<FrozenStack<T>>(m, name)
      .def(py::init<const std::string&, const std::string&, const std::string&, int64_t, const py::list&>(), "cell"_a,
           "option"_a, "precision"_a, "batch"_a, "layers"_a)
      .def("sequence", &FrozenStack<T>::sequence, "index"_a, "x"_a, "h0"_a, "c0"_a, "reverse"_a)
      .def("step", &FrozenStack<T>::step, "x"_a)
      .def("state", &FrozenStack<T>::state)
      .def("set_state", &FrozenStack<T>::set_state, "h"_a, "c"_a);
}

}  // namespace

void register_frozen(py::module_& m) {
  register_frozen_of<float>(m, "FrozenFloat32");
  register_frozen_of<double>(m, "FrozenFloat64");
}

}  // namespace fusedrnn::bindings
