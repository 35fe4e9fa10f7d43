// Elementwise instructions of programs on every instruction set that this processor runs: each against the C library in
// higher precision, at every length, in place, and for the numbers where formulas like to fail.
#include <cmath>
#include <limits>

#include "../../csrc/core/dispatch.hpp"
#include "checks.hpp"

using namespace fusedrnn;

namespace {

using Real = long double;
const Real nan = std::numeric_limits<Real>::quiet_NaN();

struct Instruction {
  Elementwise code;
  const char* name;
  int operands;
  double ulp;  // 0: exact
  Real (*truth)(Real a, Real b, Real c, Real k);
};

Real largest(Real a, Real b) { return std::isnan(a) || std::isnan(b) ? nan : a >= b ? a : b; }
Real smallest(Real a, Real b) { return std::isnan(a) || std::isnan(b) ? nan : a <= b ? a : b; }

#define INSTRUCTION(name, operands, ulp, formula)                                                                   \
  {Elementwise::name, #name, operands, ulp,                                                                         \
   []([[maybe_unused]] Real a, [[maybe_unused]] Real b, [[maybe_unused]] Real c, [[maybe_unused]] Real k) -> Real { \
     return formula;                                                                                                \
   }}

// Sums and products of one rounding are within half an ulp; the bounds of functions are those of kernels/*.hpp.
const Instruction instructions[] = {
    INSTRUCTION(negative, 1, 0, -a),
    INSTRUCTION(reciprocal, 1, 0.5, 1 / a),
    INSTRUCTION(square, 1, 0.5, a* a),
    INSTRUCTION(sqrt, 1, 0.5, std::sqrt(a)),
    INSTRUCTION(exp, 1, 1.25, std::exp(a)),
    INSTRUCTION(expm1, 1, 2.25, std::expm1(a)),
    INSTRUCTION(log, 1, 1, std::log(a)),
    INSTRUCTION(log1p, 1, 1, std::log1p(a)),
    INSTRUCTION(sin, 1, 2, std::sin(a)),
    INSTRUCTION(cos, 1, 2, std::cos(a)),
    INSTRUCTION(tanh, 1, 3, std::tanh(a)),
    INSTRUCTION(sigmoid, 1, 2.5, 1 / (1 + std::exp(-a))),
    INSTRUCTION(softplus, 1, 3.5, std::isnan(a) ? a : (a > 0 ? a : 0) + std::log1p(std::exp(-std::abs(a)))),
    INSTRUCTION(relu, 1, 0, a < 0 ? 0 : a),
    INSTRUCTION(absolute, 1, 0, std::abs(a)),
    INSTRUCTION(sign, 1, 0,
                a > 0    ? 1
                : a < 0  ? -1
                : a == 0 ? 0
                         : a),
    INSTRUCTION(floor, 1, 0, std::floor(a)),
    INSTRUCTION(truncate, 1, 0, std::trunc(a) + 0),
    INSTRUCTION(logical_not, 1, 0, a == 0),
    INSTRUCTION(copy, 1, 0, a),
    INSTRUCTION(add, 2, 0.5, a + b),
    INSTRUCTION(subtract, 2, 0.5, a - b),
    INSTRUCTION(multiply, 2, 0.5, a* b),
    INSTRUCTION(divide, 2, 0.5, a / b),
    INSTRUCTION(maximum, 2, 0, largest(a, b)),
    INSTRUCTION(minimum, 2, 0, smallest(a, b)),
    INSTRUCTION(less, 2, 0, a < b),
    INSTRUCTION(less_equal, 2, 0, a <= b),
    INSTRUCTION(equal, 2, 0, a == b),
    INSTRUCTION(not_equal, 2, 0, a != b),
    INSTRUCTION(logical_and, 2, 0, a != 0 && b != 0),
    INSTRUCTION(logical_or, 2, 0, a != 0 || b != 0),
    INSTRUCTION(where, 3, 0, a != 0 ? b : c),
    INSTRUCTION(add_constant, 1, 0.5, a + k),
    INSTRUCTION(multiply_constant, 1, 0.5, a* k),
    INSTRUCTION(constant_subtract, 1, 0.5, k - a),
    INSTRUCTION(constant_divide, 1, 0.5, k / a),
    INSTRUCTION(maximum_constant, 1, 0, largest(a, k)),
    INSTRUCTION(minimum_constant, 1, 0, smallest(a, k)),
    INSTRUCTION(less_constant, 1, 0, a < k),
    INSTRUCTION(fill, 0, 0, k),
};

// Roundings on the way that no ulp of the result bounds: those of the formula itself, in the precision under test.
template <class T>
bool by_formula(Elementwise code, T a, T b, T c, T& value) {
  volatile T part = 0;  // so that nothing is fused
  switch (code) {
    case Elementwise::tanh_gradient:
      part = b * b;
      part = T(1) - part;
      value = a * part;
      return true;
    case Elementwise::sigmoid_gradient:
      part = T(1) - b;
      part = b * part;
      value = a * part;
      return true;
    case Elementwise::multiply_add:
      part = a * b;
      value = part + c;
      return true;
    default:
      return false;
  }
}

template <class T>
bool same_number(T a, T b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

// Whether `got` is the truth within some ulp; results below the normal numbers may be zero.
template <class T>
bool close(T got, Real truth, double ulp) {
  const T rounded = T(truth);
  if (std::isnan(rounded) || std::isinf(rounded) || ulp == 0) return same_number(got, rounded);
  if (std::abs(rounded) < std::numeric_limits<T>::min()) return std::abs(got) <= std::numeric_limits<T>::min();
  const T next = std::nextafter(std::abs(rounded), std::numeric_limits<T>::infinity());
  const Real spacing = Real(next) - Real(std::abs(rounded));
  return std::abs(Real(got) - truth) <= Real(ulp) * spacing * (1 + Real(1e-3));
}

constexpr std::size_t slack = 64 / sizeof(float);

// Numbers of all kinds: small and large, whole and half, equal in several operands, and the special ones.
template <class T>
std::vector<T> numbers(unsigned seed, std::size_t n) {
  std::mt19937 generator(seed);
  const T limit = std::numeric_limits<T>::infinity(), whole = sizeof(T) == 4 ? T(8388608) : T(4503599627370496.0);
  const T special[] = {0,       T(-0.0),  1,      -1,     limit,          -limit,     T(nan),
                       T(0.5),  T(-0.5),  T(2.5), whole,  whole - T(0.5), -whole - 1, whole / 2 + T(0.5),
                       T(1e-8), T(-1e-8), T(3e5), T(1e6), T(88.5),        T(-90),     T(1e30)};
  constexpr std::size_t count = sizeof special / sizeof *special;
  std::vector<T> v(n + slack, T(0));
  std::uniform_real_distribution<double> unit(-1, 1);
  std::uniform_int_distribution<std::size_t> any(0, count - 1), kind(0, 5);
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t k = kind(generator);
    const double scale = k == 1 ? 1 : k == 2 ? 10 : k == 3 ? 100 : k == 4 ? 1e4 : 1e-3;
    v[i] = k == 0 ? special[any(generator)] : T(unit(generator) * scale);
  }
  return v;
}

template <class T>
void check_values(const std::string& isa) {
  const std::string where = isa + (sizeof(T) == 4 ? " float " : " double ");
  const ProgramKernels<T>& kernels = program_kernels<T>();
  constexpr std::size_t n = 6000;
  const std::vector<T> a = numbers<T>(1, n), b = numbers<T>(2, n), c = numbers<T>(3, n);
  const T constant = T(0.75);
  const auto run = [&](Elementwise code, const T* from_a, const T* from_b, const T* from_c, T* out, std::size_t count) {
    kernels.elementwise[int(code)](out, from_a, from_b, from_c, constant, int64_t(count), {1, 0, 0, 0, 0});
  };
  const auto lengths_and_places = [&](Elementwise code, const std::string& name, const std::vector<T>& whole) {
    for (const std::size_t length : {1, 7, 15, 16, 17, 33, 67}) {
      std::vector<T> out(length + slack, T(7));
      run(code, a.data() + 5, b.data() + 5, c.data() + 5, out.data(), length);
      bool good = true;
      for (std::size_t i = 0; i < length; ++i) good = good && same_number(out[i], whole[i + 5]);
      for (std::size_t i = length; i < out.size(); ++i) good = good && out[i] == T(7);
      check(good, name + " at length " + std::to_string(length));
    }
    for (int alias = 0; alias < 3; ++alias) {
      std::vector<T> in[3] = {a, b, c};
      run(code, in[0].data(), in[1].data(), in[2].data(), in[alias].data(), n);
      bool good = true;
      for (std::size_t i = 0; i < n; ++i) good = good && same_number(in[alias][i], whole[i]);
      check(good, name + " in place of operand " + std::to_string(alias));
    }
  };
  for (const Instruction& instruction : instructions) {
    std::vector<T> out(n + slack, T(7));
    run(instruction.code, instruction.operands > 0 ? a.data() : nullptr, instruction.operands > 1 ? b.data() : nullptr,
        instruction.operands > 2 ? c.data() : nullptr, out.data(), n);
    std::size_t wrong = n;
    for (std::size_t i = n; i-- > 0;)
      if (!close(out[i], instruction.truth(a[i], b[i], c[i], constant), instruction.ulp)) wrong = i;
    std::string what = where + instruction.name;
    if (wrong < n)
      what += " of " + std::to_string(a[wrong]) + ", " + std::to_string(b[wrong]) + ": " + std::to_string(out[wrong]);
    check(wrong == n, what);
    lengths_and_places(instruction.code, where + instruction.name, out);
  }
  for (const Elementwise code :
       {Elementwise::tanh_gradient, Elementwise::sigmoid_gradient, Elementwise::multiply_add}) {
    std::vector<T> out(n + slack, T(7));
    run(code, a.data(), b.data(), c.data(), out.data(), n);
    bool good = true;
    T wanted = 0;
    for (std::size_t i = 0; i < n; ++i)
      good = good && by_formula(code, a[i], b[i], c[i], wanted) && same_number(out[i], wanted);
    const std::string name = where + "formula " + std::to_string(int(code));
    check(good, name);
    lengths_and_places(code, name, out);
  }
  check(sizeof instructions / sizeof *instructions + 3 == std::size_t(Elementwise::count), "each instruction is here");
}

}  // namespace

int main() {
  for (const std::string& isa : available_isas()) {
    if (isa == "avx512_bf16_vnni") continue;  // programs are avx512's
    set_isa(isa);
    check_values<float>(isa);
    check_values<double>(isa);
  }
  return report();
}
