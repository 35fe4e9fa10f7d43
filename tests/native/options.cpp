// Data and options of all cells, on every instruction set that this processor runs: sequences of uneven length, states
// that are reset, and all that changes the equations, alone and mixed by seed. Gradients by finite differences, rows
// and pieces of time on their own, float beside double, any number of threads. What the equations are, parity.cpp
// says of the plain cells, which these calls must equal without options, and tests/ in Python of the rest.
#include <functional>

#include "../../csrc/core/dispatch.hpp"
#include "../../csrc/core/parallel.hpp"
#include "../../csrc/core/sequence.hpp"
#include "calls.hpp"

using namespace calls;

namespace {

template <class T>
constexpr double bound = std::is_same_v<T, float> ? 5e-5 : 1e-11;
constexpr double finite_difference_bound = 1e-7;

constexpr Kind kinds[] = {Kind::rnn, Kind::gru, Kind::gru_reset_before, Kind::lstm, Kind::indrnn, Kind::mingru};

bool takes_options(Kind kind) { return kind != Kind::indrnn && kind != Kind::mingru; }

// Those that are as if there were none.
Chosen plain_options(Kind kind) {
  Chosen o;
  if (kind == Kind::rnn) o.gate = Activation::tanh;
  return o;
}

// Every option of a cell, each as what it does to the plain ones.
std::vector<std::function<void(Chosen&)>> options_for(Kind kind, std::mt19937& g) {
  const auto any = [&] { return Activation(g() % 8); };
  const Activation gate = kind == Kind::rnn ? any() : Activation::hard_sigmoid, candidate = any(), output = any();
  std::vector<std::function<void(Chosen&)>> all{
      [](Chosen& o) { o.zoneout_h = true; },
      [](Chosen& o) { o.zoneout_h = o.zoneout_c = o.inference = true; },
      [](Chosen& o) { o.recurrent_dropout = true; },
      [](Chosen& o) { o.dropconnect = true; },
      [](Chosen& o) { o.grad_clip = 0.01; },
      [=](Chosen& o) { o.gate = gate, o.candidate = candidate, o.output = output; },
  };
  if (kind != Kind::gru_reset_before) all.push_back([](Chosen& o) { o.norm = true; });
  if (kind == Kind::lstm) {
    all.push_back([](Chosen& o) { o.zoneout_c = true; });
    all.push_back([](Chosen& o) { o.peephole = true; });
    all.push_back([](Chosen& o) { o.projection = true; });
    all.push_back([](Chosen& o) { o.projection = o.zoneout_h = true; });
    all.push_back([](Chosen& o) { o.coupled = true; });
    all.push_back([](Chosen& o) { o.cell_clip = true; });
    all.push_back([](Chosen& o) { o.all_c = true; });
  }
  return all;
}

// A few of them.
Chosen mixed(Kind kind, std::mt19937& g) {
  Chosen o = plain_options(kind);
  for (const auto& option : options_for(kind, g))
    if (g() % 2) option(o);
  return o;
}

enum class Form { even, lengths, packed };

// The case with sequences of that form, with and without resets, in either direction.
Case with_data(Case c, Form form, std::mt19937& g) {
  c.reverse = g() % 2;
  if (form != Form::even)
    for (int64_t n = 0; n < c.N; ++n) c.lengths.push_back(int64_t(g()) % (c.T + 1));
  if (form == Form::packed) {
    for (int64_t& length : c.lengths) length = std::max<int64_t>(1, length);
    c.lengths[0] = c.T;
    std::sort(c.lengths.begin(), c.lengths.end(), std::greater<>());
    c.packed = true;
  }
  if (g() % 2)
    for (int64_t r = 0; r < c.rows(); ++r) c.resets.push_back(g() % 4 == 0);
  return c;
}

template <class T>
bool same(const Outputs<T>& one, const Outputs<T>& other) {
  const auto a = one.all(), b = other.all();
  return std::equal(a.begin(), a.end(), b.begin(), [](auto* v, auto* w) { return same_bits(*v, *w); });
}

template <class T>
bool same(const Results<T>& one, const Results<T>& other) {
  const auto a = one.grad.all(), b = other.grad.all();
  return same(one.out, other.out) &&
         std::equal(a.begin(), a.end(), b.begin(), [](auto* v, auto* w) { return same_bits(*v, *w); });
}

// max |a - b| / max(1, max |b|); a NaN stays.
template <class T, class U>
double distance(const std::vector<T>& a, const std::vector<U>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double error = 0, size = 1;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(double(a[i]) - double(b[i]));
    error = difference <= error ? error : difference;
    size = std::max(size, std::abs(double(b[i])));
  }
  return error / size;
}

