// A call of a layer in one direction: sizes, sequences, options and arrays, read from Python and checked once. Forward
// makes it, and the reserve keeps it for backward.
#pragma once

#include <array>
#include <memory>

#include "settings.hpp"

namespace fusedrnn::bindings {

constexpr std::size_t most_parameters = 12;

// What forward writes: y [..., P], h_n [N, P], c_n [N, H] of an LSTM; null: reserve of inference, all of c [..., H].
struct ForwardArrays {
  void *y, *h_n, *c_n, *reserve, *c;
  bool training;  // masks are drawn
};

// What backward reads: gradients of the outputs, any null; y and the reserve. What it writes: dx or null, dh0, dc0; and
// what it adds to, the gradients of the parameters, null where there is no parameter.
struct BackwardArrays {
  const void *dy, *dh_n, *dc_n, *dc, *y, *reserve;
  void *dx, *dh0, *dc0;
  std::array<void*, most_parameters> dparameters;
};

// A fresh array, and where it lies. Not a py::array, which without a value makes an array of no elements.
struct Fresh {
  py::object array = py::none();
  void* data = nullptr;

  Fresh() = default;
  Fresh(bool doubles, const std::vector<int64_t>& shape) {
    py::array made = doubles ? py::array(empty<double>(shape)) : py::array(empty<float>(shape));
    data = made.mutable_data();
    array = std::move(made);
  }
};

// Arrays that live as long as a call, where they lay when it was made.
class Owned {
 public:
  Owned() { arrays_.reserve(8); }
  void keep(const py::array& a, const char* name) { arrays_.push_back({a, a.data(), name}); }
  // Raises if the memory of one was moved, as ndarray.resize can do.
  void require_in_place() const {
    for (const auto& [array, data, name] : arrays_)
      if (py::detail::array_proxy(array.ptr())->data != data)
        throw py::value_error(std::string(name) + ": expected its memory where it lay in forward; it was moved");
  }

 private:
  struct Place {
    py::object array;
    const void* data;
    const char* name;
  };
  std::vector<Place> arrays_;
};

// What Python gives a call: tuples of h0 and c0, and of the parameters in the cell's order, which may end early.
struct CallArguments {
  std::shared_ptr<const Settings> settings;
  py::object x;
  py::tuple states, parameters;
  py::object lengths, batch_sizes, resets;
};

// H from weight_ih [gates H, I], of cells whose units see no state but their own.
template <class T>
int64_t elementwise_units(const py::object& weight_ih, int64_t gates, const char* like) {
  const py::array a = checked<T>(weight_ih, "weight_ih", like);
  const std::string letters = "[" + (gates == 1 ? "" : std::to_string(gates)) + "H, I]";
  require_ndim(a, "weight_ih", 2, letters.c_str());
  require_at_least_one(a.shape(0), "weight_ih", "a hidden size");
  if (a.shape(0) % gates)
    throw py::value_error("weight_ih: expected shape " + letters + ", got " + shape_text(shape_of(a)));
  return a.shape(0) / gates;
}

class Call {
 public:
  Call(const CallArguments& a)
      : shared(a.settings),
        settings(*a.settings),
        data(read_data(a.x, a.lengths, a.batch_sizes, a.resets, a.settings->reverse)) {}
  Call(const Call&) = delete;
  virtual ~Call() = default;

  const std::shared_ptr<const Settings> shared;
  const Settings& settings;
  Data data;
  Owned owned;
  bool doubles = false;       // the dtype of outputs and gradients; the inputs', but with a precision
  int64_t P = 0, H = 0;       // elements of h, units
  int64_t reserve_width = 0;  // elements of a row and step
  std::array<bool, most_parameters> present{};

  std::size_t states() const { return settings.facts().states.size(); }
  std::vector<int64_t> state_shape(std::size_t k) const { return {data.shape.batch, k == 0 ? P : H}; }
  std::vector<int64_t> shape_of_parameter(std::size_t k) const;

  // Without Python's lock.
  virtual void forward(const ForwardArrays&) const = 0;
  virtual void backward(const BackwardArrays&) const = 0;
  // Raise for a call in training, a return of all of c, or the gradient of it, where there is no such thing.
  virtual void require_training() const {}
  virtual void require_c() const { throw py::value_error("return_c: expected False, as the cell has no c"); }
  virtual void require_c_gradient() const { require_c(); }
};

// Reads the arrays of T that all cells have, and the parameters by the cell's list.
template <class T>
class CallOf : public Call {
 public:
  CallOf(const CallArguments&);

