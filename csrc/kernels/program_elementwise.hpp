// Elementwise instructions of programs: formulas over a vector type, and one pass over memory for each.
#pragma once

#include "logarithm.hpp"
#include "math.hpp"
#include "program_table.hpp"
#include "trigonometric.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

template <class V>
using MaskOf = typename Traits<V>::IntegerVector;

// 1 where the mask is set, else 0.
template <class V>
FUSEDRNN_INLINE V truth(MaskOf<V> mask) {
  return mask ? splat<V>(1) : V{};
}

template <class V>
FUSEDRNN_INLINE V absolute(V x) {
  using I = MaskOf<V>;
  return bit_cast<V>(bit_cast<I>(x) & ~bit_cast<I>(splat<V>(Scalar<V>(-0.0))));
}

// x as an integer, the nearer one: beyond 2^mantissa_bits every number is one.
template <class V>
FUSEDRNN_INLINE V nearest_integer(V x) {
  using T = Scalar<V>;
  using I = MaskOf<V>;
  const V whole = splat<V>(sizeof(T) == 4 ? T(8388608.0) : T(4503599627370496.0));
  const V magnitude = absolute(x);
  const I sign = bit_cast<I>(x) & bit_cast<I>(splat<V>(T(-0.0)));
  const V rounded = bit_cast<V>(bit_cast<I>((magnitude + whole) - whole) | sign);
  return magnitude < whole ? rounded : x;
}

template <class V>
FUSEDRNN_INLINE V floor(V x) {
  const V y = nearest_integer(x);
  return y > x ? y - splat<V>(1) : y;
}

// Towards zero, as the conversion to integers does: no -0.
template <class V>
FUSEDRNN_INLINE V truncate(V x) {
  const V magnitude = absolute(x), y = floor(magnitude);
  return x < V{} ? V{} - y : y;
}

template <class V>
FUSEDRNN_INLINE V sign(V x) {
  const V one = splat<V>(1);
  return x > V{} ? one : x < V{} ? -one : x == V{} ? V{} : x;
}

// NaN if one of them is.
template <class V>
FUSEDRNN_INLINE V maximum(V a, V b) {
  return ((a >= b) | (a != a)) ? a : b;
}

template <class V>
FUSEDRNN_INLINE V minimum(V a, V b) {
  return ((a <= b) | (a != a)) ? a : b;
}

// A name of FUSEDRNN_ELEMENTWISE, how many arrays it reads, how many vectors go side by side, and its formula.
#define FUSEDRNN_FUNCTION(name, arrays, vectors, formula)                                         \
  template <class V>                                                                              \
  struct name##_function {                                                                        \
    static constexpr int operands = arrays, unroll = vectors;                                     \
    FUSEDRNN_INLINE static V of([[maybe_unused]] V a, [[maybe_unused]] V b, [[maybe_unused]] V c, \
                                [[maybe_unused]] V k) {                                           \
      return formula;                                                                             \
    }                                                                                             \
  };