template <class T, class U>
void check_near(const std::string& where, const Results<T>& a, const Results<U>& b, double allowed) {
  const auto near = [&](const auto& one, const auto& other, const std::string& what) {
    const double error = distance(one, other);
    check(error <= allowed, where + ": " + what + " is off by " + std::to_string(error / allowed) + " bounds");
  };
  const char* const names[] = {"y", "h_n", "c_n", "c"};
  for (std::size_t i = 0; i < 4; ++i) near(*a.out.all()[i], *b.out.all()[i], names[i]);
  for (std::size_t i = 0; i < std::size(argument_names); ++i)
    near(*a.grad.all()[i], *b.grad.all()[i], std::string("gradient of ") + argument_names[i]);
}

// The given rows of an array of this width.
template <class T>
std::vector<T> rows_of(const std::vector<T>& v, int64_t width, const std::vector<int64_t>& rows) {
  std::vector<T> out;
  if (v.empty()) return out;
  for (const int64_t r : rows) out.insert(out.end(), v.begin() + r * width, v.begin() + (r + 1) * width);
  return out;
}

// A piece of a row's time between resets, [begin, end).
struct Piece {
  int64_t begin, end;
  bool from_zero;  // its state is reset before it
};

// In the order in which they are walked.
std::vector<Piece> pieces_of(const Case& s, int64_t n) {
  const int64_t length = s.length(n);
  std::vector<Piece> pieces;
  for (int64_t i = 0, first = 0; i < length; ++i) {
    const auto time = [&](int64_t step) { return s.reverse ? length - 1 - step : step; };
    const auto is_reset = [&](int64_t step) {
      return !s.resets.empty() && s.resets[std::size_t(s.place(time(step), n))] != 0;
    };
    if (i + 1 < length && !is_reset(i + 1)) continue;
    pieces.push_back({std::min(time(first), time(i)), std::max(time(first), time(i)) + 1, is_reset(first)});
    first = i + 1;
  }
  return pieces;
}

