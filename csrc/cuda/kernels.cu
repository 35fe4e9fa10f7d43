// All kernels of one kind of product: compiled once for each (CMakeLists.txt), with FUSEDRNN_CUDA_PRODUCT its type and
// FUSEDRNN_CUDA_KERNELS the name of the function that hands them out.
#include "launch.hpp"
#include "prepare.cuh"
#include "recurrence.cuh"

namespace fusedrnn::cuda {
namespace {

template <class Cell, template <class, int> class Exchange>
Kernels of_exchange(bool is_backward) {
  using Product = FUSEDRNN_CUDA_PRODUCT;
  if (is_backward) return {prepare<Product, Cell::gates, true>, backward<Cell, Product, Exchange>};
  return {prepare<Product, Cell::gates, false>, forward<Cell, Product, Exchange>};
}

template <class Cell>
Kernels of_cell(Tier tier, bool is_backward) {
  if (tier == Tier::grid) return of_exchange<Cell, Grid>(is_backward);
  if (tier == Tier::steps) return of_exchange<Cell, Launches>(is_backward);
  return of_exchange<Cell, Near>(is_backward);
}

}  // namespace

Kernels FUSEDRNN_CUDA_KERNELS(CellKind cell, Tier tier, bool is_backward) {
  if (cell == CellKind::rnn) return of_cell<Rnn>(tier, is_backward);
  if (cell == CellKind::lstm) return of_cell<Lstm>(tier, is_backward);
  return of_cell<Gru>(tier, is_backward);
}

}  // namespace fusedrnn::cuda
