// The cells' calls: what each adds to the arrays that all share, and its functions of the core.
#include "call.hpp"

namespace fusedrnn::bindings {

namespace {

// What backward computes again is the plain cell.
void refuse_recompute(const Settings& s, const std::array<Argument, most_parameters>& parts) {
  std::string names;
  const auto add = [&](const std::string& name) {
    if (!names.ends_with(name)) names += (names.empty() ? "" : ", ") + name;
  };
  for (const std::string& name : s.changed) add(name);
  const auto& list = s.facts().parameters;
  for (std::size_t k = 4; k < list.size(); ++k)
    if (!parts[k].is_none()) add(std::string(list[k].label).starts_with("layer_norm") ? "layer_norm" : list[k].label);
  if (!names.empty()) throw py::value_error("recompute: expected False together with " + names);
}

}  // namespace

template <class T>
CallOf<T>::CallOf(const CallArguments& a) : Call(a) {
  doubles = sizeof(T) == 8;
  const CellFacts& facts = settings.facts();
  const int64_t gates = settings.gates();
  const std::size_t count = facts.parameters.size(), given = a.parameters.size();
  if (given > count || a.states.size() != states())
    throw py::type_error("expected (" + std::to_string(states()) + " states) and at most " + std::to_string(count) +
                         " parameters of " + facts.name);
  std::array<Argument, most_parameters> parts;
  for (std::size_t k = 0; k < count; ++k)
    parts[k] =
        k < given ? Argument::of(PyTuple_GET_ITEM(a.parameters.ptr(), py::ssize_t(k))) : Argument::of(py::none());
  if (settings.recompute) refuse_recompute(settings, parts);
  if (is_elementwise(settings.cell)) {
    P = H = elementwise_units<T>(parts[0], gates, "x");
  } else if (settings.cell == CellKind::lstm && !parts[5].is_none()) {
    const py::array hr = checked<T>(parts[5], "weight_hr", "x");
    require_ndim(hr, "weight_hr", 2, "[P, H]");
    P = hr.shape(0);
    H = hr.shape(1);
    require_at_least_one(P, "weight_hr", "a projection size");
    require_at_least_one(H, "weight_hr", "a hidden size");
  } else {
    P = H = hidden_size<T>(parts[0], parts[1], gates);
  }
  set_hidden(data, H, P);
  options = settings.options<T>(data);
  options.projection = P;
  const py::array array = as_array(a.x, "x");
  x = input<T>(array, "x", "x", data.of(data.shape.inputs));
  owned.keep(array, "x");
  static const char* const names[] = {"h0", "c0"};
  for (std::size_t k = 0; k < states(); ++k) {
    const Argument initial = Argument::of(PyTuple_GET_ITEM(a.states.ptr(), py::ssize_t(k)));
    if (initial.is_none()) continue;
    state[k] = input<T>(initial, names[k], "x", state_shape(k));
    owned.keep(initial, names[k]);
  }
  for (std::size_t k = 0; k < count; ++k) {
    const Parameter& p = facts.parameters[k];
    if (parts[k].is_none() && !p.needed) continue;
    parameters[k] = input<T>(parts[k], p.label, "x", shape_of_parameter(k));
    present[k] = true;
    owned.keep(parts[k], p.label);
    with_options = with_options || (k >= 4);
  }
  with_options = with_options || !settings.changed.empty();
}

std::vector<int64_t> Call::shape_of_parameter(std::size_t k) const {
  return shape_by_axes(settings.facts().parameters[k].axes, settings.gates() * H, data.shape.inputs, P, H);
}

template <class T>
OptionGradients<T> CallOf<T>::gradients(const BackwardArrays& b, std::size_t first) const {
  OptionGradients<T> g{};
  const bool c = settings.cell == CellKind::lstm;
  const std::size_t biases = first + (c ? 3 : 2);
  g.dgain_ih = gradient(b, first);
  g.dgain_hh = gradient(b, first + 1);
  g.dnorm_bias_ih = gradient(b, biases);
  g.dnorm_bias_hh = gradient(b, biases + 1);
  if (c) {
    g.dgain_c = gradient(b, first + 2);
    g.dnorm_bias_c = gradient(b, biases + 2);
    g.dweight_peephole = gradient(b, 4);
    g.dweight_hr = gradient(b, 5);
  }
  return g;
}

namespace {

template <class T>
class RnnCall : public CallOf<T> {
 public:
  explicit RnnCall(const CallArguments& a) : CallOf<T>(a) {
    this->add_layer_norm(4);
    this->reserve_width = this->with_options ? rnn_options_reserve(this->H, this->options) : 0;
  }
  void forward(const ForwardArrays& f) const override {
    auto p = this->template forward_of<RnnForward<T>>(f);
    this->add_recurrent(p);
    p.relu = relu();
    this->walk_forward(p, [&](const RnnForward<T>& q) {
      this->with_options ? rnn_options_forward(q, this->options_of(f)) : rnn_forward(q);
    });
  }
  void backward(const BackwardArrays& b) const override {
    auto p = this->template backward_of<RnnBackward<T>>(b);
    this->add_recurrent_gradients(p, b);
    p.relu = relu();
    const auto g = this->gradients(b, 4);
    this->walk_backward(p, [&](const RnnBackward<T>& q) {
      this->with_options ? rnn_options_backward(q, this->options, g) : rnn_backward(q);
    });
  }

