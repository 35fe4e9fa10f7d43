// The engine against the plain equations, on every instruction set that this processor runs, without Python: the
// parity that design promises, the same bits for any batch, any cut of time and any number of threads.
#include <algorithm>
#include <atomic>
#include <bit>
#include <limits>
#include <thread>
#include <type_traits>

#include "../../csrc/core/cells.hpp"
#include "../../csrc/core/dispatch.hpp"
#include "../../csrc/core/frozen.hpp"
#include "../../csrc/core/parallel.hpp"
#include "../../csrc/core/sequence.hpp"
#include "checks.hpp"
#include "reference.hpp"

using namespace calls;

namespace {

// Every cell without options; the RNN with both of its activations.
template <class F>
void for_cells(const std::vector<Kind>& kinds, F f) {
  for (const Kind kind : kinds) f(Case{.kind = kind, .T = 0, .N = 0, .I = 0, .H = 0});
  f(Case{.kind = Kind::rnn, .T = 0, .N = 0, .I = 0, .H = 0, .relu = true});
}
const std::vector<Kind> recurrent{Kind::rnn, Kind::lstm, Kind::gru, Kind::gru_reset_before};
const std::vector<Kind> all_kinds{Kind::rnn, Kind::lstm, Kind::gru, Kind::gru_reset_before, Kind::indrnn, Kind::mingru};

Case sized(Case c, int64_t T, int64_t N, int64_t I, int64_t H, bool reverse) {
  c.T = T, c.N = N, c.I = I, c.H = H, c.reverse = reverse;
  return c;
}

template <class T>
Problem<T> problem(const Case& s) {
  return Problem<T>(s, unsigned(s.T * 1000 + s.N * 100 + s.I * 10 + s.H));
}

// The same bits where backward makes the gates again, by the cells that can.
template <class T>
void check_recompute(const std::string& what, const Problem<T>& p, const Results<T>& kept) {
  if (!p.shape.elementwise()) check(same_results(kept, run(p, {.recompute = true})), what + ": recompute differs");
}

std::vector<double> widen(const auto& v) { return std::vector<double>(v.begin(), v.end()); }

// Of every this many elements of the arguments the gradient is compared, and of large cases of so many in all: which
// ones, changes from case to case.
constexpr std::size_t gradient_stride = 7, most_compared = 40;

// max |ours - reference| / max(1, max |reference|) over all outputs and the gradients compared.
template <class T>
double worst_error(const Problem<T>& p, const Results<T>& ours) {
  Arguments<double> in;
  for (std::size_t k = 0; k < in.all().size(); ++k) *in.all()[k] = widen(*p.in.all()[k]);
  const Outputs<double> d{widen(p.d.y), widen(p.d.h_n), widen(p.d.c_n), {}};
  static std::size_t offset = 0;
  std::size_t elements = 0;
  for (const auto* v : in.all()) elements += v->size();
  const std::size_t stride = p.shape.H < 10 ? 1 : std::max(gradient_stride, elements / most_compared);
  const Results<double> wanted{reference::forward(p.shape, in),
                               reference::gradients(p.shape, in, d, stride, ++offset % stride)};
  const auto got = ours.all();
  const auto want = wanted.all();
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    double error = 0, size = 1;
    for (std::size_t j = 0; j < want[i]->size(); ++j) {
      if (std::isnan((*want[i])[j])) continue;  // not computed
      const double difference = std::abs(double((*got[i])[j]) - (*want[i])[j]);
      error = difference <= error ? error : difference;  // a NaN stays
      size = std::max(size, std::abs((*want[i])[j]));
    }
    worst = error / size <= worst ? worst : error / size;
  }
  return worst;
}

template <class T>
constexpr double bound = std::is_same_v<T, float> ? 3e-5 : 1e-11;

template <class T>
std::vector<T> row_of(const std::vector<T>& v, int64_t T_, int64_t N, int64_t width, int64_t row) {
  std::vector<T> out;
  for (int64_t t = 0; t < T_; ++t)
    out.insert(out.end(), v.begin() + (t * N + row) * width, v.begin() + (t * N + row + 1) * width);
  return out;
}

