#include "cells.hpp"
#include "dispatch.hpp"
#include "gemm.hpp"
#include "pack.hpp"

namespace fusedrnn {

template <class T>
void linear_forward(int64_t rows, int64_t inputs, int64_t outputs, const T* x, const T* weight, const T* bias, T* y) {
  const KernelTable<T>& k = kernels<T>();
  Scratch scratch;
  T* const packed = scratch.take<T>(padded(outputs, k.lanes) * inputs);
  pack_rows(packed, weight, inputs, outputs, k);
  parallel_rows(rows, 2.0 * double(rows) * double(inputs * outputs), [&](int64_t a, int64_t b) {
    k.affine({b - a, outputs, {}, {x + a * inputs, inputs, packed, inputs}, bias, false, y + a * outputs, outputs});
  });
}

template <class T>
void linear_backward(int64_t rows, int64_t inputs, int64_t outputs, const T* dy, const T* x, const T* weight, T* dx,
                     T* dweight, T* dbias) {
  const KernelTable<T>& k = kernels<T>();
  Scratch scratch;
  T* const sums = outer_sums(k, scratch, inputs, outputs);
  T* const bias_sums = scratch.zeros<T>(outputs);
  T* packed = nullptr;
  if (dx) pack_columns(packed = scratch.take<T>(padded(inputs, k.lanes) * outputs), weight, outputs, inputs, k.lanes);
  const AffineStep<T> input_gradient{rows, inputs, {}, {dy, outputs, packed, outputs}, nullptr, false, dx, inputs};
  gradient_products<T>(k, {{rows, x, inputs, dy, outputs, outputs, sums, bias_sums}}, dx ? &input_gradient : nullptr);
  add_transposed(k, dweight, sums, outputs, 0, outputs, inputs);
  add(dbias, bias_sums, outputs);
}

template void linear_forward(int64_t, int64_t, int64_t, const float*, const float*, const float*, float*);
template void linear_forward(int64_t, int64_t, int64_t, const double*, const double*, const double*, double*);
template void linear_backward(int64_t, int64_t, int64_t, const float*, const float*, const float*, float*, float*,
                              float*);
template void linear_backward(int64_t, int64_t, int64_t, const double*, const double*, const double*, double*, double*,
                              double*);

}  // namespace fusedrnn
