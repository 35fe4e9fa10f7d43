// A call of any cell, forward and backward, with any data and options, from one description of it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "../../csrc/core/cells.hpp"
#include "../../csrc/core/ragged.hpp"
#include "checks.hpp"

namespace calls {

using namespace fusedrnn;

enum class Kind { rnn, gru, gru_reset_before, lstm, indrnn, mingru };

// Options by name; the values are in options_of. The last four are the LSTM's alone, with zoneout_c.
struct Chosen {
  bool inference = false;  // expectations instead of masks
  bool norm = false, zoneout_h = false, zoneout_c = false, recurrent_dropout = false, dropconnect = false;
  double grad_clip = 0;
  Activation gate = Activation::sigmoid, candidate = Activation::tanh, output = Activation::tanh;
  bool peephole = false, projection = false, coupled = false, cell_clip = false, all_c = false;
  int64_t row_offset = 0, step_offset = 0;
};

struct Case {
  Kind kind;
  int64_t T, N, I, H;
  bool reverse = false;
  std::vector<int64_t> lengths = {};  // [N]; empty: all T
  bool packed = false;                // each step has only the rows that go on: lengths never increase
  std::vector<uint8_t> resets = {};   // [rows()] or none
  std::optional<Chosen> options = {};
  bool relu = false;  // in place of the plain RNN's tanh

  bool has_options() const { return options.has_value(); }
  bool elementwise() const { return kind == Kind::indrnn || kind == Kind::mingru; }
  int64_t gates() const {
    const bool coupled = options && options->coupled;
    const int64_t of_kind[] = {1, 3, 3, coupled ? 3 : 4, 1, 2};
    return of_kind[int(kind)];
  }
  int64_t width() const { return options && options->projection ? (H + 1) / 2 : H; }  // of h
  int64_t length(int64_t n) const { return lengths.empty() ? T : lengths[std::size_t(n)]; }

  // Where arrays of all steps have row n at time t, and how many rows they have.
  int64_t place(int64_t t, int64_t n) const {
    if (!packed) return t * N + n;
    const std::vector<int64_t> sizes = batch_sizes();
    return std::accumulate(sizes.begin(), sizes.begin() + t, n);
  }
  int64_t rows() const { return packed ? std::accumulate(lengths.begin(), lengths.end(), int64_t(0)) : T * N; }
  std::vector<int64_t> batch_sizes() const {
    std::vector<int64_t> sizes(std::size_t(T), 0);
    for (const int64_t length : lengths)
      for (int64_t t = 0; t < length; ++t) ++sizes[std::size_t(t)];
    return sizes;
  }

  std::string name() const {
    const char* const kinds[] = {"rnn", "gru", "gru reset before", "lstm", "indrnn", "mingru"};
    std::string text = std::string(kinds[int(kind)]) + (relu ? " relu" : "");
    for (const auto& [letter, n] : {std::pair{" T", T}, {" N", N}, {" I", I}, {" H", H}})
      text += letter + std::to_string(n);
    const auto add = [&](bool there, const char* what) { text += there ? std::string(" ") + what : ""; };
    add(reverse, "reverse");
    add(!lengths.empty(), packed ? "batch_sizes" : "lengths");
    add(!resets.empty(), "resets");
    if (!options) return text + " plain";
    const Chosen& o = *options;
    add(true, "options");
    add(o.inference, "inference");
    add(o.norm, "norm");
    add(o.zoneout_h, "zoneout_h");
    add(o.zoneout_c, "zoneout_c");
    add(o.recurrent_dropout, "recurrent_dropout");
    add(o.dropconnect, "dropconnect");
    add(o.grad_clip > 0, "grad_clip");
    add(o.peephole, "peephole");
    add(o.projection, "projection");
    add(o.coupled, "coupled");
    add(o.cell_clip, "cell_clip");
    add(o.all_c, "all_c");
    for (const Activation a : {o.gate, o.candidate, o.output}) text += " " + std::to_string(int(a));
    return text;
  }
};

// Arguments of a call, or their gradients. What a cell lacks is empty.
template <class T>
struct Arguments {
  std::vector<T> x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh;
  std::vector<T> gain_ih, gain_hh, gain_c, norm_bias_ih, norm_bias_hh, norm_bias_c, weight_peephole, weight_hr;