 protected:
  const T* x = nullptr;
  const T* state[2] = {nullptr, nullptr};
  const T* parameters[most_parameters] = {};
  Options<T> options{};
  // In inference no masks are drawn.
  Options<T> options_of(const ForwardArrays& f) const {
    Options<T> o = options;
    o.training = f.training;
    return o;
  }
  OptionGradients<T> gradients(const BackwardArrays& b, std::size_t first) const;
  bool with_options = false;  // another cell than the plain one, which has kernels of its own

  // What the structs of all cells share.
  template <class P>
  P common() const {
    P p{};
    p.shape = data.shape;
    p.reverse = settings.reverse;
    p.x = x;
    p.h0 = state[0];
    p.weight_ih = parameters[0];
    return p;
  }
  template <class P>
  P forward_of(const ForwardArrays& f) const {
    P p = common<P>();
    p.y = static_cast<T*>(f.y);
    p.h_n = static_cast<T*>(f.h_n);
    p.reserve = static_cast<T*>(f.reserve);
    return p;
  }
  template <class P>
  P backward_of(const BackwardArrays& b) const {
    P p = common<P>();
    p.dy = static_cast<const T*>(b.dy);
    p.dh_n = static_cast<const T*>(b.dh_n);
    p.y = static_cast<const T*>(b.y);
    p.reserve = static_cast<const T*>(b.reserve);
    p.dx = static_cast<T*>(b.dx);
    p.dh0 = static_cast<T*>(b.dh0);
    p.dweight_ih = gradient(b, 0);
    return p;
  }
  // weight_hh and the two biases of RNN, LSTM and GRU.
  template <class P>
  void add_recurrent(P& p) const {
    p.weight_hh = parameters[1];
    if constexpr (requires { p.bias_ih; }) {
      p.bias_ih = parameters[2];
      p.bias_hh = parameters[3];
    }
  }
  template <class P>
  void add_recurrent_gradients(P& p, const BackwardArrays& b) const {
    add_recurrent(p);
    p.dweight_hh = gradient(b, 1);
    p.dbias_ih = gradient(b, 2);
    p.dbias_hh = gradient(b, 3);
  }
  static T* gradient(const BackwardArrays& b, std::size_t k) { return static_cast<T*>(b.dparameters[k]); }

  // The gains and biases of layer normalization begin at `first` among the parameters.
  void add_layer_norm(std::size_t first) {
    const bool c = settings.cell == CellKind::lstm;
    const std::size_t biases = first + (c ? 3 : 2);
    options.gain_ih = parameters[first];
    options.gain_hh = parameters[first + 1];
    options.norm_bias_ih = parameters[biases];
    options.norm_bias_hh = parameters[biases + 1];
    if (c) {
      options.gain_c = parameters[first + 2];
      options.norm_bias_c = parameters[biases + 2];
    }
  }

  // Calls the core with the arrays in its order; width is that of y and h.
  template <class Struct, class F>
  void walk_forward(const Struct& p, F f) const {
    data.ragged ? forward_ragged(*data.ragged, p, P, f) : f(p);
  }
  template <class Struct, class F>
  void walk_backward(const Struct& p, F f) const {
    data.ragged ? backward_ragged(*data.ragged, p, P, f) : f(p);
  }
};

std::unique_ptr<Call> make_low_precision(const CallArguments&);

// Any of them; sequences: (lengths, batch_sizes, resets), or None for none.
std::unique_ptr<Call> make_call(std::shared_ptr<const Settings>, const Argument& x, const py::tuple& states,
                                const py::tuple& parameters, const py::object& sequences);

// What forward keeps for backward: the call, references to what Python gave it, y, and activated gates.
struct Reserve {
  Reserve(std::shared_ptr<const Call>, py::tuple inputs, py::object y, py::object buffer);

  std::shared_ptr<const Call> call;
  py::tuple inputs;  // x, states, parameters, sequences
  py::object y, buffer;
  py::object digests = py::none();  // of the arrays, for whoever checks that they did not change

  void require_in_place() const {
    call->owned.require_in_place();
    owned.require_in_place();
  }

 private:
  Owned owned;
};

// Gradients of a call: returns dx, or None without input_grad; dinitial [N, P], [N, H] are written, dparameters
// added to. doutputs: of y and the final states, each may be None, and of an LSTM's c.
py::object backward_of(const Reserve&, const py::tuple& doutputs, bool input_grad, const py::tuple& dparameters,
                       void* const dinitial[2]);

}  // namespace fusedrnn::bindings