// A row on its own gives the bits that it gives within the batch.
template <class T>
void check_rows(const std::string& where, const Problem<T>& p, const Results<T>& whole) {
  const Case& s = p.shape;
  bool same = true;
  for (int64_t row = 0; row < s.N; ++row) {
    Problem<T> one = p;
    one.shape.N = 1;
    one.in.x = row_of(p.in.x, s.T, s.N, s.I, row);
    one.in.h0 = row_of(p.in.h0, 1, s.N, s.H, row);
    one.d.y = row_of(p.d.y, s.T, s.N, s.H, row);
    one.d.h_n = row_of(p.d.h_n, 1, s.N, s.H, row);
    if (s.kind == Kind::lstm) {
      one.in.c0 = row_of(p.in.c0, 1, s.N, s.H, row);
      one.d.c_n = row_of(p.d.c_n, 1, s.N, s.H, row);
    }
    const Results<T> alone = run(one);
    same &= same_bits(alone.out.y, row_of(whole.out.y, s.T, s.N, s.H, row)) &&
            same_bits(alone.grad.x, row_of(whole.grad.x, s.T, s.N, s.I, row)) &&
            same_bits(alone.grad.h0, row_of(whole.grad.h0, 1, s.N, s.H, row));
  }
  check(same, where + ": a row alone differs from the row in its batch");
}

template <class T>
void check_cells(const std::string& isa) {
  const std::string where = isa + (std::is_same_v<T, float> ? " float32 " : " float64 ");
  const int64_t shapes[][4] = {{1, 1, 1, 1},  {3, 5, 4, 1},   {4, 3, 3, 7},  {2, 7, 5, 15}, {2, 2, 16, 16},
                               {3, 4, 2, 17}, {2, 13, 1, 24}, {2, 3, 40, 5}, {2, 3, 2, 33}, {3, 0, 4, 5}};
  double worst = 0;
  const auto compare = [&](const Case& c) {
    const Problem<T> p = problem<T>(c);
    const Results<T> ours = run(p);
    const double error = worst_error(p, ours);
    worst = std::max(worst, error);
    check(error <= bound<T>, where + c.name() + ": error " + std::to_string(error));
    check_recompute(where + c.name(), p, ours);
    check_rows(where + c.name(), p, ours);
  };
  for (const auto& [T_, N, I, H] : shapes)
    for_cells(all_kinds, [&, T_ = T_, N = N, I = I, H = H](const Case& c) {
      compare(sized(c, T_, N, I, H, (T_ + H) % 2 == 0));
      if (c.elementwise()) compare(sized(c, T_, N, I, H, (T_ + H) % 2 != 0));
    });
  for (const Kind kind : {Kind::indrnn, Kind::mingru})
    for (const bool reverse : {false, true}) {
      compare({kind, 24, 64, 3, 48, reverse});  // rows to share
      compare({kind, 64, 2, 3, 600, reverse});  // units
    }
  std::printf("%-9s %s  largest error of outputs and gradients %.1e, allowed %.0e\n", isa.c_str(),
              std::is_same_v<T, float> ? "float32" : "float64", worst, bound<T>);
}

// All that one thread gives, with a full reserve and with gates made again, on any number of threads.
template <class T>
void check_threads(const std::string& where, const Problem<T>& p, const std::vector<int>& counts) {
  set_num_threads(1);
  const Results<T> one = run(p);
  check_recompute(where + " " + p.shape.name(), p, one);
  for (const int threads : counts) {
    set_num_threads(threads);
    const std::string what = where + " " + p.shape.name() + ": " + std::to_string(threads) + " threads";
    check(same_results(one, run(p)), what + " differ from one");
    check_recompute(what + ", against one thread", p, one);
  }
  set_num_threads(1);
}

// Large enough that the pool is used: see parallel_flops.
template <class T>
void check_threads_share_rows(const std::string& where) {
  for (const Kind kind : recurrent) check_threads(where, problem<T>({kind, 5, 150, 33, 40}), {2, 3, 7});
  for (const Kind kind : {Kind::indrnn, Kind::mingru})
    for (const bool reverse : {false, true}) {
      check_threads(where, problem<T>({kind, 24, 64, 3, 48, reverse}), {2, 3});
      check_threads(where, problem<T>({kind, 64, 2, 3, 600, reverse}), {2, 3});
    }
}

