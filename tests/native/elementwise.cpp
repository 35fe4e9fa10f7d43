// Cells whose units see no state but their own against their equations, one number at a time, on every instruction set
// that this processor runs; gradients by dual numbers. And the same bits on several threads.
#include <cstdio>
#include <cstring>
#include <random>

#include "../../csrc/core/cells.hpp"
#include "../../csrc/core/dispatch.hpp"
#include "../../csrc/core/parallel.hpp"
#include "reference.hpp"

using namespace fusedrnn;
using reference::Dual;

namespace {

enum class Kind { indrnn, mingru };

struct Case {
  Kind kind;
  int64_t T, N, I, H;
  bool reverse;
  int64_t gates() const { return kind == Kind::mingru ? 2 : 1; }
  std::size_t size(int array) const {  // of x, h0, weight_ih, weight_hh, bias
    const int64_t sizes[] = {T * N * I, N * H, gates() * H * I, kind == Kind::indrnn ? H : 0, gates() * H};
    return std::size_t(sizes[array]);
  }
};

constexpr int arrays = 5;
template <class S>
struct Values {
  std::vector<S> of[arrays];
};

// sum(dy y) + sum(dh_n h_n), and y where it is wanted; the IndRNN's f is tanh.
template <class S>
S loss(const Case& c, const Values<S>& v, const std::vector<double>& dy, const std::vector<double>& dh_n, S* y) {
  const std::vector<S>&x = v.of[0], &weight_ih = v.of[2], &weight_hh = v.of[3], &bias = v.of[4];
  std::vector<S> h = v.of[1];
  S sum(0);
  for (int64_t s = 0; s < c.T; ++s) {
    const int64_t t = c.reverse ? c.T - 1 - s : s;
    for (int64_t n = 0; n < c.N; ++n)
      for (int64_t u = 0; u < c.H; ++u) {
        const auto product = [&](int64_t row) {
          S a = bias[std::size_t(row)];
          for (int64_t i = 0; i < c.I; ++i)
            a = a + weight_ih[std::size_t(row * c.I + i)] * x[std::size_t((t * c.N + n) * c.I + i)];
          return a;
        };
        S& state = h[std::size_t(n * c.H + u)];
        if (c.kind == Kind::indrnn) {
          state = tanh(product(u) + weight_hh[std::size_t(u)] * state);
        } else {
          const S z = sigmoid(product(u));
          state = (S(1) - z) * state + z * product(c.H + u);
        }
        const std::size_t at = std::size_t((t * c.N + n) * c.H + u);
        if (y) y[at] = state;
        sum = sum + S(dy[at]) * state;
      }
  }
  for (std::size_t i = 0; i < h.size(); ++i) sum = sum + S(dh_n[i]) * h[i];
  return sum;
}

// y, then the gradients of all arrays.
template <class T>
std::vector<std::vector<T>> engine(const Case& c, const Values<T>& v, const std::vector<T>& dy,
                                   const std::vector<T>& dh_n) {
  std::vector<std::vector<T>> r{std::vector<T>(dy.size())};
  for (int i = 0; i < arrays; ++i) r.emplace_back(c.size(i), T(0));
  std::vector<T> h_n(dh_n.size()), reserve(c.kind == Kind::mingru ? 2 * dy.size() : 0);
  ElementwiseForward<T> f{};
  f.shape = {c.T, c.N, c.I, c.H};
  f.reverse = c.reverse;
  f.x = v.of[0].data();
  f.h0 = v.of[1].data();
  f.weight_ih = v.of[2].data();
  f.bias = v.of[4].data();
  f.y = r[0].data();
  f.h_n = h_n.data();
  ElementwiseBackward<T> b{};
  b.shape = f.shape;
  b.reverse = c.reverse;
  b.dy = dy.data();
  b.dh_n = dh_n.data();
  b.x = f.x;
  b.h0 = f.h0;
  b.y = f.y;
  b.weight_ih = f.weight_ih;
  b.dx = r[1].data();
  b.dh0 = r[2].data();
  b.dweight_ih = r[3].data();
  b.dbias = r[5].data();
  f.kind = b.kind = c.kind == Kind::indrnn ? ElementwiseKind::indrnn : ElementwiseKind::mingru;
  if (c.kind == Kind::indrnn) {
    f.weight_hh = b.weight_hh = v.of[3].data();
    f.activation = b.activation = Activation::tanh;
    b.dweight_hh = r[4].data();
  } else {
    b.reserve = f.reserve = reserve.data();
  }
  elementwise_forward(f);
  elementwise_backward(b);
  return r;
}

int checks = 0, failures = 0;

template <class T>
void check(const Case& c, const std::string& isa, bool all) {
  std::mt19937 generator(unsigned(c.T + c.N + c.I + c.H));
  std::uniform_real_distribution<double> uniform(-0.8, 0.8);
  Values<T> v;
  Values<Dual> lifted;
  const auto fill = [&](std::size_t n) {
    std::vector<T> out(n);
    for (T& e : out) e = T(uniform(generator));
    return out;
  };
  for (int i = 0; i < arrays; ++i) {
    v.of[i] = fill(c.size(i));
    lifted.of[i].assign(v.of[i].begin(), v.of[i].end());
  }
  const std::vector<T> dy = fill(std::size_t(c.T * c.N * c.H)), dh_n = fill(std::size_t(c.N * c.H));
  const std::vector<double> dy_wide(dy.begin(), dy.end()), dh_n_wide(dh_n.begin(), dh_n.end());
  set_num_threads(1);
  const auto ours = engine(c, v, dy, dh_n);
  const auto expect = [&](double got, double wanted, int what) {
    ++checks;
    if (std::abs(got - wanted) <= (sizeof(T) == 4 ? 3e-5 : 1e-11) * std::max(1.0, std::abs(wanted))) return;
    if (++failures < 20) std::printf("FAILED %s, array %d: %g instead of %g\n", isa.c_str(), what, got, wanted);
  };
  std::vector<Dual> y(dy.size());
  loss(c, lifted, dy_wide, dh_n_wide, y.data());
  for (std::size_t i = 0; i < y.size(); ++i) expect(double(ours[0][i]), y[i].value, 0);
  for (int a = 0; a < arrays; ++a) {
    const std::size_t stride = all ? 1 : 1 + c.size(a) / Dual::directions;
    for (std::size_t first = 0; first < c.size(a); first += stride * Dual::directions) {
      const auto each = [&](auto f) {
        for (int j = 0; j < Dual::directions; ++j)
          if (const std::size_t i = first + std::size_t(j) * stride; i < c.size(a)) f(i, j);
      };
      each([&](std::size_t i, int j) { lifted.of[a][i].slope[j] = 1; });
      const Dual sum = loss<Dual>(c, lifted, dy_wide, dh_n_wide, nullptr);
      each([&](std::size_t i, int j) {
        expect(double(ours[std::size_t(a) + 1][i]), sum.slope[j], a + 1);
        lifted.of[a][i].slope[j] = 0;
      });
    }
  }
  for (const int threads : {2, 3}) {
    set_num_threads(threads);
    const auto shared = engine(c, v, dy, dh_n);
    ++checks;
    if (shared == ours) continue;
    ++failures;
    std::printf("FAILED %s: other bits on %d threads\n", isa.c_str(), threads);
  }
}

}  // namespace

int main() {
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    for (const Kind kind : {Kind::indrnn, Kind::mingru})
      for (const bool reverse : {false, true}) {
        for (const int64_t H : {1, 5, 16, 19}) {
          check<float>({kind, 4, 3, 2, H, reverse}, isa, true);
          check<double>({kind, 4, 3, 2, H, reverse}, isa, true);
        }
        check<float>({kind, 24, 64, 3, 48, reverse}, isa, false);   // rows to share
        check<double>({kind, 64, 2, 3, 600, reverse}, isa, false);  // units
      }
  }
  std::printf("%d checks, %d failures\n", checks, failures);
  return failures != 0;
}
