// The contract between core and kernels for programs (core/program.hpp): what an instruction does to one block of L
// rows.
//
// A value of a block lies [width][L]: element by element, the block's rows innermost. L is 1, or `program_lanes`, so
// that vectors hold one element of many rows. Most kernels see an element of L rows as L elements, and so serve both;
// those that sum do it in an order that depends on the shape alone, which gives a row the same bits in either.
//
// Memory of values ends with room for a vector: kernels may read, never write, past the last element.
#pragma once

#include <cstdint>

namespace fusedrnn {

constexpr int program_lanes = 16;  // L where rows are many, on every instruction set and for both scalar types

// Elementwise instructions; `k` is a constant of the program. python/fusedrnn/scan/plan.py takes the numbers from
// the module.
// clang-format off
#define FUSEDRNN_ELEMENTWISE(X)                                                                                       \
  X(negative) X(reciprocal) X(square) X(sqrt) X(exp) X(expm1) X(log) X(log1p) X(sin) X(cos) X(tanh) X(sigmoid)         \
  X(softplus) X(relu) X(absolute) X(sign) X(floor) X(truncate) X(logical_not) X(copy)                                  \
  X(add) X(subtract) X(multiply) X(divide) X(maximum) X(minimum) X(tanh_gradient) X(sigmoid_gradient)                  \
  X(less) X(less_equal) X(equal) X(not_equal) X(logical_and) X(logical_or)                                             \
  X(where) X(multiply_add)                /* a != 0 ? b : c; a b + c, rounded twice, as multiply and add would */      \
  X(add_constant) X(multiply_constant)    /* a + k; a k */                                                             \
  X(constant_subtract) X(constant_divide) /* k - a; k / a */                                                           \
  X(maximum_constant) X(minimum_constant) X(less_constant) X(fill) /* a < k; k */
// clang-format on

enum class Elementwise : int32_t {
#define FUSEDRNN_NAME(name) name,
  FUSEDRNN_ELEMENTWISE(FUSEDRNN_NAME)
#undef FUSEDRNN_NAME
      count
};

// The same where b is one element of L rows for all i: f(a[i], b, c[i]).
// clang-format off
#define FUSEDRNN_WITH_SCALAR(X)                                                                                        \
  X(copy_scalar)                          /* b */                                                                      \
  X(add_scalar) X(subtract_scalar) X(multiply_scalar) X(divide_scalar) /* a + b, a - b, a b, a / b */                  \
  X(scalar_subtract) X(scalar_divide)     /* b - a, b / a */                                                           \
  X(multiply_add_scalar)                  /* a b + c */
// clang-format on

enum class WithScalar : int32_t {
#define FUSEDRNN_NAME(name) name,
  FUSEDRNN_WITH_SCALAR(FUSEDRNN_NAME)
#undef FUSEDRNN_NAME
      count
};

// Rows of elements: how many, and the way from one to the next of out, a, b and c.
struct ElementRows {
  int64_t count, out, a, b, c;
};

// out[i] = f(a[i], b[i], c[i], k) for i < n, in each of the rows. out may be a, b or c itself, never a part of them
// that lies otherwise.
template <class T>
using ElementwiseKernel = void (*)(T* out, const T* a, const T* b, const T* c, T k, int64_t n, const ElementRows& rows);

// Moves of elements: for each place of `dims` axes out[place . out_stride] = (or +=) in[place . in_stride]. Sizes and
// strides count elements of L rows; a stride may be 0 (in: a broadcast) or negative; the last axis is the innermost.
constexpr int move_dims = 6;
struct Move {
  int32_t dims;
  bool add;
  int64_t size[move_dims], out_stride[move_dims], in_stride[move_dims];
};

// A part of a broadcast's result: the elements [first, first + count) of an array of the given size in C order.
struct Broadcast {
  int32_t dims;
  int64_t size[move_dims], stride[move_dims];
};

// Over the middle axis of in [outer, n, inner], elements of L rows.
struct Axis {
  int64_t outer, n, inner;
};

// out[b] [m, n] = (or +=) a[b] [m, k] times b[b] [k, n] for each b of the batch, within each row. Strides count
// elements of L rows and may be 0. One chain of multiply-adds for each result, by ascending k, from 0 (or out); where
// m or n is 1 and k at least 32, 16 chains (k mod 16) from 0, added as those of sums are, and then to out.
struct RowProduct {
  int64_t batch, m, n, k;
  int64_t a_batch, a_m, a_k, b_batch, b_k, b_n, out_batch, out_m, out_n;
  bool add;
};

// out [blocks][m][units][L] = (bias | out | 0) + x [blocks][m][depth][L] times shared weights, each result one chain:
// its start, then k ascending. For L = program_lanes; with L = 1 the affine kernel of kernels/table.hpp does it.
template <class T>
struct LaneAffine {
  int64_t blocks, m, units, depth;
  const T* x;
  int64_t x_block;   // elements from one block to the next
  const T* weights;  // packed by pack_lane_weights
  const T* bias;     // [units] or null
  bool add;          // start from out; bias is null then
  T* out;
  int64_t out_block;
};

// Weights as LaneAffine reads them: tiles of lane_tile units, [tile][depth][units of the tile], the last tile narrower.
constexpr int64_t lane_tile = 12;

template <class T>
struct ProgramKernels {
  ElementwiseKernel<T> elementwise[int(Elementwise::count)];
  // The rest for L = 1 and L = program_lanes.
  struct ForLanes {
    ElementwiseKernel<T> with_scalar[int(WithScalar::count)];
    void (*move)(T* out, const T* in, const Move& move);
    // out has room for a vector beyond its end, which may be written.
    void (*broadcast)(T* out, const T* in, const Broadcast& pattern, int64_t first, int64_t count);
    // Sums: 16 chains (index mod 16) that start from +0, added in pairs whose members are 8, 4, 2, 1 apart. Largest:
    // NaN where one is.
    void (*sum)(T* out, const T* in, Axis axis);
    void (*inner)(T* out, const T* x, const T* y, Axis axis);  // the sum of x y: chains of multiply-adds
    void (*max)(T* out, const T* in, Axis axis);
    void (*argmax)(T* out, const T* in, Axis axis);   // the first largest; a NaN counts as the largest, as in NumPy
    void (*argsort)(T* out, const T* in, Axis axis);  // places in ascending order, stable, NaN last
    void (*softmax)(T* out, const T* in, Axis axis);  // with the sum's order
    // out_i = a_i out_(i-1) + b_i by one fused multiply-add, from out_0 = b_0; with reverse from the end.
    void (*recurrence)(T* out, const T* a, const T* b, Axis axis, bool reverse);
    void (*product)(T* out, const T* a, const T* b, const RowProduct& shape);
    // Between rows [rows, width] of a stride, rows <= L, and a block [width][L]. Lanes past the rows get the last row's
    // numbers, so that they stay harmless; store leaves them out, and writes zeros for rows whose `alive` (L of them,
    // or null) is zero. load reads zeros there.
    void (*load)(T* block, const T* from, int64_t stride, int64_t rows, int64_t width, const T* alive);
    void (*store)(T* to, int64_t stride, int64_t rows, const T* block, int64_t width, const T* alive);
    // out = alive[lane] != 0 ? a : b over [width][L].
    void (*select)(T* out, const T* alive, const T* a, const T* b, int64_t width);
    // Uniform numbers in [0, 1): element u of lane l is word u of (seed, row + l, step, stream), kernels/random.hpp.
    void (*uniform)(T* out, int64_t width, uint64_t seed, uint32_t row, uint32_t step, uint32_t stream);
  } lanes[2];
  // From element (unit, k) at unit * stride_unit + k * stride_depth to units * depth elements.
  void (*pack_lane_weights)(T* to, const T* weights, int64_t units, int64_t depth, int64_t stride_unit,
                            int64_t stride_depth);
  void (*lane_affine)(const LaneAffine<T>& step);
};

}  // namespace fusedrnn
