// The products of backward that do not depend on time: gradients of weights, and dx, for a block of steps.
#pragma once

#include <vector>

#include "dispatch.hpp"
#include "parallel.hpp"
#include "scratch.hpp"

namespace fusedrnn {

// sums[k, g] += sum over rows of inputs[row, k] * dgates[row, g]: the transposed gradient of one weight.
template <class T>
struct OuterProduct {
  int64_t rows;
  const T* inputs;  // [rows, input_size]
  int64_t input_size;
  const T* dgates;  // [rows, columns] of rows with the given stride
  int64_t dgates_stride, columns;
  T* sums;       // [input_size, columns]
  T* bias_sums;  // [columns] or null
};

// All of a block's products at once. Threads share the columns of the weights' gradients, and the rows of dx:
// each element is one thread's, its terms in fixed order, so the bits do not depend on the number of threads.
template <class T>
void gradient_products(const std::vector<OuterProduct<T>>& outers, const AffineStep<T>* dx) {
  const KernelTable<T>& k = kernels<T>();
  double flops = dx ? 2.0 * double(dx->rows) * double(dx->units) * double(dx->x.depth) : 0;
  for (const OuterProduct<T>& o : outers) flops += 2.0 * double(o.rows) * double(o.input_size) * double(o.columns);
  const int64_t parts = flops < parallel_flops ? 1 : num_threads();
  const int64_t dx_parts = dx ? parts : 0;
  const int64_t granule = 6 * k.lanes;

  parallel_for(parts + dx_parts, flops, [&](int64_t part) {
    if (part >= parts) {
      const int64_t first = dx->rows * (part - parts) / dx_parts, last = dx->rows * (part - parts + 1) / dx_parts;
      AffineStep<T> step = *dx;
      step.rows = last - first;
      step.x.rows += first * step.x.stride;
      step.out += first * step.out_stride;
      return k.affine(step);
    }
    for (const OuterProduct<T>& o : outers) {
      if (o.rows == 0) continue;
      const int64_t granules = (o.columns + granule - 1) / granule;
      const int64_t first = std::min(o.columns, granules * part / parts * granule);
      const int64_t last = std::min(o.columns, granules * (part + 1) / parts * granule);
      if (first == last) continue;
      Scratch scratch;
      k.weight_gradient({o.rows, o.inputs, o.input_size, o.input_size, o.dgates, o.dgates_stride, first, last, o.sums,
                         o.columns, o.bias_sums, scratch.take<T>(weight_gradient_scratch(o.input_size))});
    }
  });
}

// dweight[g, k] += sums[k, first + g] for g < count: dweight [count, input_size], sums [input_size, columns].
template <class T>
void add_transposed(T* dweight, const T* sums, int64_t columns, int64_t first, int64_t count, int64_t input_size) {
  constexpr int64_t tile = 16;
  for (int64_t g0 = 0; g0 < count; g0 += tile)
    for (int64_t k0 = 0; k0 < input_size; k0 += tile)
      for (int64_t g = g0; g < std::min(count, g0 + tile); ++g)
        for (int64_t k = k0; k < std::min(input_size, k0 + tile); ++k)
          dweight[g * input_size + k] += sums[k * columns + first + g];
}

template <class T>
void add(T* to, const T* from, int64_t n) {
  if (!to) return;
  for (int64_t i = 0; i < n; ++i) to[i] += from[i];
}

// The hidden states that entered the steps [first, last) beside their dgates rows: y shifted by one step, and h0
// where the sequence starts. `dgates` holds the block's times ascending, `stride` elements a row.
template <class T, class F>
void for_previous_states(const Shape& s, bool reverse, int64_t first, int64_t last, int64_t time_from, const T* h0,
                         const T* y, const T* dgates, int64_t stride, F f) {
  const int64_t row = s.batch * s.hidden, steps = last - first;
  const bool starts = first == 0;
  const int64_t own = steps - (starts ? 1 : 0);  // steps whose previous state is in y
  if (starts) f(s.batch, h0, dgates + (reverse ? (steps - 1) * s.batch * stride : 0));
  if (own == 0) return;
  const int64_t skip = starts && !reverse ? 1 : 0;  // the block's first time has h0
  const int64_t from = time_from + skip;
  f(own * s.batch, y + (reverse ? from + 1 : from - 1) * row, dgates + skip * s.batch * stride);
}

}  // namespace fusedrnn