// Few rows and many units, and weights beyond a core's cache: just above what Sharing asks for and, in backward, above
// parallel_flops. The last units fill a vector, half or a quarter of one, and less.
template <class T>
void check_threads_share_units(const std::string& where) {
  const auto shared = [&](const Case& c, const std::vector<int>& counts) {
    set_num_threads(counts.front());
    const Sharing sharing({c.T, c.N, c.I, c.H}, c.gates(), c.H, sizeof(T));
    check(sharing.by_units() && 2.0 * double(c.T * c.N * c.gates()) * double(c.H * c.H) >= parallel_flops,
          where + " " + c.name() + ": threads do not share the units");
    check_threads(where, problem<T>(c), counts);
  };
  shared({Kind::rnn, 10, 3, 3, 208}, {2, 3, 5});
  shared({.kind = Kind::rnn, .T = 10, .N = 3, .I = 9, .H = 193, .reverse = true, .relu = true}, {2, 3, 5});
  shared({Kind::lstm, 7, 1, 9, 196}, {2, 3, 5});
  shared({Kind::lstm, 8, 2, 1, 136, true}, {2, 3, 5});
  shared({Kind::gru, 8, 2, 9, 150, true}, {2, 3, 5});
  shared({Kind::gru_reset_before, 8, 2, 1, 161}, {2, 3, 5});
  // Wide weights, with rows that would do for two threads.
  if (sizeof(T) == 8) shared({Kind::lstm, 2, 8, 3, 226}, {2});
}

template <class T>
std::unique_ptr<Frozen<T>> freeze(const Problem<T>& p) {
  const Case& s = p.shape;
  const Arguments<T>& a = p.in;
  const T *ih = a.weight_ih.data(), *hh = a.weight_hh.data(), *bias_ih = a.bias_ih.data(), *bias_hh = a.bias_hh.data();
  if (s.kind == Kind::lstm) return frozen_lstm(s.N, s.I, s.H, ih, hh, bias_ih, bias_hh);
  if (s.elementwise()) return frozen_elementwise(s.N, common<ElementwiseForward<T>>(p, {s.T, s.N, s.I, s.H}, false));
  if (s.gates() == 3) return frozen_gru(s.N, s.I, s.H, s.kind == Kind::gru, ih, hh, bias_ih, bias_hh);
  return frozen_rnn(s.N, s.I, s.H, s.relu, ih, hh, bias_ih, bias_hh);
}

// A frozen layer has the call's bits on the instruction set that it was made for: steps one by one, and amid them the
// whole sequence, which leaves their state alone.
template <class T>
void check_frozen(const std::string& where) {
  const std::string made_for = isa();
  const int64_t shapes[][4] = {{3, 5, 4, 7}, {1, 1, 1, 1}, {2, 13, 9, 24}, {7, 3, 9, 210}, {2, 0, 3, 5}};
  for (const auto& [T_, N, I, H] : shapes)
    for_cells(all_kinds, [&, T_ = T_, N = N, I = I, H = H](const Case& c) {
      const bool reverse = N % 2 == 1;
      const Problem<T> p = problem<T>(sized(c, T_, N, I, H, reverse));
      const Outputs<T> called = run(p).out;
      const std::unique_ptr<Frozen<T>> frozen = freeze(p);
      std::copy(p.in.h0.begin(), p.in.h0.end(), frozen->h());
      if (frozen->has_c()) std::copy(p.in.c0.begin(), p.in.c0.end(), frozen->c());
      set_isa(available_isas().front());
      bool steps = true;
      for (int64_t i = 0; i < T_; ++i) {
        const int64_t t = reverse ? T_ - 1 - i : i;
        const T* const h = frozen->step(p.in.x.data() + t * N * I);
        steps &= std::equal(h, h + N * H, called.y.data() + t * N * H);
        for (const int threads : {1, 3}) {
          if (i != T_ / 2) continue;
          set_num_threads(threads);
          Outputs<T> o{std::vector<T>(called.y.size()),
                       std::vector<T>(called.h_n.size()),
                       std::vector<T>(called.c_n.size()),
                       {}};
          frozen->sequence(
              {T_, N, reverse, p.in.x.data(), p.in.h0.data(), p.in.c0.data(), o.y.data(), o.h_n.data(), o.c_n.data()});
          check(same_bits(o.y, called.y) && same_bits(o.h_n, called.h_n) && same_bits(o.c_n, called.c_n),
                where + " " + p.shape.name() + ": a frozen layer's sequence differs");
        }
        set_num_threads(1);
      }
      if (frozen->has_c()) steps &= std::equal(frozen->c(), frozen->c() + N * H, called.c_n.data());
      check(steps, where + " " + p.shape.name() + ": a frozen layer's steps differ");
      set_isa(made_for);
    });
}

