// All layers and directions of a stack, forward and backward, in one call from Python.
#include <pybind11/stl.h>

#include <cstring>

#include "call.hpp"

namespace fusedrnn::bindings {
namespace {

py::array empty_like(bool doubles, const std::vector<int64_t>& shape) {
  return doubles ? py::array(empty<double>(shape)) : py::array(empty<float>(shape));
}

// Rows [index] of an array [L * D, N, W], without a copy.
py::array row_of(const py::array& a, int64_t index) {
  const auto* const data = static_cast<const char*>(a.data()) + index * a.strides(0);
  return py::array(a.dtype(), {a.shape(1), a.shape(2)}, data, a);
}

// out [rows, widths] = the parts side by side; or back, where `apart`. Sizes in bytes.
void beside(char* whole, char* const parts[2], int64_t rows, const int64_t widths[2], bool apart) {
  for (int64_t r = 0; r < rows; ++r)
    for (int d = 0; d < 2; ++d) {
      char* const part = parts[d] + r * widths[d];
      apart ? std::memcpy(part, whole, std::size_t(widths[d])) : std::memcpy(whole, part, std::size_t(widths[d]));
      whole += widths[d];
    }
}

// a = b + a, or a = b * a, elementwise; b may be a itself.
template <class T>
void add(T* a, const T* b, int64_t count) {
  for (int64_t i = 0; i < count; ++i) a[i] = b[i] + a[i];
}
template <class T>
void times(T* to, const T* a, const T* b, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = a[i] * b[i];
}

// f(T*, const T*, count) of two arrays of one dtype.
template <class F>
void elementwise(bool doubles, void* a, const void* b, int64_t count, F f) {
  without_gil([&] {
    doubles ? f(static_cast<double*>(a), static_cast<const double*>(b), count)
            : f(static_cast<float*>(a), static_cast<const float*>(b), count);
  });
}

py::array times_mask(bool doubles, const py::array& a, const py::object& mask) {
  py::array out = empty_like(doubles, shape_of(a));
  require_shape(as_array(mask, "mask"), "mask", shape_of(a));
  const auto m = mask.cast<py::array>();
  void* const to = out.mutable_data();
  elementwise(doubles, to, a.data(), a.size(), [&](auto* t, const auto* from, int64_t count) {
    using T = std::remove_reference_t<decltype(*t)>;
    times<T>(t, from, static_cast<const T*>(m.data()), count);
  });
  return out;
}

// A state of the whole stack, given or to be filled: [L * D, N, W], or where sizes differ an array [D, N, W] a layer.
class StackState {
 public:
  // Of what a caller gave: one array, a tuple of them, or None.
  StackState(const py::object& given, int64_t directions) : directions_(directions) {
    if (given.is_none()) return;
    if (py::isinstance<py::tuple>(given) || py::isinstance<py::list>(given))
      for (const py::handle part : given)
        arrays_.push_back(as_array(py::reinterpret_borrow<py::object>(part), "state"));
    else
      arrays_.push_back(as_array(given, "state"));
    whole_ = arrays_.size() == 1;
  }
  py::object at(int64_t index) const {
    if (arrays_.empty()) return py::none();
    if (whole_) return row_of(arrays_[0], index);
    return row_of(arrays_.at(std::size_t(index / directions_)), index % directions_);
  }

 private:
  int64_t directions_;
  bool whole_ = false;
  std::vector<py::array> arrays_;
};

// Final states or gradients of initial ones, in arrays as StackState has them.
class StackOutputs {
 public:
  StackOutputs(const std::vector<int64_t>& widths, int64_t directions, int64_t rows, bool doubles, bool equal)
      : directions_(directions), equal_(equal) {
    const int64_t layers = int64_t(widths.size());
    if (equal)
      arrays_.push_back(empty_like(doubles, {layers * directions, rows, widths[0]}));
    else
      for (const int64_t width : widths) arrays_.push_back(empty_like(doubles, {directions, rows, width}));
  }
  void* at(int64_t index) {
    py::array& a = equal_ ? arrays_[0] : arrays_[std::size_t(index / directions_)];
    return static_cast<char*>(a.mutable_data()) + (equal_ ? index : index % directions_) * a.strides(0);
  }
  py::object result() const {
    if (equal_) return arrays_[0];
    py::tuple all(arrays_.size());
    for (std::size_t i = 0; i < arrays_.size(); ++i) all[i] = arrays_[i];
    return all;
  }

 private:
  int64_t directions_;
  bool equal_;
  std::vector<py::array> arrays_;
};

// H and P of every layer, by the axes of a state.
using Widths = std::vector<std::vector<int64_t>>;

class Stack {
 public:
  // Settings of one direction or of both; sizes: of each layer the widths of its states.
  Stack(std::vector<Settings> settings, Widths sizes, bool residual)
      : settings_(std::move(settings)), sizes_(std::move(sizes)), residual_(residual) {
    equal_ = true;
    for (const auto& widths : sizes_) equal_ = equal_ && widths == sizes_[0];
  }

