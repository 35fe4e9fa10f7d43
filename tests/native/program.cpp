// Instructions of programs that reckon within a row, on every instruction set that this processor runs: sums and
// products in the order that kernels/program_table.hpp states.
#include <numeric>

#include "program_rows.hpp"

namespace {

constexpr int64_t sizes[] = {1, 2, 7, 15, 16, 17, 33};

// f(first element, output's index) for each row of an axis, whose elements lie axis.inner apart.
template <class F>
void along(const Axis& axis, F f) {
  for (int64_t o = 0; o < axis.outer; ++o)
    for (int64_t i = 0; i < axis.inner; ++i) f(o * axis.n * axis.inner + i, o * axis.inner + i);
}

// In 16 chains; add(i, sum) is a chain's sum with the i-th term.
template <class T>
T sum_in_order(const std::function<T(int64_t, T)>& add, int64_t n) {
  T chain[16] = {};
  for (int64_t i = 0; i < n; ++i) chain[i % 16] = add(i, chain[i % 16]);
  for (const int apart : {8, 4, 2, 1})
    for (int c = 0; c < apart; ++c) chain[c] += chain[c + apart];
  return chain[0];
}

template <class T>
void check_axes(const std::string& where) {
  Maker<T> make;
  for (const int64_t outer : {1, 3, 17})
    for (const int64_t n : {1, 2, 7, 15, 16, 17, 33, 50})
      for (const int64_t inner : {1, 5, 16, 19}) {
        const Axis axis{outer, n, inner};
        const int64_t all = outer * n * inner, some = outer * inner;
        const std::string shape =
            " [" + std::to_string(outer) + ", " + std::to_string(n) + ", " + std::to_string(inner) + "]";
        const Sixteen<T> x = make.rows(all);
        const auto at = [axis](const Row<T>& v, int64_t first, int64_t i) {
          return v[std::size_t(first + i * axis.inner)];
        };
        compare<T>(
            where + "sum" + shape, {x}, zeros<T>(some), [&](auto& k, T* out, auto& in) { k.sum(out, in[0], axis); },
            [&](Row<T>& out, const Sixteen<T>& in) {
              along(axis, [&](int64_t first, int64_t to) {
                out[std::size_t(to)] = sum_in_order<T>([&](int64_t i, T sum) { return sum + at(in[0], first, i); }, n);
              });
            });
        compare<T>(
            where + "inner" + shape, {x, make.rows(all)}, zeros<T>(some),
            [&](auto& k, T* out, auto& in) { k.inner(out, in[0], in[1], axis); },
            [&](Row<T>& out, const Sixteen<T>& in) {
              along(axis, [&](int64_t first, int64_t to) {
                out[std::size_t(to)] = sum_in_order<T>(
                    [&](int64_t i, T sum) { return fma_as_kernels(at(in[0], first, i), at(in[1], first, i), sum); }, n);
              });
            });
        for (const bool nan : {false, true}) {
          Sixteen<T> ties = make.ties(all, nan);
          const auto greater = [](T a, T b) { return a > b || (std::isnan(a) && !std::isnan(b)); };
          const auto place_of_largest = [&](const Row<T>& v, int64_t first) {
            int64_t best = 0;
            for (int64_t i = 1; i < n; ++i)
              if (greater(at(v, first, i), at(v, first, best))) best = i;
            return best;
          };
          compare<T>(
              where + "argmax" + shape, {ties}, zeros<T>(some),
              [&](auto& k, T* out, auto& in) { k.argmax(out, in[0], axis); },
              [&](Row<T>& out, const Sixteen<T>& in) {
                along(axis,
                      [&](int64_t first, int64_t to) { out[std::size_t(to)] = T(place_of_largest(in[0], first)); });
              });
          compare<T>(
              where + "argsort" + shape, {ties}, zeros<T>(all),
              [&](auto& k, T* out, auto& in) { k.argsort(out, in[0], axis); },
              [&](Row<T>& out, const Sixteen<T>& in) {
                along(axis, [&](int64_t first, int64_t) {
                  std::vector<int64_t> order(std::size_t(n), 0);
                  std::iota(order.begin(), order.end(), 0);
                  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
                    return greater(at(in[0], first, j), at(in[0], first, i));
                  });
                  for (int64_t i = 0; i < n; ++i) out[std::size_t(first + i * inner)] = T(order[std::size_t(i)]);
                });
              });
          for (Row<T>& row : ties)
            for (T& v : row) v = v == 0 ? T(0) : v;  // of two zeros either may be the largest
          compare<T>(
              where + "max" + shape, {ties}, zeros<T>(some),
              [&](auto& k, T* out, auto& in) { k.max(out, in[0], axis); },
              [&](Row<T>& out, const Sixteen<T>& in) {
                along(axis, [&](int64_t first, int64_t to) {
                  out[std::size_t(to)] = at(in[0], first, place_of_largest(in[0], first));
                });
              });
        }
        for (const bool reverse : {false, true})
          compare<T>(
              where + "recurrence" + shape, {make.rows(all, 1), x}, zeros<T>(all),
              [&](auto& k, T* out, auto& in) { k.recurrence(out, in[0], in[1], axis, reverse); },
              [&](Row<T>& out, const Sixteen<T>& in) {
                along(axis, [&](int64_t first, int64_t) {
                  T y = 0;
                  for (int64_t i = 0; i < n; ++i) {
                    const int64_t place = first + (reverse ? n - 1 - i : i) * inner;
                    const T a = in[0][std::size_t(place)], b = in[1][std::size_t(place)];
                    y = i ? fma_as_kernels(a, y, b) : b;
                    out[std::size_t(place)] = y;
                  }
                });
              });
      }
}