// Every row on its own, cut where its state is reset, gives the bits that it gives within the batch, and the gradients
// of parameters that add up to the batch's. Past its end there are zeros, and without a step the state passes through.
template <class T>
void check_pieces(const std::string& where, const Problem<T>& p, const Results<T>& whole) {
  const Case& s = p.shape;
  const int64_t P = s.width();
  bool same = true;
  Arguments<double> sums;
  for (std::size_t i = first_parameter; i < std::size(argument_names); ++i)
    sums.all()[i]->assign(p.in.all()[i]->size(), 0);
  const auto expect = [&](const std::vector<T>& mine, const std::vector<T>& other, int64_t width,
                          const std::vector<int64_t>& rows) { same &= same_bits(mine, rows_of(other, width, rows)); };
  const auto zeros = [](const std::vector<T>& like, int64_t n) {
    return std::vector<T>(like.empty() ? 0 : std::size_t(n), T(0));
  };
  for (int64_t n = 0; n < s.N; ++n) {
    const std::vector<Piece> pieces = pieces_of(s, n);
    if (pieces.empty()) {
      expect(rows_of(p.in.h0, P, {n}), whole.out.h_n, P, {n});
      expect(rows_of(p.in.c0, s.H, {n}), whole.out.c_n, s.H, {n});
      expect(rows_of(p.d.h_n, P, {n}), whole.grad.h0, P, {n});
      expect(rows_of(p.d.c_n, s.H, {n}), whole.grad.c0, s.H, {n});
    }
    for (int64_t t = s.length(n); t < s.T && !s.packed; ++t) {
      expect(zeros(whole.out.y, P), whole.out.y, P, {s.place(t, n)});
      expect(zeros(whole.out.c, s.H), whole.out.c, s.H, {s.place(t, n)});
      expect(zeros(whole.grad.x, s.I), whole.grad.x, s.I, {s.place(t, n)});
    }
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const Piece& piece = pieces[i];
      std::vector<int64_t> at;
      for (int64_t t = piece.begin; t < piece.end; ++t) at.push_back(s.place(t, n));
      Problem<T> one = p;
      one.shape = {s.kind, piece.end - piece.begin, 1, s.I, s.H, s.reverse};
      one.shape.options = s.options;
      if (s.options) {
        one.shape.options->row_offset += n;
        one.shape.options->step_offset += piece.begin;
      }
      const bool last = i + 1 == pieces.size();
      const std::vector<int64_t> start = piece.from_zero ? std::vector<int64_t>{} : std::vector<int64_t>{n};
      const std::vector<int64_t> end = last ? std::vector<int64_t>{n} : std::vector<int64_t>{};
      one.in.x = rows_of(p.in.x, s.I, at);
      one.in.h0 = rows_of(p.in.h0, P, start);
      one.in.c0 = rows_of(p.in.c0, s.H, start);
      one.d = {rows_of(p.d.y, P, at), rows_of(p.d.h_n, P, end), rows_of(p.d.c_n, s.H, end), rows_of(p.d.c, s.H, at)};
      const Results<T> alone = run(one);
      expect(alone.out.y, whole.out.y, P, at);
      expect(alone.out.c, whole.out.c, s.H, at);
      expect(alone.grad.x, whole.grad.x, s.I, at);
      if (last) {
        expect(alone.out.h_n, whole.out.h_n, P, {n});
        expect(alone.out.c_n, whole.out.c_n, s.H, {n});
      }
      if (i == 0) {
        expect(piece.from_zero ? zeros(alone.grad.h0, P) : alone.grad.h0, whole.grad.h0, P, {n});
        expect(piece.from_zero ? zeros(alone.grad.c0, s.H) : alone.grad.c0, whole.grad.c0, s.H, {n});
      }
      for (std::size_t a = first_parameter; a < std::size(argument_names); ++a)
        for (std::size_t e = 0; e < sums.all()[a]->size(); ++e)
          (*sums.all()[a])[e] += double((*alone.grad.all()[a])[e]);
    }
  }
  check(same, where + ": a row alone, cut at resets, differs from the row in its batch");
  for (std::size_t a = first_parameter; a < std::size(argument_names); ++a)
    check(distance(*whole.grad.all()[a], *sums.all()[a]) <= bound<T>,
          where + ": rows alone do not add up to the gradient of " + argument_names[a]);
}

// sum(dy y) + sum(dh_n h_n) + sum(dc_n c_n) + sum(dc c).
double loss(const Problem<double>& p) {
  const Outputs<double> out = run(p, {.train = false}).out;
  double sum = 0;
  for (std::size_t i = 0; i < 4; ++i)
    sum = std::inner_product(out.all()[i]->begin(), out.all()[i]->end(), p.d.all()[i]->begin(), sum);
  return sum;
}

