// The products of backward that do not depend on time: gradients of weights, and dx, for a block of steps.
#pragma once

#include <algorithm>
#include <vector>

#include "pack.hpp"
#include "parallel.hpp"
#include "scratch.hpp"

namespace fusedrnn {

// sums[k, g] += sum over rows of inputs[row, k] * dgates[row, g]: the transposed gradient of one weight, in the panels
// of a dense product over the columns g.
template <class T>
struct OuterProduct {
  int64_t rows;
  const T* inputs;  // [rows, input_size]
  int64_t input_size;
  const T* dgates;  // [rows, columns] of rows with the given stride
  int64_t dgates_stride, columns;
  T* sums;       // [padded(columns) * input_size], the panel of column g at g * input_size
  T* bias_sums;  // [columns] or null
};

// Inputs whose rows lie further apart than this are packed first: they would evict each other from the cache.
constexpr int64_t packed_bytes = 512;

// All of a block's products at once. Threads share the panels of the weights' gradients, and the rows of dx: each
// element is one thread's, its terms in fixed order, so the bits do not depend on the number of threads.
template <class T>
void gradient_products(const KernelTable<T>& k, const std::vector<OuterProduct<T>>& outers, const AffineStep<T>* dx) {
  double flops = dx ? 2.0 * double(dx->rows) * double(dx->units) * double(dx->x.depth) : 0;
  for (const OuterProduct<T>& o : outers) flops += 2.0 * double(o.rows) * double(o.input_size) * double(o.columns);

  Scratch scratch;
  std::vector<const T*> packed;  // inputs of each outer product, or null: as they lie
  for (const OuterProduct<T>& o : outers) {
    packed.push_back(nullptr);
    if (o.input_size * int64_t(sizeof(T)) <= packed_bytes) continue;
    T* const to = scratch.take<T>(o.rows * o.input_size);
    const int64_t chunks = (o.rows + weight_gradient_chunk - 1) / weight_gradient_chunk;
    parallel_for(chunks, flops_per_element_moved * double(o.rows * o.input_size), [&](int64_t chunk) {
      const int64_t first = chunk * weight_gradient_chunk, rows = std::min(weight_gradient_chunk, o.rows - first);
      k.pack_inputs(rows, o.input_size, o.inputs + first * o.input_size, o.input_size, to + first * o.input_size);
    });
    packed.back() = to;
  }

  struct Task {
    std::size_t first_outer, last_outer;  // of the same sums, one after another; none: dx
    int64_t first, last;                  // columns, or rows of dx
    int vectors;
  };
  std::vector<Task> tasks;
  for (std::size_t o = 0, next; o < outers.size(); o = next) {
    for (next = o + 1; next < outers.size() && outers[next].sums == outers[o].sums;) ++next;
    const int64_t columns = outers[o].columns, vectors = padded(columns, k.lanes) / k.lanes;
    for (int64_t i = 0; i < dense_panels(vectors); ++i) {
      const int64_t first = dense_panel_first(vectors, i), last = dense_panel_first(vectors, i + 1);
      tasks.push_back({o, next, first * k.lanes, std::min(columns, last * k.lanes), int(last - first)});
    }
  }
  if (dx) {
    // Slices in which rows still share weights from the cache, several to a thread so that all end together.
    const int64_t slices = flops < parallel_flops ? 1 : std::clamp<int64_t>(dx->rows / 48, 1, 4 * num_threads());
    for (int64_t i = 0; i < slices; ++i) tasks.push_back({0, 0, dx->rows * i / slices, dx->rows * (i + 1) / slices, 0});
  }

  parallel_for(int64_t(tasks.size()), flops, [&](int64_t i) {
    const Task& task = tasks[std::size_t(i)];
    if (task.first_outer == task.last_outer) {
      AffineStep<T> step = *dx;
      step.rows = task.last - task.first;
      step.x.rows += task.first * step.x.stride;
      step.out += task.first * step.out_stride;
      return k.affine(step);
    }
    Scratch own;
    T* const strip = own.take<T>(weight_gradient_scratch);
    for (std::size_t index = task.first_outer; index < task.last_outer; ++index) {
      const OuterProduct<T>& o = outers[index];
      k.weight_gradient({.rows = o.rows,
                         .inputs = packed[index] ? packed[index] : o.inputs,
                         .input_stride = o.input_size,
                         .input_size = o.input_size,
                         .packed = packed[index] != nullptr,
                         .dgates = o.dgates + task.first,
                         .dgates_stride = o.dgates_stride,
                         .columns = task.last - task.first,
                         .vectors = task.vectors,
                         .out = o.sums + task.first * o.input_size,
                         .bias_out = o.bias_sums ? o.bias_sums + task.first : nullptr,
                         .scratch = strip});
    }
  });
}

// Zeroed sums of an outer product.
template <class T>
T* outer_sums(const KernelTable<T>& k, Scratch& scratch, int64_t input_size, int64_t columns) {
  return scratch.zeros<T>(padded(columns, k.lanes) * input_size);
}

// dweight[g, k] += sums[k, first + g] for g < count: dweight [count, input_size], sums of `columns` columns.
template <class T>
void add_transposed(const KernelTable<T>& k, T* dweight, const T* sums, int64_t columns, int64_t first, int64_t count,
                    int64_t input_size) {
  for_panels(columns, k.lanes, double(count * input_size), [&](int64_t column, int64_t width, int64_t) {
    const int64_t from = std::max(column, first), to = std::min(column + width, first + count);
    if (from < to)
      k.transpose({input_size, to - from, sums + column * input_size + from - column, width,
                   dweight + (from - first) * input_size, input_size, input_size, true});
  });
}

// products[u] += the sum over rows of a b, sums[u] += that of a, where they are wanted: threads share the columns.
template <class T>
void column_sums(const KernelTable<T>& k, int64_t rows, int64_t units, Rows<const T> a, Rows<const T> b, T* products,
                 T* sums) {
  constexpr int64_t granule = 64;  // columns, of whole lines
  if (!products && !sums) return;
  const auto from = [](auto* p, int64_t u) { return p ? p + u : nullptr; };
  const double flops = 4.0 * double(rows * units);
  const int64_t wanted = flops < parallel_flops ? 1 : std::min<int64_t>(num_threads(), (units - 1) / granule + 1);
  const int64_t piece = ((units - 1) / wanted / granule + 1) * granule;
  parallel_for((units - 1) / piece + 1, flops, [&](int64_t i) {
    const int64_t u = i * piece;
    k.column_sums({rows,
                   std::min(piece, units - u),
                   {a.data + u, a.stride},
                   {from(b.data, u), b.stride},
                   from(products, u),
                   from(sums, u)});
  });
}

template <class T>
void add(T* to, const T* from, int64_t n) {
  if (!to) return;
  for (int64_t i = 0; i < n; ++i) to[i] += from[i];
}

}  // namespace fusedrnn