 private:
  bool relu() const { return this->settings.gate == Activation::relu; }
};

template <class T>
class LstmCall : public CallOf<T> {
 public:
  explicit LstmCall(const CallArguments& a) : CallOf<T>(a) {
    this->add_layer_norm(6);
    this->options.weight_peephole = this->parameters[4];
    this->options.weight_hr = this->parameters[5];
    this->reserve_width = this->with_options ? lstm_options_reserve(this->H, this->options)
                                             : (this->settings.recompute ? 1 : 5) * this->H;
  }
  void forward(const ForwardArrays& f) const override {
    auto p = this->template forward_of<LstmForward<T>>(f);
    this->add_recurrent(p);
    p.c0 = this->state[1];
    p.c_n = static_cast<T*>(f.c_n);
    p.c = static_cast<T*>(f.c);
    p.recompute = this->settings.recompute;
    this->walk_forward(p, [&](const LstmForward<T>& q) {
      this->with_options || f.c ? lstm_options_forward(q, this->options_of(f)) : lstm_forward(q);
    });
  }
  void backward(const BackwardArrays& b) const override {
    auto p = this->template backward_of<LstmBackward<T>>(b);
    this->add_recurrent_gradients(p, b);
    p.c0 = this->state[1];
    p.dc_n = static_cast<const T*>(b.dc_n);
    p.dc = static_cast<const T*>(b.dc);
    p.dc0 = static_cast<T*>(b.dc0);
    p.recompute = this->settings.recompute;
    const auto g = this->gradients(b, 6);
    this->walk_backward(p, [&](const LstmBackward<T>& q) {
      this->with_options || b.dc ? lstm_options_backward(q, this->options, g) : lstm_backward(q);
    });
  }
  void require_c() const override {
    if (this->settings.recompute) throw py::value_error("recompute: expected False together with return_c");
  }
  void require_c_gradient() const override {
    if (this->settings.recompute) throw py::value_error("dc: expected None, as forward was called with recompute=True");
  }
};

template <class T>
class GruCall : public CallOf<T> {
 public:
  explicit GruCall(const CallArguments& a) : CallOf<T>(a) {
    this->add_layer_norm(4);
    const bool after = this->settings.reset_after;
    if (!after && this->options.gain_ih)
      throw py::value_error("layer_norm: expected None with reset_after=False, got gains and biases");
    this->reserve_width = this->with_options         ? gru_options_reserve(this->H, after, this->options)
                          : this->settings.recompute ? 0
                                                     : (after ? 4 : 3) * this->H;
  }
  void forward(const ForwardArrays& f) const override {
    auto p = this->template forward_of<GruForward<T>>(f);
    this->add_recurrent(p);
    p.reset_after = this->settings.reset_after;
    if (this->settings.recompute) p.reserve = nullptr;
    this->walk_forward(p, [&](const GruForward<T>& q) {
      this->with_options ? gru_options_forward(q, this->options_of(f)) : gru_forward(q);
    });
  }
  void backward(const BackwardArrays& b) const override {
    auto p = this->template backward_of<GruBackward<T>>(b);
    this->add_recurrent_gradients(p, b);
    p.reset_after = this->settings.reset_after;
    p.recompute = this->settings.recompute;
    const auto g = this->gradients(b, 4);
    this->walk_backward(p, [&](const GruBackward<T>& q) {
      this->with_options ? gru_options_backward(q, this->options, g) : gru_backward(q);
    });
  }
};

// Cells whose units see no state but their own.
template <class T>
class ElementwiseCall : public CallOf<T> {
 public:
  explicit ElementwiseCall(const CallArguments& a)
      : CallOf<T>(a),
        kind_(elementwise_kind(this->settings.cell)),
        weight_hh_(place_of(this->settings.facts(), "weight_hh")),
        bias_(place_of(this->settings.facts(), "bias")) {
    this->reserve_width = elementwise_kept(kind_) * this->H;
  }
  void forward(const ForwardArrays& f) const override {
    auto p = this->template forward_of<ElementwiseForward<T>>(f);
    add(p);
    p.bias = this->parameters[bias_];
    this->walk_forward(p, [](const ElementwiseForward<T>& q) { elementwise_forward(q); });
  }
  void backward(const BackwardArrays& b) const override {
    auto p = this->template backward_of<ElementwiseBackward<T>>(b);
    add(p);
    p.dbias = this->gradient(b, std::size_t(bias_));
    if (weight_hh_ >= 0) p.dweight_hh = this->gradient(b, std::size_t(weight_hh_));
    this->walk_backward(p, [](const ElementwiseBackward<T>& q) { elementwise_backward(q); });
  }