// Of each argument along one direction; central, so that the error is that of their third derivative.
double check_gradients(const std::string& where, const Problem<double>& p, const Results<double>& ours) {
  constexpr double step = 1e-5;
  std::mt19937 g(7);
  double worst = 0;
  for (std::size_t i = 0; i < std::size(argument_names); ++i) {
    Problem<double> moved = p;
    std::vector<double>& values = *moved.in.all()[i];
    const std::vector<double> direction = random<double>(g, int64_t(values.size()), 1), start = values;
    const auto move = [&](double by) {
      for (std::size_t e = 0; e < values.size(); ++e) values[e] = start[e] + by * direction[e];
      return loss(moved);
    };
    const double wanted = (move(step) - move(-step)) / (2 * step);
    const std::vector<double>& gradient = *ours.grad.all()[i];
    const double got = std::inner_product(gradient.begin(), gradient.end(), direction.begin(), 0.0);
    const double error = std::abs(got - wanted) / std::max(1.0, std::abs(wanted));
    worst = error <= worst ? worst : error;
    check(error <= finite_difference_bound, where + ": gradient of " + argument_names[i] + " is " +
                                                std::to_string(got) + " instead of " + std::to_string(wanted));
  }
  return worst;
}

// The states, biases and gradients that a caller leaves out are zeros; what it does not want changes nothing.
template <class T>
void check_absent(const std::string& where, const Problem<T>& p) {
  Problem<T> zeros = p, absent = p;
  for (auto* v : {&zeros.in.h0, &zeros.in.c0, &zeros.in.bias_ih, &zeros.in.bias_hh, &zeros.in.norm_bias_ih,
                  &zeros.in.norm_bias_hh, &zeros.in.norm_bias_c, &zeros.d.h_n, &zeros.d.c_n, &zeros.d.c})
    std::fill(v->begin(), v->end(), T(0));
  for (auto* v : {&absent.in.h0, &absent.in.c0, &absent.in.bias_ih, &absent.in.bias_hh, &absent.in.norm_bias_ih,
                  &absent.in.norm_bias_hh, &absent.in.norm_bias_c, &absent.d.h_n, &absent.d.c_n, &absent.d.c})
    v->clear();
  const Results<T> wanted = run(zeros), got = run(absent), without = run(p, {.wanted = false});
  bool good = wanted.out.y == got.out.y && wanted.out.c_n == got.out.c_n && wanted.grad.x == got.grad.x &&
              wanted.grad.h0 == got.grad.h0 && wanted.grad.weight_ih == got.grad.weight_ih &&
              wanted.grad.weight_hh == got.grad.weight_hh;
  check(good, where + ": what is absent differs from zeros");
  const Results<T> all = run(p);
  good = same_bits(all.grad.h0, without.grad.h0) && same_bits(all.grad.c0, without.grad.c0) &&
         same_bits(all.grad.weight_ih, without.grad.weight_ih) && same_bits(all.grad.weight_hh, without.grad.weight_hh);
  check(good, where + ": gradients that are not wanted change others");
}

// All that holds of one case, in one scalar type; returns the largest error of a gradient, of double.
template <class T>
double check_case(const std::string& isa, const Case& c, unsigned seed) {
  const std::string where = isa + (sizeof(T) == 4 ? " float32 " : " float64 ") + c.name();
  const Problem<T> p(c, seed);
  const Results<T> ours = run(p);
  check(same(ours.out, run(p, {.train = false}).out), where + ": inference differs from training");
  check_pieces(where, p, ours);
  check_absent(where, p);
  if (!c.options && !c.elementwise() && c.kind != Kind::rnn)
    check(same(ours, run(p, {.recompute = true})), where + ": recompute differs");
  if constexpr (std::is_same_v<T, double>) {
    check_near(where + ", float beside double", run(Problem<float>(c, seed)), ours, bound<float>);
    if (!c.options || c.options->grad_clip == 0) return check_gradients(where, p, ours);
  }
  return 0;
}

// Options with their plain values are no options.
template <class T>
void check_plain(const std::string& isa, Case c, unsigned seed) {
  const Results<T> plain = run(Problem<T>(c, seed));
  c.options = plain_options(c.kind);
  check_near(isa + (sizeof(T) == 4 ? " float32 " : " float64 ") + c.name() + " beside the plain call",
             run(Problem<T>(c, seed)), plain, bound<T>);
}

