// All layers and directions of a stack, forward and backward, in one call from Python.
#include <pybind11/stl.h>

#include <cstring>

#include "call.hpp"

namespace fusedrnn::bindings {
namespace {

using Shape3 = std::vector<int64_t>;

int64_t elements(const Shape3& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

// Copies [rows, 2, width] from the parts, each [rows, width], or to them where `apart`. Widths in bytes.
void beside(void* whole, void* const parts[2], int64_t rows, int64_t width, bool apart) {
  auto* at = static_cast<char*>(whole);
  for (int64_t r = 0; r < rows; ++r)
    for (int d = 0; d < 2; ++d, at += width) {
      char* const part = static_cast<char*>(parts[d]) + r * width;
      apart ? std::memcpy(part, at, std::size_t(width)) : std::memcpy(at, part, std::size_t(width));
    }
}

// to = a + b, or a * b; `to` may be one of them.
void elementwise(bool doubles, bool product, void* to, const void* a, const void* b, int64_t count) {
  const auto of = [&]<class T>(T* t, const T* x, const T* y) {
    if (product)
      for (int64_t i = 0; i < count; ++i) t[i] = x[i] * y[i];
    else
      for (int64_t i = 0; i < count; ++i) t[i] = x[i] + y[i];
  };
  without_gil([&] {
    doubles ? of(static_cast<double*>(to), static_cast<const double*>(a), static_cast<const double*>(b))
            : of(static_cast<float*>(to), static_cast<const float*>(a), static_cast<const float*>(b));
  });
}

Fresh times_mask(bool doubles, const void* a, const Shape3& shape, const py::object& object) {
  const Argument mask = Argument::of(object);
  const void* const m = doubles ? static_cast<const void*>(input<double>(mask, "mask", "x", shape))
                                : input<float>(mask, "mask", "x", shape);
  Fresh out(doubles, shape);
  elementwise(doubles, true, out.data, a, m, elements(shape));
  return out;
}

// A state of the whole stack as a caller gave it: [L * D, N, W], or where sizes differ an array [D, N, W] a layer.
class StackState {
 public:
  StackState(const py::object& given, int64_t directions) : directions_(directions) {
    if (given.is_none()) return;
    whole_ = !py::isinstance<py::tuple>(given) && !py::isinstance<py::list>(given);
    if (whole_)
      arrays_.push_back(as_array(given, "state"));
    else
      for (const py::handle part : given)
        arrays_.push_back(as_array(py::reinterpret_borrow<py::object>(part), "state"));
  }
  // [N, W] of a layer and direction, in place.
  py::object at(int64_t index) const {
    if (arrays_.empty()) return py::none();
    const py::array& a = arrays_.at(whole_ ? 0 : std::size_t(index / directions_));
    const auto* const data = static_cast<const char*>(a.data()) + (whole_ ? index : index % directions_) * a.strides(0);
    return py::array(a.dtype(), {a.shape(1), a.shape(2)}, data, a);
  }

 private:
  int64_t directions_;
  bool whole_ = false;
  std::vector<py::array> arrays_;
};

// States that a call fills, in arrays as StackState has them; widths: of each layer.
class StackOutputs {
 public:
  StackOutputs(const std::vector<int64_t>& widths, int64_t directions, int64_t rows, bool doubles, bool equal)
      : directions_(directions), rows_(rows), itemsize_(doubles ? 8 : 4), widths_(widths), equal_(equal) {
    if (equal)
      arrays_.emplace_back(doubles, Shape3{int64_t(widths.size()) * directions, rows, widths[0]});
    else
      for (const int64_t width : widths) arrays_.emplace_back(doubles, Shape3{directions, rows, width});
  }
  void* at(int64_t index) const {
    const std::size_t layer = std::size_t(index / directions_);
    const int64_t place = equal_ ? index : index % directions_;
    return static_cast<char*>(arrays_[equal_ ? 0 : layer].data) + place * rows_ * widths_[layer] * itemsize_;
  }
  py::object result() const {
    if (equal_) return arrays_[0].array;
    py::tuple all(arrays_.size());
    for (std::size_t i = 0; i < arrays_.size(); ++i) all[i] = arrays_[i].array;
    return all;
  }

 private:
  int64_t directions_, rows_, itemsize_;
  std::vector<int64_t> widths_;
  bool equal_;
  std::vector<Fresh> arrays_;
};

using Widths = std::vector<std::vector<int64_t>>;
using Directions = std::vector<std::shared_ptr<Settings>>;

class Stack {
 public:
  // Settings of one direction or of both; sizes: of each layer the widths of its states.
  Stack(Directions settings, Widths sizes, bool residual)
      : settings_(std::move(settings)), sizes_(std::move(sizes)), residual_(residual), equal_(true) {
    if (settings_.empty() || settings_.size() > 2 || sizes_.empty())
      throw py::value_error("settings: expected those of one direction or two, and at least one layer");
    for (const auto& widths : sizes_) {
      require_count(widths.size(), settings_[0]->facts().states.size(), "sizes", "states of the cell");
      equal_ = equal_ && widths == sizes_[0];
    }
  }

  py::tuple state() const { return py::make_tuple(settings_, sizes_, residual_); }

  // (y, (h_n[, c_n]), reserves). states: of the whole stack; parameters: of each layer and direction; masks: what
  // multiplies the output of each layer but the last, or None; draws: (seed, row_offset) of random options, or None.
  py::tuple forward(const Argument& given, const py::tuple& states, const py::list& parameters,
                    const py::object& sequences, bool training, const py::object& masks,
                    const py::object& draws) const {
    require_count(parameters.size(), std::size_t(layers() * directions()), "parameters", "layers and directions");
    if (!masks.is_none()) require_count(py::len(masks), std::size_t(layers() - 1), "masks", "layers but the last");
    const std::vector<StackState> initial = states_of(states);
    std::vector<StackOutputs> final;
    py::object x = given;
    const void* x_data = nullptr;
    py::list reserves;
    for (int64_t l = 0; l < layers(); ++l) {
      Fresh parts[2], y;
      Shape3 shape;
      bool doubles = false;
      for (int64_t d = 0; d < directions(); ++d) {
        const int64_t index = l * directions() + d;
        py::tuple own(initial.size());
        for (std::size_t k = 0; k < initial.size(); ++k) own[k] = initial[k].at(index);
        std::shared_ptr<const Settings> settings = settings_[std::size_t(d)];
        if (!draws.is_none()) settings = drawn(*settings, l, draws);
        const py::tuple weights = parameters[std::size_t(index)];
        const std::shared_ptr<const Call> call = make_call(settings, Argument::of(x), own, weights, sequences);
        const auto& widths = sizes_[std::size_t(l)];
        if (call->P != widths[0] || call->H != widths.back())
          throw py::value_error("sizes: expected those of the weights, got others for layer " + std::to_string(l));
        doubles = call->doubles;
        shape = call->data.of(call->P);
        if (index == 0)
          for (std::size_t k = 0; k < initial.size(); ++k)
            final.emplace_back(of_state(k), directions(), call->data.shape.batch, doubles, equal_);
        parts[d] = Fresh(doubles, shape);
        Fresh buffer;
        if (training) {
          call->require_training();
          buffer = Fresh(doubles, call->data.of(call->reserve_width));
        }
        const ForwardArrays f{
            parts[d].data, final[0].at(index), final.size() > 1 ? final[1].at(index) : nullptr, buffer.data, nullptr,
            training};
        without_gil([&] { call->forward(f); });
        if (training)
          reserves.append(std::make_shared<Reserve>(call, py::make_tuple(x, own, weights, sequences), parts[d].array,
                                                    buffer.array));
      }
      if (directions() == 1) {
        y = parts[0];
      } else {
        const int64_t width = shape.back();
        shape.back() *= 2;
        y = Fresh(doubles, shape);
        void* const both[2] = {parts[0].data, parts[1].data};
        beside(y.data, both, elements(shape) / (2 * width), width * (doubles ? 8 : 4), false);
      }
      if (residual_ && l > 0) {
        const Fresh sum = directions() == 1 ? Fresh(doubles, shape) : y;  // the reserve has the other y
        elementwise(doubles, false, sum.data, y.data, x_data, elements(shape));
        y = sum;
      }
      if (l + 1 < layers() && !masks.is_none()) y = times_mask(doubles, y.data, shape, masks[py::int_(l)]);
      x = y.array;
      x_data = y.data;
    }
    return py::make_tuple(x, results(final), reserves);
  }

  // (dx or None, (dh0[, dc0])); reserves and masks as forward had them, dparameters to add to as parameters.
  py::tuple backward(const py::list& reserves, const py::object& dy, const py::tuple& dstates, bool input_grad,
                     const py::list& dparameters, const py::object& masks) const {
    require_count(reserves.size(), std::size_t(layers() * directions()), "reserves", "layers and directions");
    require_count(dparameters.size(), reserves.size(), "dparameters", "layers and directions");
    if (!masks.is_none()) require_count(py::len(masks), std::size_t(layers() - 1), "masks", "layers but the last");
    const std::vector<StackState> final = states_of(dstates);
    const Call& first = *reserves[0].cast<const Reserve&>().call;
    const bool doubles = first.doubles;
    std::vector<StackOutputs> initial;
    for (std::size_t k = 0; k < final.size(); ++k)
      initial.emplace_back(of_state(k), directions(), first.data.shape.batch, doubles, equal_);
    py::object gradient = dy;
    for (int64_t l = layers(); l-- > 0;) {
      const Shape3 shape = shape_of_output(reserves, l);
      Fresh parts[2];
      if (directions() == 2 && !gradient.is_none()) {
        require_shape(as_array(gradient, "dy"), "dy", beside_shape(shape));
        for (Fresh& part : parts) part = Fresh(doubles, shape);
        void* const both[2] = {parts[0].data, parts[1].data};
        void* const whole = const_cast<void*>(as_array(gradient, "dy").data());
        beside(whole, both, elements(shape) / shape.back(), shape.back() * (doubles ? 8 : 4), true);
      }
      py::object dx[2];
      for (int64_t d = directions(); d-- > 0;) {
        const int64_t index = l * directions() + d;
        py::tuple doutputs(1 + final.size());
        doutputs[0] = directions() == 2 && !gradient.is_none() ? parts[d].array : gradient;
        for (std::size_t k = 0; k < final.size(); ++k) doutputs[1 + k] = final[k].at(index);
        void* into[2] = {};
        for (std::size_t k = 0; k < initial.size(); ++k) into[k] = initial[k].at(index);
        dx[d] = backward_of(reserves[std::size_t(index)].cast<const Reserve&>(), doutputs, input_grad || l > 0,
                            dparameters[std::size_t(index)], into);
      }
      if (!input_grad && l == 0) {
        gradient = py::none();
        break;
      }
      if (directions() == 2) add_to(doubles, dx[0], dx[1]);
      if (l > 0 && residual_ && !gradient.is_none()) add_to(doubles, dx[0], gradient);
      gradient = dx[0];
      if (l > 0 && !masks.is_none()) {
        const auto array = dx[0].cast<py::array>();
        gradient = times_mask(doubles, array.data(), fusedrnn::bindings::shape_of(array), masks[py::int_(l - 1)]).array;
      }
    }
    return py::make_tuple(gradient, results(initial));
  }

 private:
  int64_t directions() const { return int64_t(settings_.size()); }
  int64_t layers() const { return int64_t(sizes_.size()); }

  static void require_count(std::size_t got, std::size_t expected, const char* name, const char* of) {
    if (got != expected)
      throw py::value_error(std::string(name) + ": expected " + std::to_string(expected) + ", one for each of the " +
                            of + ", got " + std::to_string(got));
  }

  std::vector<StackState> states_of(const py::tuple& given) const {
    require_count(given.size(), sizes_[0].size(), "states", "states of the cell");
    std::vector<StackState> states;
    for (const py::handle state : given) states.emplace_back(py::reinterpret_borrow<py::object>(state), directions());
    return states;
  }

  // With the seed of this call, and the layer's place among those that draw.
  static std::shared_ptr<const Settings> drawn(const Settings& settings, int64_t layer, const py::object& draws) {
    auto own = std::make_shared<Settings>(settings);
    const auto [seed, row_offset] = draws.cast<std::pair<uint64_t, uint32_t>>();
    own->seed = seed;
    own->row_offset = row_offset;
    own->layer = uint32_t(layer);
    own->given = py::dict(own->given.attr("copy")());
    own->given["seed"] = seed;
    own->given["row_offset"] = row_offset;
    own->given["layer"] = layer;
    return own;
  }

  std::vector<int64_t> of_state(std::size_t k) const {
    std::vector<int64_t> widths;
    for (const auto& of_layer : sizes_) widths.push_back(of_layer[k]);
    return widths;
  }

  // Of one direction's y.
  Shape3 shape_of_output(const py::list& reserves, int64_t layer) const {
    const Call& call = *reserves[std::size_t(layer * directions())].cast<const Reserve&>().call;
    return call.data.of(call.P);
  }
  static Shape3 beside_shape(Shape3 shape) {
    shape.back() *= 2;
    return shape;
  }

  static void add_to(bool doubles, const py::object& sum, const py::object& other) {
    auto to = sum.cast<py::array>();
    void* const data = to.mutable_data();
    elementwise(doubles, false, data, data, other.cast<py::array>().data(), to.size());
  }

  static py::tuple results(const std::vector<StackOutputs>& states) {
    py::tuple all(states.size());
    for (std::size_t k = 0; k < states.size(); ++k) all[k] = states[k].result();
    return all;
  }

  Directions settings_;
  Widths sizes_;
  bool residual_, equal_;
};

}  // namespace

void register_stack(py::module_& m) {
  using namespace py::literals;
  py::class_<Stack>(m, "Stack")
      .def(py::init<Directions, Widths, bool>(), "settings"_a, "sizes"_a, "residual"_a)
      .def(py::pickle([](const Stack& s) { return s.state(); },
                      [](const py::tuple& state) {
                        return Stack(state[0].cast<Directions>(), state[1].cast<Widths>(), state[2].cast<bool>());
                      }))
      .def("forward", &Stack::forward, "x"_a, "states"_a, "parameters"_a, "sequences"_a, "training"_a, "masks"_a,
           "draws"_a)
      .def("backward", &Stack::backward, "reserves"_a, "dy"_a, "dstates"_a, "input_grad"_a, "dparameters"_a, "masks"_a);
}

}  // namespace fusedrnn::bindings