  py::tuple state() const { return py::make_tuple(settings_, sizes_, residual_); }

  // (y, (h_n[, c_n]), reserves). states and parameters: of the whole stack, and of each layer and direction; masks:
  // what multiplies the output of each layer but the last, or None; draws: (seed, row_offset) of random options, or
  // None.
  py::tuple forward(const Argument& given, const py::tuple& states, const py::list& parameters,
                    const py::object& sequences, bool training, const py::object& masks,
                    const py::object& draws) const {
    const int64_t D = int64_t(settings_.size()), L = int64_t(sizes_.size());
    std::vector<StackState> initial;
    for (const py::handle state : states) initial.emplace_back(py::reinterpret_borrow<py::object>(state), D);
    std::vector<StackOutputs> final;
    py::object x = given;
    py::list reserves;
    for (int64_t l = 0; l < L; ++l) {
      py::array parts[2];
      bool doubles = false;
      for (int64_t d = 0; d < D; ++d) {
        const int64_t index = l * D + d;
        py::tuple own(initial.size());
        for (std::size_t k = 0; k < initial.size(); ++k) own[k] = initial[k].at(index);
        const Settings& settings = settings_[std::size_t(d)];
        const py::tuple weights = parameters[std::size_t(index)];
        auto call = draws.is_none() ? make_call(settings, Argument::of(x), own, weights, sequences)
                                    : make_call(drawn(settings, l, draws), Argument::of(x), own, weights, sequences);
        doubles = call->doubles;
        if (index == 0)
          for (std::size_t k = 0; k < initial.size(); ++k)
            final.emplace_back(of_state(k), D, call->data.shape.batch, doubles, equal_);
        parts[d] = run(std::move(call), x, own, weights, sequences, training, final, index, reserves);
      }
      py::array y = D == 1 ? parts[0] : joined(parts, doubles);
      if (residual_ && l > 0) {
        const py::array before = x.cast<py::array>();
        if (D == 1) y = copied(y, doubles);  // the reserve has the other
        elementwise(doubles, y.mutable_data(), before.data(), y.size(),
                    [](auto* a, const auto* b, int64_t count) { add(a, b, count); });
      }
      x = y;
      if (l + 1 < L && !masks.is_none()) x = times_mask(doubles, y, masks[py::int_(l)]);
    }
    return py::make_tuple(x, results(final), reserves);
  }

  // (dx or None, (dh0[, dc0])); reserves and masks as forward had them, dparameters to add to as parameters.
  py::tuple backward(const py::list& reserves, const py::object& given, const py::tuple& dstates, bool input_grad,
                     const py::list& dparameters, const py::object& masks) const {
    const int64_t D = int64_t(settings_.size()), L = int64_t(sizes_.size());
    std::vector<StackState> final;
    for (const py::handle state : dstates) final.emplace_back(py::reinterpret_borrow<py::object>(state), D);
    const Reserve& first = reserves[0].cast<const Reserve&>();
    const bool doubles = first.call->doubles;
    std::vector<StackOutputs> initial;
    for (std::size_t k = 0; k < final.size(); ++k)
      initial.emplace_back(of_state(k), D, first.call->data.shape.batch, doubles, equal_);
    py::object gradient = given;
    for (int64_t l = L; l-- > 0;) {
      py::array parts[2], dxs[2];
      if (D == 2 && !gradient.is_none()) apart(gradient.cast<py::array>(), parts, sizes_[std::size_t(l)][0], doubles);
      for (int64_t d = D; d-- > 0;) {
        const int64_t index = l * D + d;
        const Reserve& reserve = reserves[std::size_t(index)].cast<const Reserve&>();
        const py::object dy = gradient.is_none() ? gradient : D == 2 ? py::object(parts[d]) : gradient;
        py::tuple doutputs(1 + final.size());
        doutputs[0] = dy;
        for (std::size_t k = 0; k < final.size(); ++k) doutputs[1 + k] = final[k].at(index);
        void* into[2] = {};
        for (std::size_t k = 0; k < initial.size(); ++k) into[k] = initial[k].at(index);
        dxs[d] = backward_of(reserve, doutputs, input_grad || l > 0, dparameters[std::size_t(index)], into);
      }
      const auto add_to = [&](py::array& a, const py::array& b) {
        elementwise(doubles, a.mutable_data(), b.data(), a.size(),
                    [](auto* to, const auto* from, int64_t count) { add(to, from, count); });
      };
      if (!input_grad && l == 0) {
        gradient = py::none();
        break;
      }
      if (D == 2) add_to(dxs[0], dxs[1]);
      if (l > 0 && residual_ && !gradient.is_none()) add_to(dxs[0], gradient.cast<py::array>());
      gradient = dxs[0];
      if (l > 0 && !masks.is_none()) gradient = times_mask(doubles, dxs[0], masks[py::int_(l - 1)]);
    }
    return py::make_tuple(gradient, results(initial));
  }