// Elementwise with one element beside all: f(a[i], b, c[i]), to an array of its own or in place of one.
template <class T>
void check_with_scalar(const std::string& where) {
  using Formula = T (*)(T a, T b, T c);
  const Formula formulas[int(WithScalar::count)] = {
      [](T, T b, T) { return b; },
      [](T a, T b, T) { return a + b; },
      [](T a, T b, T) { return a - b; },
      [](T a, T b, T) { return a * b; },
      [](T a, T b, T) { return a / b; },
      [](T a, T b, T) { return b - a; },
      [](T a, T b, T) { return b / a; },
      [](T a, T b, T c) {
        volatile T product = a * b;
        return T(product + c);
      },
  };
  Maker<T> make;
  for (int code = 0; code < int(WithScalar::count); ++code)
    for (const int64_t n : {1, 7, 16, 33, 130})
      for (const bool in_place : {false, true}) {
        const Sixteen<T> start = make.rows(n);
        compare<T>(
            where + "elementwise with one element, code " + std::to_string(code), {make.rows(n), make.rows(1)}, start,
            [&](auto& k, T* out, auto& in) {
              const int64_t L = &k == &program_kernels<T>().lanes[0] ? 1 : lanes;
              k.with_scalar[code](out, in_place ? out : in[0], in[1], out, T(0), n * L, {1, 0, 0, 0, 0});
            },
            [&](Row<T>& out, const Sixteen<T>& in) {
              for (std::size_t i = 0; i < out.size(); ++i)
                out[i] = formulas[code](in_place ? out[i] : in[0][i], in[1][0], out[i]);
            });
      }
}

// The bits of both layouts, and the values to rounding.
template <class T>
void check_softmax(const std::string& where) {
  Maker<T> make;
  for (const int64_t n : sizes)
    for (const int64_t inner : {1, 5, 16}) {
      const Axis axis{3, n, inner};
      Sixteen<T> x = make.rows(3 * n * inner, 6), one_by_one = x;
      for (Row<T>& row : one_by_one) {
        Block<T> in(row.size()), out(row.size());
        std::copy(row.begin(), row.end(), in.data.begin());
        program_kernels<T>().lanes[0].softmax(out.data.data(), in.data.data(), axis);
        const Row<T> given = row;
        std::copy(out.data.begin(), out.data.begin() + int64_t(row.size()), row.begin());
        bool good = true;
        along(axis, [&](int64_t first, int64_t) {
          double sum = 0;
          for (int64_t i = 0; i < n; ++i) sum += std::exp(double(given[std::size_t(first + i * inner)]));
          for (int64_t i = 0; i < n; ++i) {
            const std::size_t at = std::size_t(first + i * inner);
            const double wanted = std::exp(double(given[at])) / sum;
            good =
                good && std::abs(double(row[at]) - wanted) <= wanted * 32 * double(std::numeric_limits<T>::epsilon());
          }
        });
        check(good, where + "softmax of " + std::to_string(n));
      }
      std::size_t row = 0;
      compare<T>(
          where + "softmax of " + std::to_string(n), {x}, zeros<T>(3 * n * inner),
          [&](auto& k, T* out, auto& in) { k.softmax(out, in[0], axis); },
          [&](Row<T>& out, const Sixteen<T>&) { out = one_by_one[row++]; });
    }
}

template <class T>
void check_long_sort(const std::string& where) {
  constexpr int64_t n = 1500;
  Maker<T> make;
  compare<T>(
      where + "argsort of 1500", {make.ties(n, true)}, zeros<T>(n),
      [&](auto& k, T* out, auto& in) { k.argsort(out, in[0], Axis{1, n, 1}); },
      [&](Row<T>& out, const Sixteen<T>& in) {
        std::iota(out.begin(), out.end(), T(0));
        std::stable_sort(out.begin(), out.end(), [&](T i, T j) {
          const T a = in[0][std::size_t(i)], b = in[0][std::size_t(j)];
          return a < b || (std::isnan(b) && !std::isnan(a));
        });
      });
}

struct Shape {
  int64_t batch, m, n, k;
};