 private:
  template <class P>
  void add(P& p) const {
    p.kind = kind_;
    p.activation = this->settings.gate;
    if (weight_hh_ >= 0) p.weight_hh = this->parameters[weight_hh_];
    if (this->reserve_width == 0) p.reserve = nullptr;
  }
  const ElementwiseKind kind_;
  const int weight_hh_, bias_;
};

template <class T>
std::unique_ptr<Call> made(const CallArguments& a) {
  switch (a.settings->cell) {
    case CellKind::rnn:
      return std::make_unique<RnnCall<T>>(a);
    case CellKind::lstm:
      return std::make_unique<LstmCall<T>>(a);
    case CellKind::gru:
      return std::make_unique<GruCall<T>>(a);
    default:
      return std::make_unique<ElementwiseCall<T>>(a);
  }
}

}  // namespace

std::unique_ptr<Call> make_call(std::shared_ptr<const Settings> settings, const Argument& x, const py::tuple& states,
                                const py::tuple& parameters, const py::object& sequences) {
  CallArguments a{settings, x, states, parameters, py::none(), py::none(), py::none()};
  if (!sequences.is_none()) {
    const auto three = sequences.cast<py::tuple>();
    if (three.size() != 3) throw py::type_error("sequences: expected (lengths, batch_sizes, resets)");
    a.lengths = three[0];
    a.batch_sizes = three[1];
    a.resets = three[2];
  }
  if (settings->precision) return make_low_precision(a);
  return dispatch_dtype(x, "x", [&](auto scalar) { return made<decltype(scalar)>(a); });
}

}  // namespace fusedrnn::bindings