 private:
  static Settings drawn(const Settings& settings, int64_t layer, const py::object& draws) {
    Settings own = settings;
    const auto both = draws.cast<std::pair<uint64_t, uint32_t>>();
    own.seed = both.first;
    own.row_offset = both.second;
    own.layer = uint32_t(layer);
    own.given = py::dict(own.given.attr("copy")());
    own.given["seed"] = own.seed;
    own.given["row_offset"] = own.row_offset;
    own.given["layer"] = own.layer;
    return own;
  }

  std::vector<int64_t> of_state(std::size_t k) const {
    std::vector<int64_t> widths;
    for (const auto& of_layer : sizes_) widths.push_back(of_layer[k]);
    return widths;
  }

  static py::array run(std::shared_ptr<const Call> call, const py::object& x, const py::tuple& states,
                       const py::tuple& weights, const py::object& sequences, bool training,
                       std::vector<StackOutputs>& final, int64_t index, py::list& reserves) {
    py::array y = empty_like(call->doubles, call->data.of(call->P)), buffer;
    ForwardArrays f{};
    f.training = training;
    f.y = y.mutable_data();
    f.h_n = final[0].at(index);
    if (final.size() > 1) f.c_n = final[1].at(index);
    if (training) {
      buffer = empty_like(call->doubles, call->data.of(call->reserve_width));
      f.reserve = buffer.mutable_data();
    }
    without_gil([&] { call->forward(f); });
    if (training)
      reserves.append(std::make_shared<Reserve>(call, py::make_tuple(x, states, weights, sequences), y, buffer));
    return y;
  }

  static py::array joined(py::array (&parts)[2], bool doubles) {
    std::vector<int64_t> shape = shape_of(parts[0]);
    const int64_t rows = shape.back() ? parts[0].size() / shape.back() : 0;
    const int64_t itemsize = parts[0].itemsize(), widths[2] = {shape.back() * itemsize, shape.back() * itemsize};
    shape.back() *= 2;
    py::array whole = empty_like(doubles, shape);
    char* const both[2] = {static_cast<char*>(parts[0].mutable_data()), static_cast<char*>(parts[1].mutable_data())};
    beside(static_cast<char*>(whole.mutable_data()), both, rows, widths, false);
    return whole;
  }

  static void apart(const py::array& whole, py::array (&parts)[2], int64_t width, bool doubles) {
    std::vector<int64_t> shape = shape_of(whole);
    const int64_t rows = whole.size() / (2 * width), bytes = width * whole.itemsize(), widths[2] = {bytes, bytes};
    shape.back() = width;
    for (py::array& part : parts) part = empty_like(doubles, shape);
    auto *const first = static_cast<char*>(parts[0].mutable_data()), *const second =
                                                                         static_cast<char*>(parts[1].mutable_data());
    char* const whole_data = static_cast<char*>(const_cast<void*>(whole.data()));
    char* const both[2] = {first, second};
    beside(whole_data, both, rows, widths, true);
  }

  static py::array copied(const py::array& a, bool doubles) {
    py::array copy = empty_like(doubles, shape_of(a));
    std::memcpy(copy.mutable_data(), a.data(), std::size_t(a.nbytes()));
    return copy;
  }

  static py::tuple results(const std::vector<StackOutputs>& states) {
    py::tuple all(states.size());
    for (std::size_t k = 0; k < states.size(); ++k) all[k] = states[k].result();
    return all;
  }

  std::vector<Settings> settings_;
  Widths sizes_;
  bool residual_, equal_;
};

}  // namespace

void register_stack(py::module_& m) {
  using namespace py::literals;
  py::class_<Stack>(m, "Stack")
      .def(py::init<std::vector<Settings>, Widths, bool>(), "settings"_a, "sizes"_a, "residual"_a)
      .def(py::pickle([](const Stack& s) { return s.state(); },
                      [](const py::tuple& state) {
                        return Stack(state[0].cast<std::vector<Settings>>(), state[1].cast<Widths>(),
                                     state[2].cast<bool>());
                      }))
      .def("forward", &Stack::forward, "x"_a, "states"_a, "parameters"_a, "sequences"_a, "training"_a, "masks"_a,
           "draws"_a)
      .def("backward", &Stack::backward, "reserves"_a, "dy"_a, "dstates"_a, "input_grad"_a, "dparameters"_a, "masks"_a);
}

}  // namespace fusedrnn::bindings