  static auto all_of(auto& a) {
    return std::array{
        &a.x,        &a.h0,      &a.c0,     &a.weight_ih,    &a.weight_hh,    &a.bias_ih,     &a.bias_hh,
        &a.gain_ih,  &a.gain_hh, &a.gain_c, &a.norm_bias_ih, &a.norm_bias_hh, &a.norm_bias_c, &a.weight_peephole,
        &a.weight_hr};
  }
  auto all() { return all_of(*this); }
  auto all() const { return all_of(*this); }
};

constexpr const char* argument_names[] = {
    "x",       "h0",     "c0",           "weight_ih",    "weight_hh",   "bias_ih",         "bias_hh",  "gain_ih",
    "gain_hh", "gain_c", "norm_bias_ih", "norm_bias_hh", "norm_bias_c", "weight_peephole", "weight_hr"};
constexpr std::size_t first_parameter = 3;

template <class T>
struct Outputs {
  std::vector<T> y, h_n, c_n, c;

  auto all() const { return std::array{&y, &h_n, &c_n, &c}; }
};

template <class T>
struct Problem {
  Case shape;
  Arguments<T> in;
  Outputs<T> d;  // gradients of the outputs

  // The same numbers for float and double.
  Problem(const Case& s, unsigned seed) : shape(s) {
    std::mt19937 g(seed);
    const auto fill = [&](int64_t n, double scale) {
      const std::vector<float> values = random<float>(g, n, scale);
      return std::vector<T>(values.begin(), values.end());
    };
    const Chosen o = s.options.value_or(Chosen{});
    const bool lstm = s.kind == Kind::lstm;
    const int64_t P = s.width(), G = s.gates() * s.H, norm = o.norm ? G : 0;
    const double scale = 1 / std::sqrt(double(s.H));
    const int64_t recurrent = s.kind == Kind::mingru ? 0 : s.kind == Kind::indrnn ? s.H : G * P;
    in = {fill(s.rows() * s.I, 1),
          fill(s.N * P, 1),
          fill(lstm ? s.N * s.H : 0, 1),
          fill(G * s.I, scale),
          fill(recurrent, scale),
          fill(G, scale),
          fill(s.elementwise() ? 0 : G, scale),
          fill(norm, 1),
          fill(norm, 1),
          fill(lstm && o.norm ? s.H : 0, 1),
          fill(norm, 1),
          fill(norm, 1),
          fill(lstm && o.norm ? s.H : 0, 1),
          fill(o.peephole ? 3 * s.H : 0, 1),
          fill(o.projection ? P * s.H : 0, scale)};
    d = {fill(s.rows() * P, 1), fill(s.N * P, 1), fill(lstm ? s.N * s.H : 0, 1), fill(o.all_c ? s.rows() * s.H : 0, 1)};
  }
};

template <class T>
struct Results {
  Outputs<T> out;
  Arguments<T> grad;

