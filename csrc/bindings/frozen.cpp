#include <memory>
#include <vector>

#include "../core/frozen.hpp"
#include "call.hpp"

namespace fusedrnn::bindings {
namespace {

// One layer and direction; parameters as in a call.
template <class T>
std::unique_ptr<Frozen<T>> frozen_layer(const Settings& s, int64_t batch, const py::sequence& parameters) {
  const auto& list = s.facts().parameters;
  std::array<Argument, most_parameters> parts;
  for (std::size_t k = 0; k < list.size(); ++k)
    parts[k] = k < parameters.size() ? Argument::of(py::object(parameters[k])) : Argument::of(py::none());
  if (parameters.size() > list.size()) throw py::type_error("layers: expected the parameters of each");
  const bool elementwise = is_elementwise(s.cell);
  const int64_t H = elementwise ? elementwise_units<T>(parts[0], s.gates(), "the layer")
                                : hidden_size<T>(parts[0], parts[1], s.gates());
  const int64_t I = as_array(parts[0], "weight_ih").shape(1);
  require_addressable("batch", std::to_string(batch), {batch, H});
  const T* p[most_parameters] = {};
  for (std::size_t k = 0; k < list.size(); ++k) {
    if (parts[k].is_none() && !list[k].needed) continue;
    if (std::string(list[k].name).starts_with("bias") || list[k].needed)
      p[k] = input<T>(parts[k], list[k].label, "the layer", shape_by_axes(list[k].axes, s.gates() * H, I, H, H));
    else
      throw py::value_error(std::string(list[k].label) + ": expected None of a layer whose weights are packed");
  }
  if (elementwise) {
    const int weight_hh = place_of(s.facts(), "weight_hh");
    ElementwiseForward<T> e{};
    e.kind = elementwise_kind(s.cell);
    e.shape.hidden = H;
    e.shape.inputs = I;
    e.weight_ih = p[0];
    e.weight_hh = weight_hh < 0 ? nullptr : p[weight_hh];
    e.bias = p[place_of(s.facts(), "bias")];
    e.activation = s.gate;
    return frozen_elementwise(batch, e);
  }
  if (s.precision) {
    if constexpr (std::is_same_v<T, float>) {
      require_int8_sums(*s.precision, I, H);
      return frozen_low_precision(*s.precision, low_precision_cell(s), batch, I, H, p[0], p[1], p[2], p[3]);
    }
    throw py::value_error("precision: expected None of a layer in float64");
  }
  if (s.cell == CellKind::rnn) return frozen_rnn(batch, I, H, s.gate == Activation::relu, p[0], p[1], p[2], p[3]);
  if (s.cell == CellKind::gru) return frozen_gru(batch, I, H, s.reset_after, p[0], p[1], p[2], p[3]);
  return frozen_lstm(batch, I, H, p[0], p[1], p[2], p[3]);
}

// The layers and directions of a stack, with their weights packed once: any of them over a sequence, or all one time
// step a call. Steps are not for two threads at once; the lock of the interpreter is held, for they take microseconds.
template <class T>
class FrozenStack {
 public:
  // layers: a list of the parameters of each. batch: of steps, 0 for sequences alone.
  FrozenStack(const Settings& settings, int64_t batch, const py::list& layers) {
    if (batch < 0) throw py::value_error("batch: expected at least 0, got " + std::to_string(batch));
    if (layers.empty()) throw py::value_error("layers: expected at least one");
    if (!settings.changed.empty())
      throw py::value_error(settings.changed[0] + ": expected the plain cell's, as weights are packed for it alone");
    const FlushSubnormals flush;  // as in a call, for the biases are added here
    for (const py::handle& item : layers)
      layers_.push_back(frozen_layer<T>(settings, batch, item.cast<py::sequence>()));
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

  // y [T, N, H] and the final states, each [N, H], of one layer and direction.
  py::tuple sequence(int64_t index, const py::object& x, const py::tuple& states, bool reverse) const {
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
    require_states(states);
    s.h0 = optional_input<T>(states[0], "h0", "the weights", {s.batch, layer.hidden});
    if (layer.has_c()) s.c0 = optional_input<T>(states[1], "c0", "the weights", {s.batch, layer.hidden});
    auto y = empty<T>({s.steps, s.batch, layer.hidden}), h_n = empty<T>({s.batch, layer.hidden});
    s.y = y.mutable_data();
    s.h_n = h_n.mutable_data();
    py::array_t<T> c_n;
    if (layer.has_c()) {
      c_n = empty<T>({s.batch, layer.hidden});
      s.c_n = c_n.mutable_data();
    }
    without_gil([&] { layer.sequence(s); });
    if (layer.has_c()) return py::make_tuple(y, h_n, c_n);
    return py::make_tuple(y, h_n);
  }

  // The states, each [L, N, H].
  py::tuple state() {
    const py::array_t<T> h = gathered([](auto& layer) { return layer.h(); });
    if (layers_[0]->has_c()) return py::make_tuple(h, gathered([](auto& layer) { return layer.c(); }));
    return py::make_tuple(h);
  }

  void set_state(const py::tuple& states) {
    require_states(states);
    const std::vector<int64_t> shape{int64_t(layers_.size()), layers_[0]->batch, layers_[0]->hidden};
    const T* const new_h = input<T>(states[0], "h", "the weights", shape);
    const T* const new_c = layers_[0]->has_c() ? input<T>(states[1], "c", "the weights", shape) : nullptr;
    const int64_t size = shape[1] * shape[2];
    for (int64_t l = 0; l < shape[0]; ++l) {
      std::copy_n(new_h + l * size, size, layers_[std::size_t(l)]->h());
      if (new_c) std::copy_n(new_c + l * size, size, layers_[std::size_t(l)]->c());
    }
  }

 private:
  void require_states(const py::tuple& states) const {
    const std::size_t count = layers_[0]->has_c() ? 2 : 1;
    if (states.size() != count)
      throw py::type_error("states: expected " + std::to_string(count) + ", got " + std::to_string(states.size()));
  }

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
      .def(py::init<const Settings&, int64_t, const py::list&>(), "settings"_a, "batch"_a, "layers"_a)
      .def("sequence", &FrozenStack<T>::sequence, "index"_a, "x"_a, "states"_a, "reverse"_a)
      .def("step", &FrozenStack<T>::step, "x"_a)
      .def("state", &FrozenStack<T>::state)
      .def("set_state", &FrozenStack<T>::set_state, "states"_a);
}

}  // namespace

void register_frozen(py::module_& m) {
  register_frozen_of<float>(m, "FrozenFloat32");
  register_frozen_of<double>(m, "FrozenFloat64");
}

}  // namespace fusedrnn::bindings
