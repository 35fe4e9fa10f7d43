// The cells as plain equations, one number at a time, over any number type: with doubles they give the outputs,
// with dual numbers exact gradients, so that no backward pass is written a second time.
#pragma once

#include "calls.hpp"

namespace reference {

using calls::Arguments;
using calls::Case;
using calls::Kind;
using calls::Outputs;

// A value and its derivatives along a few directions at once.
struct Dual {
  static constexpr int directions = 8;
  double value = 0;
  double slope[directions] = {};

  Dual() = default;
  Dual(double v) : value(v) {}
};

template <class F>
Dual map(const Dual& a, const Dual& b, double value, F f) {
  Dual out(value);
  for (int i = 0; i < Dual::directions; ++i) out.slope[i] = f(a.slope[i], b.slope[i]);
  return out;
}

inline Dual operator+(const Dual& a, const Dual& b) {
  return map(a, b, a.value + b.value, [](double x, double y) { return x + y; });
}
inline Dual operator-(const Dual& a, const Dual& b) {
  return map(a, b, a.value - b.value, [](double x, double y) { return x - y; });
}
inline Dual operator*(const Dual& a, const Dual& b) {
  return map(a, b, a.value * b.value, [&](double x, double y) { return x * b.value + a.value * y; });
}
inline Dual scaled(const Dual& a, double value, double slope) {
  return map(a, a, value, [&](double x, double) { return x * slope; });
}

inline double tanh(double a) { return std::tanh(a); }
inline double sigmoid(double a) { return a >= 0 ? 1 / (1 + std::exp(-a)) : std::exp(a) / (1 + std::exp(a)); }
inline double relu(double a) { return a > 0 ? a : 0; }
inline Dual tanh(const Dual& a) {
  const double t = std::tanh(a.value);
  return scaled(a, t, 1 - t * t);
}
inline Dual sigmoid(const Dual& a) {
  const double s = sigmoid(a.value);
  return scaled(a, s, s * (1 - s));
}
inline Dual relu(const Dual& a) { return scaled(a, relu(a.value), a.value > 0 ? 1 : 0); }

template <class S>
Outputs<S> forward(const Case& s, const Arguments<S>& a) {
  const int64_t H = s.H, I = s.I;
  Outputs<S> out{std::vector<S>(std::size_t(s.T * s.N * H)), a.h0, a.c0, {}};
  std::vector<S> before(std::size_t(H), S(0)), reset(std::size_t(H), S(0));
  const auto row = [](const auto& v, int64_t n, int64_t width) { return v.data() + n * width; };
  for (int64_t k = 0; k < s.T; ++k) {
    const int64_t t = s.reverse ? s.T - 1 - k : k;
    for (int64_t n = 0; n < s.N; ++n) {
      S* const h = out.h_n.data() + n * H;
      S* const c = out.c_n.data() + n * H;
      before.assign(h, h + H);
      const S* const x = row(a.x, t * s.N + n, I);
      const auto input = [&](int64_t gate, int64_t u) {
        S sum = a.bias_ih[std::size_t(gate * H + u)];
        for (int64_t i = 0; i < I; ++i) sum = sum + row(a.weight_ih, gate * H + u, I)[i] * x[i];
        return sum;
      };
      const auto hidden = [&](int64_t gate, int64_t u, const std::vector<S>& state) {
        S sum = a.bias_hh[std::size_t(gate * H + u)];
        for (int64_t j = 0; j < H; ++j) sum = sum + row(a.weight_hh, gate * H + u, H)[j] * state[std::size_t(j)];
        return sum;
      };
      const auto both = [&](int64_t gate, int64_t u) { return input(gate, u) + hidden(gate, u, before); };
      if (s.kind == Kind::gru_reset_before)
        for (int64_t u = 0; u < H; ++u) reset[std::size_t(u)] = sigmoid(both(0, u)) * before[std::size_t(u)];
      for (int64_t u = 0; u < H; ++u) {
        if (s.kind == Kind::rnn) {
          h[u] = s.relu ? relu(both(0, u)) : tanh(both(0, u));
        } else if (s.kind == Kind::indrnn) {
          h[u] = tanh(input(0, u) + a.weight_hh[std::size_t(u)] * h[u]);
        } else if (s.kind == Kind::mingru) {
          const S z = sigmoid(input(0, u));
          h[u] = (S(1) - z) * h[u] + z * input(1, u);
        } else if (s.kind == Kind::lstm) {
          c[u] = sigmoid(both(1, u)) * c[u] + sigmoid(both(0, u)) * tanh(both(2, u));
          h[u] = sigmoid(both(3, u)) * tanh(c[u]);
        } else {
          const S z = sigmoid(both(1, u));
          const S candidate = s.kind == Kind::gru ? tanh(input(2, u) + sigmoid(both(0, u)) * hidden(2, u, before))
                                                  : tanh(input(2, u) + hidden(2, u, reset));
          h[u] = (S(1) - z) * candidate + z * before[std::size_t(u)];
        }
        out.y[std::size_t((t * s.N + n) * H + u)] = h[u];
      }
    }
  }
  return out;
}

// Gradients of sum(dy y) + sum(dh_n h_n) + sum(dc_n c_n). Every `stride`-th element of the arguments, counted
// through all of them from `offset`, is computed; NaN marks the others.
inline Arguments<double> gradients(const Case& s, const Arguments<double>& a, const Outputs<double>& d,
                                   std::size_t stride, std::size_t offset) {
  Arguments<Dual> lifted;
  Arguments<double> g = a;
  std::vector<Dual*> elements;
  std::vector<double*> slots;
  std::size_t number = 0;
  for (std::size_t k = 0; k < a.all().size(); ++k) {
    lifted.all()[k]->assign(a.all()[k]->begin(), a.all()[k]->end());
    for (std::size_t i = 0; i < a.all()[k]->size(); ++i) {
      (*g.all()[k])[i] = std::nan("");
      if (number++ % stride != offset) continue;
      slots.push_back(&(*g.all()[k])[i]);
      elements.push_back(&(*lifted.all()[k])[i]);
    }
  }
  for (std::size_t first = 0; first < elements.size(); first += Dual::directions) {
    const std::size_t count = std::min(elements.size() - first, std::size_t(Dual::directions));
    for (std::size_t i = 0; i < count; ++i) elements[first + i]->slope[i] = 1;
    const Outputs<Dual> out = forward(s, lifted);
    for (std::size_t i = 0; i < count; ++i) {
      elements[first + i]->slope[i] = 0;
      double sum = 0;
      const auto add = [&](const std::vector<Dual>& values, const std::vector<double>& weights) {
        for (std::size_t j = 0; j < values.size(); ++j) sum += values[j].slope[i] * weights[j];
      };
      add(out.y, d.y);
      add(out.h_n, d.h_n);
      add(out.c_n, d.c_n);
      *slots[first + i] = sum;
    }
  }
  return g;
}

}  // namespace reference