// What comes back through the weights is clipped, also on its way to h0: of one step, exactly that.
template <class T>
void check_grad_clip(const std::string& isa, Kind kind) {
  Case c{kind, 1, 5, 3, 19};
  c.options = plain_options(c.kind);
  const std::vector<T> free = run(Problem<T>(c, 3)).grad.h0;
  const T limit = T(0.1);
  c.options->grad_clip = double(limit);
  const std::vector<T> clipped = run(Problem<T>(c, 3)).grad.h0;
  bool good = true, some = false;
  for (std::size_t i = 0; i < free.size(); ++i) {
    good &= clipped[i] == std::clamp(free[i], -limit, limit);
    some |= clipped[i] != free[i];
  }
  check(good && some, isa + " " + c.name() + ": dh0 is not clipped");
}

// Small cases: each option alone, then mixed, over all forms of data and tails of vectors.
void check_small(const std::string& isa) {
  constexpr int mixes = 8;
  const int64_t units[] = {7, 1, 19, 16, 33};
  const Form forms[] = {Form::even, Form::lengths, Form::packed};
  std::mt19937 g(2024);
  double worst = 0;
  unsigned seed = 0;
  const auto next = [&](Kind kind, const std::optional<Chosen>& options) {
    Case c{kind, 5, 4, 3, units[seed % std::size(units)]};
    c = with_data(c, forms[seed % std::size(forms)], g);
    c.options = options;
    ++seed;
    check_case<float>(isa, c, seed);
    worst = std::max(worst, check_case<double>(isa, c, seed));
    if (options || c.elementwise()) return;
    check_plain<float>(isa, c, seed);
    check_plain<double>(isa, c, seed);
  };
  for (const Kind kind : kinds) {
    for (int i = 0; i < mixes; ++i) next(kind, {});
    if (!takes_options(kind)) continue;
    for (const auto& option : options_for(kind, g)) {
      Chosen o = plain_options(kind);
      option(o);
      next(kind, o);
    }
    for (int i = 0; i < mixes; ++i) next(kind, mixed(kind, g));
  }
  for (const Kind kind : {Kind::rnn, Kind::lstm}) {
    check_grad_clip<float>(isa, kind);
    check_grad_clip<double>(isa, kind);
  }
  std::printf("%-9s largest error of a gradient beside finite differences %.1e, allowed %.0e\n", isa.c_str(), worst,
              finite_difference_bound);
}

// No rows, no steps in any row, one row, one step.
void check_bounds(const std::string& isa) {
  std::mt19937 g(11);
  for (const Kind kind : kinds)
    for (const bool reverse : {false, true}) {
      Case empty{kind, 3, 0, 2, 5, reverse}, idle{kind, 3, 4, 2, 5, reverse, {0, 0, 0, 0}};
      Case row{kind, 4, 1, 2, 5, reverse, {3}}, packed_row{kind, 3, 1, 2, 5, reverse, {3}, true};
      Case step{kind, 1, 3, 2, 5, reverse, {1, 0, 1}};
      for (Case* const c : {&empty, &idle, &row, &packed_row, &step}) {
        check_case<double>(isa, *c, 1);
        if (takes_options(kind)) c->options = mixed(kind, g);
        check_case<float>(isa, *c, 2);
      }
    }
}