template <class T>
void check_products(const std::string& where) {
  Maker<T> make;
  std::vector<Shape> shapes{{1, 128, 20, 1}, {1, 1, 20, 128}, {1, 40, 1, 20}, {2, 5, 6, 300}, {3, 4, 4, 0}};
  for (const int64_t m : {1, 4, 7, 17, 33})
    for (const int64_t n : {1, 3, 16, 35})
      for (const int64_t k : {1, 7, 16, 33, 70}) shapes.push_back({2, m, n, k});
  for (const Shape& s : shapes)
    for (int layout = 0; layout < 16; ++layout) {
      const bool a_turned = layout & 1, b_turned = layout & 2, out_turned = layout & 4, add = layout & 8;
      RowProduct p{};
      p.batch = s.batch, p.m = s.m, p.n = s.n, p.k = s.k, p.add = add;
      p.a_batch = layout & 1 ? 0 : s.m * s.k;  // the same for all of the batch, at times
      p.b_batch = s.k * s.n, p.out_batch = s.m * s.n;
      p.a_m = a_turned ? 1 : s.k, p.a_k = a_turned ? s.m : 1;
      p.b_k = b_turned ? 1 : s.n, p.b_n = b_turned ? s.k : 1;
      p.out_m = out_turned ? 1 : s.n, p.out_n = out_turned ? s.m : 1;
      const Sixteen<T> start = add ? make.rows(s.batch * s.m * s.n) : zeros<T>(s.batch * s.m * s.n);
      compare<T>(
          where + "product " + std::to_string(s.m) + " x " + std::to_string(s.n) + " over " + std::to_string(s.k) +
              " in layout " + std::to_string(layout),
          {make.rows(s.batch * s.m * s.k), make.rows(s.batch * s.k * s.n)}, start,
          [&](auto& k, T* out, auto& in) { k.product(out, in[0], in[1], p); },
          [&](Row<T>& out, const Sixteen<T>& in) {
            for (int64_t b = 0; b < s.batch; ++b)
              for (int64_t i = 0; i < s.m; ++i)
                for (int64_t j = 0; j < s.n; ++j) {
                  T& y = out[std::size_t(b * p.out_batch + i * p.out_m + j * p.out_n)];
                  const auto add = [&](int64_t k, T sum) {
                    return fma_as_kernels(in[0][std::size_t(b * p.a_batch + i * p.a_m + k * p.a_k)],
                                          in[1][std::size_t(b * p.b_batch + k * p.b_k + j * p.b_n)], sum);
                  };
                  if ((s.m == 1 || s.n == 1) && s.k >= 32)
                    y += sum_in_order<T>(add, s.k);
                  else
                    for (int64_t k = 0; k < s.k; ++k) y = add(k, y);
                }
          });
    }
}

template <class T>
void check_lane_affine(const std::string& where) {
  Maker<T> make;
  const ProgramKernels<T>& kernels = program_kernels<T>();
  for (const int64_t units : {1, 3, 12, 20, 31})
    for (const int64_t depth : {1, 7, 33})
      for (const int64_t blocks : {1, 2, 3})
        for (const int64_t m : {1, 3})
          for (int start = 0; start < 3; ++start) {  // zero, bias, out
            const bool turned = depth == 7;
            const int64_t gap = 5, x_block = m * depth * lanes + gap, out_block = m * units * lanes + gap;
            const std::vector<T> w = random<T>(make.generator, units * depth, 1),
                                 bias = random<T>(make.generator, units, 1);
            const std::vector<T> x = random<T>(make.generator, blocks * x_block + 16, 1);
            std::vector<T> packed(std::size_t(units * depth), T(0));
            const int64_t stride_unit = turned ? 1 : depth, stride_depth = turned ? units : 1;
            kernels.pack_lane_weights(packed.data(), w.data(), units, depth, stride_unit, stride_depth);
            std::vector<T> out = random<T>(make.generator, blocks * out_block + 16, 1), wanted = out;
            for (int64_t b = 0; b < blocks; ++b)
              for (int64_t i = 0; i < m; ++i)
                for (int64_t u = 0; u < units; ++u)
                  for (int64_t l = 0; l < lanes; ++l) {
                    T& y = wanted[std::size_t(b * out_block + (i * units + u) * lanes + l)];
                    if (start < 2) y = start ? bias[std::size_t(u)] : T(0);
                    for (int64_t k = 0; k < depth; ++k)
                      y = fma_as_kernels(w[std::size_t(u * stride_unit + k * stride_depth)],
                                         x[std::size_t(b * x_block + (i * depth + k) * lanes + l)], y);
                  }
            kernels.lane_affine({blocks, m, units, depth, x.data(), x_block, packed.data(),
                                 start == 1 ? bias.data() : nullptr, start == 2, out.data(), out_block});
            check(same_bits(out, wanted), where + "lane affine of " + std::to_string(units) + " units");
          }
}

}  // namespace

int main() {
  each_set([](auto type, const std::string& where) {
    using T = decltype(type);
    check_axes<T>(where);
    check_with_scalar<T>(where);
    check_softmax<T>(where);
    check_long_sort<T>(where);
    check_products<T>(where);
    check_lane_affine<T>(where);
  });
  return report();
}
