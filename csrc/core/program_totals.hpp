// Totals over rows: what each step's rows store, added up over a block of steps at once.
#pragma once

#include <vector>

#include "gemm.hpp"
#include "program_walk.hpp"
#include "sequence.hpp"

namespace fusedrnn {

// Sums over rows, and the sequences that rows store for them over a block of steps.
template <class T>
class Totals {
 public:
  Totals(const ProgramCall<T>& call, const Ready<T>& ready, Scratch& scratch, int64_t steps)
      : call_(call), ready_(ready) {
    const Plan& plan = *call.plan;
    // Rows that need not follow each other without a gap do not lie a power of two apart.
    std::vector<bool> close(plan.deferred_widths.size());
    for (const Deferred& d : plan.deferred) {
      if (d.kind == Deferred::sum) continue;
      close[std::size_t(d.b)] = true;
      if (d.kind == Deferred::put || d.m != 1) close[std::size_t(d.a)] = true;
    }
    for (std::size_t i = 0; i < close.size(); ++i) {
      const int64_t width = plan.deferred_widths[i], stride = close[i] ? width : spread<T>(width);
      const int64_t rows = (plan.deferred_once[i] ? 1 : steps) * call.batch;
      rows_.push_back({scratch.take<T>(rows * stride + register_slack), stride});
    }
    for (const Deferred& d : plan.deferred) {
      zero(ready.shared() + d.offset, d.kind == Deferred::product ? d.columns * d.inputs
                                      : d.kind == Deferred::put   ? d.m * d.columns
                                                                  : d.columns);
      if (d.bias_offset >= 0) zero(ready.shared() + d.bias_offset, d.columns);
      sums_.push_back(d.kind == Deferred::product ? outer_sums(ready.engine().kernels, scratch, d.inputs, d.columns)
                                                  : nullptr);
    }
  }

  const std::vector<TotalRows<T>>& rows() const { return rows_; }

  // Adds what the rows stored over so many steps; or, once, after them.
  void add(int64_t steps, bool once, std::atomic<bool>& bad) const {
    const Plan& plan = *call_.plan;
    const int64_t rows = steps * call_.batch;
    std::vector<OuterProduct<T>> outers;
    for (std::size_t i = 0; i < plan.deferred.size(); ++i) {
      const Deferred& d = plan.deferred[i];
      if (d.once != once) continue;
      const auto [a, stride] = rows_[std::size_t(d.a)];
      const T* const b = rows_[std::size_t(d.b)].data;
      T* const to = ready_.shared() + d.offset;
      if (d.kind == Deferred::product)
        outers.push_back({rows * d.m, b, d.inputs, a, d.m == 1 ? stride : d.columns, d.columns, sums_[i],
                          d.bias_offset < 0 ? nullptr : ready_.shared() + d.bias_offset});
      else if (d.kind == Deferred::sum)
        add_sum(to, a, stride, rows, d.columns);
      else
        add_put(to, a, b, rows, d, bad);
    }
    if (!outers.empty()) gradient_products<T>(ready_.engine().kernels, outers, nullptr);
  }

  // Sums of products lie transposed until now.
  void finish() const {
    for (std::size_t i = 0; i < sums_.size(); ++i) {
      const Deferred& d = call_.plan->deferred[i];
      if (sums_[i])
        add_transposed(ready_.engine().kernels, ready_.shared() + d.offset, sums_[i], d.columns, 0, d.columns,
                       d.inputs);
    }
  }

 private:
  // to[columns] += rows of a, in chunks as the products' sums.
  void add_sum(T* to, const T* a, int64_t stride, int64_t rows, int64_t columns) const {
    Scratch own;
    T* const part = own.take<T>(columns + register_slack);
    for (int64_t row = 0; row < rows; row += weight_gradient_chunk) {
      zero(part, columns);
      column_sums<T>(ready_.engine().kernels, std::min(weight_gradient_chunk, rows - row), columns,
                     {a + row * stride, stride}, {}, nullptr, part);
      fusedrnn::add(to, part, columns);
    }
  }

  // to[index] += x for each of x [rows, inputs, columns], index [rows, inputs].
  static void add_put(T* to, const T* x, const T* index, int64_t rows, const Deferred& d, std::atomic<bool>& bad) {
    const Places<T> place{d.m, 1, nullptr, bad};
    for (int64_t i = 0; i < rows * d.inputs; ++i) {
      T* const out = to + place(index[i], 0) * d.columns;
      for (int64_t w = 0; w < d.columns; ++w) out[w] += x[i * d.columns + w];
    }
  }

  const ProgramCall<T>& call_;
  const Ready<T>& ready_;
  std::vector<TotalRows<T>> rows_;
  std::vector<T*> sums_;  // of products; null otherwise
};

}  // namespace fusedrnn