// Wide inputs, whose product comes first, and more steps than a block holds.
void check_blocks(const std::string& isa) {
  std::mt19937 g(13);
  const auto uneven = [&](Case c, bool reset) {
    c.reverse = g() % 2;
    for (int64_t n = 0; n < c.N; ++n) c.lengths.push_back(c.T - n % 3);
    for (int64_t r = 0; reset && r < c.rows(); ++r) c.resets.push_back(g() % 8 == 0);
    return c;
  };
  for (const Kind kind : {Kind::rnn, Kind::gru, Kind::gru_reset_before, Kind::lstm}) {
    Case c{kind, 4, 3, 1, 33};
    c.I = separate_bytes / int64_t(sizeof(float)) / (c.gates() * c.H) + 1;
    check(input_product_first<float>({c.T, c.N, c.I, c.H}, c.gates()), c.name() + ": the product does not come first");
    c = uneven(c, true);
    check_case<float>(isa, c, 1);
    check_case<double>(isa, c, 1);
  }
  const auto several = [&](Case c, bool plain) {
    c = uneven(c, !plain);
    if (!plain) c.options = mixed(c.kind, g);
    const int64_t width = c.gates() * c.H;
    check(Steps({c.T, c.N, c.I, c.H}, c.reverse, width).block_end(0) < c.T, c.name() + ": one block holds all");
    const Problem<float> p(c, 1);
    check_pieces(isa + " float32 " + c.name() + ", several blocks", p, run(p));
  };
  several({Kind::lstm, 9, 66, 1, 132}, true);
  several({Kind::lstm, 9, 66, 1, 176}, false);
  several({Kind::gru, 9, 66, 1, 172}, false);
  several({Kind::gru_reset_before, 9, 66, 1, 172}, false);
  several({Kind::indrnn, 9, 66, 1, 520}, true);
  several({Kind::mingru, 9, 66, 1, 260}, true);
}

// The bits of one thread on any number of them.
template <class T>
void check_threads(const std::string& isa, const Case& c, bool by_units) {
  const std::string where = isa + (sizeof(T) == 4 ? " float32 " : " float64 ") + c.name();
  const Problem<T> p(c, 5);
  set_num_threads(1);
  const Results<T> one = run(p);
  for (const int threads : {2, 3, 5}) {
    set_num_threads(threads);
    if (!c.elementwise()) {
      const int64_t rows =
          c.lengths.empty() ? c.T * c.N : std::accumulate(c.lengths.begin(), c.lengths.end(), int64_t(0));
      const Sharing sharing({c.T, c.N, c.I, c.H}, c.gates(), c.width(), sizeof(T));
      check(
          sharing.by_units() == by_units && 2.0 * double(rows * c.gates()) * double(c.H * c.width()) >= parallel_flops,
          where + ": " + std::to_string(threads) + " threads do not share the " + (by_units ? "units" : "rows"));
    }
    check(same(one, run(p)), where + ": " + std::to_string(threads) + " threads differ from one");
  }
  set_num_threads(1);
}

// Just large enough that the pool is used and shares rows or units: Sharing, parallel_flops.
template <class T>
void check_sharing(const std::string& isa) {
  std::mt19937 g(sizeof(T));
  const auto options = [&](Kind kind, std::optional<bool> projection = {}) -> std::optional<Chosen> {
    if (!takes_options(kind)) return {};
    Chosen o = mixed(kind, g);
    o.projection = projection.value_or(o.projection);
    return o;
  };
  const auto lengths = [&](Case c) {
    for (int64_t n = 0; n < c.N; ++n) c.lengths.push_back(c.T - int64_t(g() % 4));
    for (int64_t r = 0; r < c.rows(); ++r) c.resets.push_back(g() % 5 == 0);
    return c;
  };
  for (const Kind kind : kinds) {
    const int64_t H = kind == Kind::rnn ? 80 : takes_options(kind) ? 44 : 230;
    for (const bool uneven : {false, true}) {
      Case rows{kind, 8, 41, 3, H, g() % 2 == 0};
      if (uneven) rows = lengths(rows);
      if (uneven || takes_options(kind)) rows.options = options(kind, false);
      check_threads<T>(isa, rows, false);
      if (!takes_options(kind)) continue;
      const std::optional<Chosen> chosen = options(kind);
      const int64_t steps = kind == Kind::rnn ? 12 : kind == Kind::lstm ? 14 : 8;
      Case units{kind, steps, 3, 3, kind == Kind::rnn ? 208 : 141, g() % 2 == 0};
      if (uneven) units = lengths(units);
      units.options = chosen;
      check_threads<T>(isa, units, true);
    }
  }
}

}  // namespace

int main() {
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    set_num_threads(1);
    check_small(isa);
    check_bounds(isa);
    check_blocks(isa);
    check_sharing<float>(isa);
    check_sharing<double>(isa);
  }
  return report();
}