// Another thread may pick an instruction set at any time: a call goes on with the one that it began with, or its panels
// would be read with another's width.
void check_isa_changed_amid_calls() {
  constexpr int64_t R = 20, I = 9, O = 37;
  std::mt19937 g(1);
  const auto x = random<float>(g, R * I, 1), weight = random<float>(g, O * I, 1), dy = random<float>(g, R * O, 1);
  const auto gradients = [&] {
    std::vector<float> all(std::size_t(R * I + O * I + O));  // dx, dweight, dbias
    float* const dx = all.data();
    linear_backward(R, I, O, dy.data(), x.data(), weight.data(), dx, dx + R * I, dx + R * I + O * I);
    return all;
  };
  const std::vector<std::string> isas = available_isas();
  std::vector<std::vector<float>> expected;
  for (const std::string& isa : isas) {
    set_isa(isa);
    expected.push_back(gradients());
  }
  std::atomic<bool> running{true};
  std::thread other([&] {
    for (std::size_t i = 0; running; ++i) set_isa(isas[i % isas.size()]);
  });
  bool good = true;
  for (int i = 0; i < 3000; ++i) {
    const auto found = gradients();
    good &= std::any_of(expected.begin(), expected.end(), [&](const auto& e) { return same_bits(found, e); });
  }
  running = false;
  other.join();
  check(good, "an instruction set picked amid a call changes its result");
}

// Units in the last place between a result and the truth.
template <class T>
double ulps(T got, double truth) {
  const T nearest = T(truth);
  if (got == nearest) return 0;
  const T unit = std::nextafter(std::abs(nearest), std::numeric_limits<T>::infinity()) - std::abs(nearest);
  return std::abs(double(got) - truth) / double(unit);
}

template <class T>
void check_math(const std::string& where) {
  const char* const names[] = {"exp", "sigmoid", "tanh", "softplus"};
  const double allowed[] = {1, 2.5, 3, 3};
  std::vector<T> x, y;
  for (int i = -40000; i <= 40000; ++i) x.push_back(T(i) * T(0.002));
  y.resize(x.size());
  for (int f = 0; f < 4; ++f) {
    kernels<T>().math(f, int64_t(x.size()), x.data(), y.data());
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double v = double(x[i]);
      const double truth = f == 0   ? std::exp(v)
                           : f == 1 ? reference::sigmoid(v)
                           : f == 2 ? std::tanh(v)
                                    : std::max(v, 0.0) + std::log1p(std::exp(-std::abs(v)));
      worst = std::max(worst, ulps(y[i], truth));
    }
    // in double the truth itself is good to about an ulp
    const double limit = allowed[f] + (std::is_same_v<T, double> ? 1.5 : 0);
    check(worst <= limit, where + " " + names[f] + ": " + std::to_string(worst) + " ulp");
    const T nan = std::numeric_limits<T>::quiet_NaN();
    T out = 0;
    kernels<T>().math(f, 1, &nan, &out);
    check(std::isnan(out), where + " " + names[f] + " of NaN");
  }
}

template <class T>
void check_flat(const std::string& where) {
  for (const int64_t n : {1, 3, 16, 37}) {
    std::mt19937 g{unsigned(n)};
    const auto grad = random<T>(g, n, 1), start = random<T>(g, n, 1);
    auto data = start;
    std::vector<T> m(std::size_t(n), T(0)), v(std::size_t(n), T(0));
    // the first step of Adam moves by lr g / (|g| + eps)
    kernels<T>().adam({n, data.data(), grad.data(), m.data(), v.data(), T(0.9), T(0.999), T(1e-8), T(0), T(0.1),
                       T(0.1 / (1 - 0.9)), T(1 / std::sqrt(1 - 0.999)), false});
    double error = 0;
    for (std::size_t i = 0; i < std::size_t(n); ++i)
      error =
          std::max(error, std::abs(double(data[i]) - (double(start[i]) - 0.1 * std::copysign(1.0, double(grad[i])))));
    check(error < 1e-5, where + " adam: error " + std::to_string(error));

    double norm = 0;
    for (const T e : grad) norm += double(e) * double(e);
    check(std::abs(kernels<T>().squared_norm(n, grad.data()) - norm) < 1e-5 * n, where + " squared norm");
  }
}

}  // namespace

int main() {
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    set_num_threads(1);
    check_cells<float>(isa);
    check_cells<double>(isa);
    check_math<float>(isa + " float32");
    check_math<double>(isa + " float64");
    check_flat<float>(isa + " float32");
    check_flat<double>(isa + " float64");
    check_threads_share_rows<float>(isa + " float32");
    check_threads_share_rows<double>(isa + " float64");
    check_threads_share_units<float>(isa + " float32");
    check_threads_share_units<double>(isa + " float64");
    check_frozen<float>(isa + " float32");
    check_frozen<double>(isa + " float64");
  }
  check_isa_changed_amid_calls();
  return report();
}