  std::vector<const std::vector<T>*> all() const {
    std::vector<const std::vector<T>*> every;
    for (const auto* v : out.all()) every.push_back(v);
    for (const auto* v : grad.all()) every.push_back(v);
    return every;
  }
};

template <class T>
bool same_results(const Results<T>& one, const Results<T>& other) {
  const auto a = one.all(), b = other.all();
  bool same = true;
  for (std::size_t i = 0; i < a.size(); ++i) same &= same_bits(*a[i], *b[i]);
  return same;
}

template <class T>
auto* pointer(std::vector<T>& v) {
  return v.empty() ? nullptr : v.data();
}
template <class T>
const T* pointer(const std::vector<T>& v) {
  return v.empty() ? nullptr : v.data();
}

template <class T>
Options<T> options_of(const Problem<T>& p, const std::optional<Ragged>& ragged) {
  const Case& s = p.shape;
  const Chosen& c = *s.options;
  Options<T> o{};
  o.gain_ih = pointer(p.in.gain_ih);
  o.gain_hh = pointer(p.in.gain_hh);
  o.gain_c = pointer(p.in.gain_c);
  o.norm_bias_ih = pointer(p.in.norm_bias_ih);
  o.norm_bias_hh = pointer(p.in.norm_bias_hh);
  o.norm_bias_c = pointer(p.in.norm_bias_c);
  o.zoneout_h = c.zoneout_h ? 0.3 : 0;
  o.zoneout_c = c.zoneout_c ? 0.4 : 0;
  o.recurrent_dropout = c.recurrent_dropout ? 0.25 : 0;
  o.dropconnect = c.dropconnect ? 0.2 : 0;
  o.training = !c.inference;
  o.grad_clip = c.grad_clip;
  o.seed = 0x123456789abcdef;
  o.layer = 5;
  o.direction = s.reverse;
  o.row_offset = uint32_t(c.row_offset);
  o.step_offset = uint32_t(c.step_offset);
  if (ragged) {
    o.row_numbers = ragged->row_numbers();
    if (s.reverse) o.lengths = ragged->lengths();
  }
  o.gate = c.gate;
  o.candidate = c.candidate;
  o.output = c.output;
  o.weight_peephole = pointer(p.in.weight_peephole);
  o.weight_hr = pointer(p.in.weight_hr);
  o.projection = s.width();
  o.coupled = c.coupled;
  o.cell_clip = c.cell_clip ? 0.7 : 0;
  return o;
}

// The calls of cells.hpp by the struct they take; without options the plain one.
template <class T>
void forward(const RnnForward<T>& f, const Options<T>* o) {
  o ? rnn_options_forward(f, *o) : rnn_forward(f);
}
template <class T>
void forward(const GruForward<T>& f, const Options<T>* o) {
  o ? gru_options_forward(f, *o) : gru_forward(f);
}
template <class T>
void forward(const LstmForward<T>& f, const Options<T>* o) {
  o ? lstm_options_forward(f, *o) : lstm_forward(f);
}
template <class T>
void forward(const ElementwiseForward<T>& f, const Options<T>*) {
  elementwise_forward(f);
}
template <class T>
void backward(const RnnBackward<T>& b, const Options<T>* o, const OptionGradients<T>& g) {
  o ? rnn_options_backward(b, *o, g) : rnn_backward(b);
}
template <class T>
void backward(const GruBackward<T>& b, const Options<T>* o, const OptionGradients<T>& g) {
  o ? gru_options_backward(b, *o, g) : gru_backward(b);
}
template <class T>
void backward(const LstmBackward<T>& b, const Options<T>* o, const OptionGradients<T>& g) {
  o ? lstm_options_backward(b, *o, g) : lstm_backward(b);
}
template <class T>
void backward(const ElementwiseBackward<T>& b, const Options<T>*, const OptionGradients<T>&) {
  elementwise_backward(b);
}

template <class T>
int64_t reserve_width(const Case& s, const Options<T>* o) {
  switch (s.kind) {
    case Kind::rnn:
      return o ? rnn_options_reserve(s.H, *o) : 0;
    case Kind::lstm:
      return o ? lstm_options_reserve(s.H, *o) : 5 * s.H;
    case Kind::indrnn:
      return 0;
    case Kind::mingru:
      return 2 * s.H;
    default:
      return o ? gru_options_reserve(s.H, s.kind == Kind::gru, *o) : (s.kind == Kind::gru ? 4 : 3) * s.H;
  }
}

// Ways to call.
struct How {
  bool train = true;       // else forward alone, without a reserve
  bool recompute = false;  // of a plain LSTM or GRU
  bool wanted = true;      // dx, and gradients of all parameters that may be left out
};

// What forward and backward of all cells are given.
template <class Call, class T>
Call common(const Problem<T>& p, const Shape& shape, bool recompute) {
  const Case& s = p.shape;
  Call c{};
  c.shape = shape;
  c.reverse = s.reverse;
  c.x = pointer(p.in.x);
  c.h0 = pointer(p.in.h0);
  c.weight_ih = pointer(p.in.weight_ih);
  if constexpr (requires { c.kind; })
    c.kind = p.shape.kind == Kind::indrnn ? ElementwiseKind::indrnn : ElementwiseKind::mingru;
  c.weight_hh = pointer(p.in.weight_hh);
  if constexpr (requires { c.bias; }) c.bias = pointer(p.in.bias_ih);
  if constexpr (requires { c.bias_ih; }) {
    c.bias_ih = pointer(p.in.bias_ih);
    c.bias_hh = pointer(p.in.bias_hh);
  }
  if constexpr (requires { c.c0; }) c.c0 = pointer(p.in.c0);
  if constexpr (requires { c.relu; }) c.relu = s.relu;
  if constexpr (requires { c.reset_after; }) c.reset_after = s.kind == Kind::gru;
  if constexpr (requires { c.activation; }) c.activation = Activation::tanh;
  if constexpr (requires { c.recompute; }) c.recompute = recompute;
  return c;
}

template <class Forward, class Backward, class T>
Results<T> run_as(const Problem<T>& p, const How& how) {
  const Case& s = p.shape;
  const int64_t P = s.width();
  constexpr bool lstm = requires(Forward f) { f.c_n; };
  // Whoever forgets to write an output leaves NaN.
  const auto unwritten = [](int64_t n) { return std::vector<T>(std::size_t(n), std::numeric_limits<T>::quiet_NaN()); };
  Results<T> r;
  r.out = {unwritten(s.rows() * P), unwritten(s.N * P), unwritten(lstm ? s.N * s.H : 0),
           unwritten(s.options && s.options->all_c ? s.rows() * s.H : 0)};

  Shape shape{s.T, s.N, s.I, s.H};
  shape.resets = pointer(s.resets);
  std::optional<Ragged> ragged;
  const std::vector<int64_t> sizes = s.batch_sizes();
  if (s.packed && s.reverse)
    ragged = Ragged::of_sizes(s.T, sizes.data(), true);
  else if (s.packed)
    shape.batch_sizes = sizes.data();
  else if (!s.lengths.empty())
    ragged = Ragged::of_lengths(s.T, s.N, s.lengths.data(), s.reverse);
  const Options<T> options = s.options ? options_of(p, ragged) : Options<T>{};
  const Options<T>* const o = s.options ? &options : nullptr;
  std::vector<T> reserve = unwritten(how.train ? s.rows() * reserve_width(s, o) : 0);

  Forward f = common<Forward>(p, shape, how.recompute);
  f.y = pointer(r.out.y);
  f.h_n = pointer(r.out.h_n);
  if constexpr (lstm) {
    f.c_n = pointer(r.out.c_n);
    f.c = pointer(r.out.c);
  }
  if (lstm || !how.recompute) f.reserve = pointer(reserve);
  if (ragged)
    forward_ragged(*ragged, f, P, [&](const Forward& q) { forward(q, o); });
  else
    forward(f, o);
  if (!how.train) return r;

  r.grad = p.in;
  for (std::vector<T>* const v : r.grad.all()) std::fill(v->begin(), v->end(), T(0));
  r.grad.x = unwritten(how.wanted ? s.rows() * s.I : 0);
  r.grad.h0 = unwritten(s.N * P);
  r.grad.c0 = unwritten(lstm ? s.N * s.H : 0);
  OptionGradients<T> g{};
  if (how.wanted)
    g = {pointer(r.grad.gain_ih),         pointer(r.grad.gain_hh),      pointer(r.grad.gain_c),
         pointer(r.grad.norm_bias_ih),    pointer(r.grad.norm_bias_hh), pointer(r.grad.norm_bias_c),
         pointer(r.grad.weight_peephole), pointer(r.grad.weight_hr)};
  Backward b = common<Backward>(p, shape, how.recompute);
  b.dy = pointer(p.d.y);
  b.dh_n = pointer(p.d.h_n);
  b.y = f.y;
  b.reserve = f.reserve;
  b.dx = pointer(r.grad.x);
  b.dh0 = pointer(r.grad.h0);
  b.dweight_ih = pointer(r.grad.weight_ih);
  b.dweight_hh = pointer(r.grad.weight_hh);
  if constexpr (requires { b.dbias; }) {
    if (how.wanted) b.dbias = pointer(r.grad.bias_ih);
  } else if (how.wanted) {
    b.dbias_ih = pointer(r.grad.bias_ih);
    b.dbias_hh = pointer(r.grad.bias_hh);
  }
  if constexpr (lstm) {
    b.dc_n = pointer(p.d.c_n);
    b.dc = pointer(p.d.c);
    b.dc0 = pointer(r.grad.c0);
  }
  if (ragged)
    backward_ragged(*ragged, b, P, [&](const Backward& q) { backward(q, o, g); });
  else
    backward(b, o, g);
  return r;
}

template <class T>
Results<T> run(const Problem<T>& p, const How& how = {}) {
  switch (p.shape.kind) {
    case Kind::rnn:
      return run_as<RnnForward<T>, RnnBackward<T>>(p, how);
    case Kind::lstm:
      return run_as<LstmForward<T>, LstmBackward<T>>(p, how);
    case Kind::indrnn:
    case Kind::mingru:
      return run_as<ElementwiseForward<T>, ElementwiseBackward<T>>(p, how);
    default:
      return run_as<GruForward<T>, GruBackward<T>>(p, how);
  }
}

}  // namespace calls