FUSEDRNN_FUNCTION(negative, 1, 4, -a)
FUSEDRNN_FUNCTION(reciprocal, 1, 2, splat<V>(1) / a)
FUSEDRNN_FUNCTION(square, 1, 4, a* a)
FUSEDRNN_FUNCTION(sqrt, 1, 2, square_root(a))
FUSEDRNN_FUNCTION(exp, 1, 1, exp(a))
FUSEDRNN_FUNCTION(expm1, 1, 1, expm1(a))
FUSEDRNN_FUNCTION(log, 1, 1, log(a))
FUSEDRNN_FUNCTION(log1p, 1, 1, log1p(a))
FUSEDRNN_FUNCTION(sin, 1, 1, sin(a))
FUSEDRNN_FUNCTION(cos, 1, 1, cos(a))
FUSEDRNN_FUNCTION(tanh, 1, 1, tanh(a))
FUSEDRNN_FUNCTION(sigmoid, 1, 1, sigmoid(a))
FUSEDRNN_FUNCTION(softplus, 1, 1, softplus(a))
FUSEDRNN_FUNCTION(relu, 1, 4, relu(a))
FUSEDRNN_FUNCTION(absolute, 1, 4, absolute(a))
FUSEDRNN_FUNCTION(sign, 1, 1, sign(a))
FUSEDRNN_FUNCTION(floor, 1, 1, floor(a))
FUSEDRNN_FUNCTION(truncate, 1, 1, truncate(a))
FUSEDRNN_FUNCTION(logical_not, 1, 4, truth<V>(a == V{}))
FUSEDRNN_FUNCTION(copy, 1, 4, a)
FUSEDRNN_FUNCTION(add, 2, 4, a + b)
FUSEDRNN_FUNCTION(subtract, 2, 4, a - b)
FUSEDRNN_FUNCTION(multiply, 2, 4, a* b)
FUSEDRNN_FUNCTION(divide, 2, 2, a / b)
FUSEDRNN_FUNCTION(maximum, 2, 4, maximum(a, b))
FUSEDRNN_FUNCTION(minimum, 2, 4, minimum(a, b))
FUSEDRNN_FUNCTION(tanh_gradient, 2, 4, a*(splat<V>(1) - b * b))
FUSEDRNN_FUNCTION(sigmoid_gradient, 2, 4, a*(b*(splat<V>(1) - b)))
FUSEDRNN_FUNCTION(less, 2, 2, truth<V>(a < b))
FUSEDRNN_FUNCTION(less_equal, 2, 2, truth<V>(a <= b))
FUSEDRNN_FUNCTION(equal, 2, 2, truth<V>(a == b))
FUSEDRNN_FUNCTION(not_equal, 2, 2, truth<V>(a != b))
FUSEDRNN_FUNCTION(logical_and, 2, 2, truth<V>((a != V{}) & (b != V{})))
FUSEDRNN_FUNCTION(logical_or, 2, 2, truth<V>((a != V{}) | (b != V{})))
FUSEDRNN_FUNCTION(where, 3, 2, a != V{} ? b : c)
FUSEDRNN_FUNCTION(multiply_add, 3, 4, a* b + c)
FUSEDRNN_FUNCTION(add_constant, 1, 4, a + k)
FUSEDRNN_FUNCTION(multiply_constant, 1, 4, a* k)
FUSEDRNN_FUNCTION(constant_subtract, 1, 4, k - a)
FUSEDRNN_FUNCTION(constant_divide, 1, 2, k / a)
FUSEDRNN_FUNCTION(maximum_constant, 1, 4, maximum(a, k))
FUSEDRNN_FUNCTION(minimum_constant, 1, 4, minimum(a, k))
FUSEDRNN_FUNCTION(less_constant, 1, 2, truth<V>(a < k))
FUSEDRNN_FUNCTION(fill, 0, 4, k)
// b is one element for all.
FUSEDRNN_FUNCTION(copy_scalar, 0, 4, b)
FUSEDRNN_FUNCTION(add_scalar, 1, 4, a + b)
FUSEDRNN_FUNCTION(subtract_scalar, 1, 4, a - b)
FUSEDRNN_FUNCTION(multiply_scalar, 1, 4, a* b)
FUSEDRNN_FUNCTION(divide_scalar, 1, 2, a / b)
FUSEDRNN_FUNCTION(scalar_subtract, 1, 4, b - a)
FUSEDRNN_FUNCTION(scalar_divide, 1, 2, b / a)
FUSEDRNN_FUNCTION(multiply_add_scalar, 3, 4, a* b + c)
#undef FUSEDRNN_FUNCTION

template <template <class> class F, class T>
void elementwise(T* out, const T* a, const T* b, const T* c, T k, int64_t n, const ElementRows& rows) {
  using V = Full<T>;
  using Function = F<V>;
  constexpr int W = full_lanes<T>, unroll = Function::unroll;
  const V constant = splat<V>(k);
  for (int64_t r = 0; r < rows.count; ++r, out += rows.out, a += rows.a, b += rows.b, c += rows.c) {
    const auto value = [&](int64_t i) {
      return Function::of(Function::operands > 0 ? load<V>(a + i) : V{}, Function::operands > 1 ? load<V>(b + i) : V{},
                          Function::operands > 2 ? load<V>(c + i) : V{}, constant);
    };
    int64_t i = 0;
    if constexpr (unroll > 1)
      for (; i + unroll * W <= n; i += unroll * W) {
        V v[unroll];
#pragma GCC unroll 4
        for (int u = 0; u < unroll; ++u) v[u] = value(i + u * W);
#pragma GCC unroll 4
        for (int u = 0; u < unroll; ++u) store(out + i + u * W, v[u]);
      }
    for (; i < n; i += W) store_first(out + i, value(i), n - i);
  }
}

// The same with one element of L rows for b. A vector of a narrow set holds some of those rows, so that vectors take
// turns; n is a multiple of L.
template <template <class> class F, int L, class T>
void with_scalar(T* out, const T* a, const T* b, const T* c, T, int64_t n, const ElementRows& rows) {
  using V = Full<T>;
  using Function = F<V>;
  constexpr int W = full_lanes<T>, turns = L > W ? L / W : 1, unroll = turns > 4 ? turns : 4;
  for (int64_t r = 0; r < rows.count; ++r, out += rows.out, a += rows.a, b += rows.b, c += rows.c) {
    V scalar[turns];
#pragma GCC unroll 8
    for (int u = 0; u < turns; ++u) scalar[u] = L == 1 ? splat<V>(b[0]) : load<V>(b + u * W);
    const auto value = [&](int64_t i, int u) {
      return Function::of(Function::operands > 0 ? load<V>(a + i) : V{}, scalar[u % turns],
                          Function::operands > 2 ? load<V>(c + i) : V{}, V{});
    };
    int64_t i = 0;
    for (; i + unroll * W <= n; i += unroll * W) {
      V v[unroll];
#pragma GCC unroll 8
      for (int u = 0; u < unroll; ++u) v[u] = value(i + u * W, u);
#pragma GCC unroll 8
      for (int u = 0; u < unroll; ++u) store(out + i + u * W, v[u]);
    }
    for (int u = 0; i < n; i += W, ++u) store_first(out + i, value(i, u), n - i);
  }
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
