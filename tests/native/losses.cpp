// Losses, value and gradient, against the plain formulas on every instruction set that this processor runs.
#include "../../csrc/core/dispatch.hpp"
#include "checks.hpp"
#include "reference.hpp"

using namespace fusedrnn;

namespace {

// A third of the target goes to all classes where there is smoothing; the middle row weighs nothing where there are
// weights.
template <class T>
void check_cross_entropy(const std::string& where, bool weighted, double smoothing) {
  for (const int64_t n : {1, 3, 16, 37}) {
    std::mt19937 g{unsigned(n)};
    const int64_t rows = 3;
    const auto logits = random<T>(g, rows * n, 5);
    const std::vector<int64_t> targets{0, n - 1, n / 2};
    const std::vector<T> weights{T(0.5), T(0), T(2)};
    std::vector<T> d(logits.size());
    double loss = 0, largest = 0;
    const double ours = kernels<T>().softmax_cross_entropy(rows, n, logits.data(), targets.data(),
                                                           weighted ? weights.data() : nullptr, T(smoothing), d.data());
    for (int64_t r = 0; r < rows; ++r) {
      const double weight = weighted ? double(weights[std::size_t(r)]) : 1;
      double sum = 0;
      for (int64_t c = 0; c < n; ++c) sum += std::exp(double(logits[std::size_t(r * n + c)]));
      for (int64_t c = 0; c < n; ++c) {
        const double x = double(logits[std::size_t(r * n + c)]);
        const double share = (c == targets[std::size_t(r)] ? 1 - smoothing : 0) + smoothing / double(n);
        loss += weight * share * (std::log(sum) - x);
        const double p = weight * (std::exp(x) / sum - share);
        largest = std::max(largest, std::abs(double(d[std::size_t(r * n + c)]) - p));
      }
    }
    check(std::abs(ours - loss) < 1e-5 && largest < 1e-6, where + " softmax cross-entropy");
  }
}

// -log of the density of one row, by the textbook.
double mixture_loss(int64_t K, const std::vector<double>& p, const double* target, const double* weights) {
  double density = 0, sum = 0;
  for (std::size_t k = 0; k < std::size_t(K); ++k) {
    const auto at = [&](std::size_t group) { return p[group * std::size_t(K) + k]; };
    const double sx = std::exp(at(3)), sy = std::exp(at(4)), rho = std::tanh(at(5));
    const double zx = (target[0] - at(1)) / sx, zy = (target[1] - at(2)) / sy, rest = 1 - rho * rho;
    sum += std::exp(at(0));
    density += std::exp(at(0) - (zx * zx + zy * zy - 2 * rho * zx * zy) / (2 * rest)) /
               (2 * std::acos(-1.0) * sx * sy * std::sqrt(rest));
  }
  const double end = reference::sigmoid(p.back());
  return -weights[0] * std::log(density / sum) - weights[1] * std::log(target[2] > 0 ? end : 1 - end);
}

template <class T>
void check_mixture_density(const std::string& where) {
  for (const int64_t K : {1, 3, 16, 20}) {
    std::mt19937 g{unsigned(K)};
    const int64_t rows = 3, columns = 6 * K + 1;
    const auto parameters = random<T>(g, rows * columns, 1), points = random<T>(g, rows * 2, 1);
    const std::vector<T> weights{T(0.5), T(1), T(0), T(3), T(2), T(0)};  // of points and end flags
    std::vector<T> target, d(parameters.size());
    for (int64_t r = 0; r < rows; ++r)
      target.insert(target.end(), {points[std::size_t(2 * r)], points[std::size_t(2 * r + 1)], T(r % 2)});
    const double ours =
        kernels<T>().mixture_density(rows, K, parameters.data(), target.data(), weights.data(), 2, d.data());
    double loss = 0, largest = 0;
    for (int64_t r = 0; r < rows; ++r) {
      std::vector<double> p(parameters.begin() + r * columns, parameters.begin() + (r + 1) * columns);
      const std::vector<double> t(target.begin() + 3 * r, target.begin() + 3 * r + 3);
      const std::vector<double> w(weights.begin() + 2 * r, weights.begin() + 2 * r + 2);
      const double step = 1e-5;
      loss += mixture_loss(K, p, t.data(), w.data());
      for (int64_t i = 0; i < columns; ++i) {
        const double middle = p[std::size_t(i)];
        p[std::size_t(i)] = middle + step;
        const double above = mixture_loss(K, p, t.data(), w.data());
        p[std::size_t(i)] = middle - step;
        const double slope = (above - mixture_loss(K, p, t.data(), w.data())) / (2 * step);
        p[std::size_t(i)] = middle;
        largest = std::max(largest, std::abs(double(d[std::size_t(r * columns + i)]) - slope));
      }
    }
    check(std::abs(ours - loss) < 1e-5 && largest < 2e-5, where + " mixture density");
  }
}

}  // namespace

int main() {
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    for (const bool weighted : {false, true})
      for (const double smoothing : {0.0, 1.0 / 3}) {
        check_cross_entropy<float>(isa + " float32", weighted, smoothing);
        check_cross_entropy<double>(isa + " float64", weighted, smoothing);
      }
    check_mixture_density<float>(isa + " float32");
    check_mixture_density<double>(isa + " float64");
  }
  return report();
}
