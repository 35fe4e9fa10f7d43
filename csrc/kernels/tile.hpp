// The register tile that every product here goes through: R rows times P vectors of accumulators, start values
// from bias or memory, one chain of fused multiply-adds per output (x by ascending k, then h), and a cell's
// epilogue while the sums are still in registers.
//
// A row's chain is the same whatever tile it falls into, and a partial sum that is stored and reloaded is the
// same number: that is why results do not depend on batch, row order, blocking or threads.
#pragma once

#include "simd.hpp"
#include "table.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

// Rows per tile for P accumulators a row: they, P weights (or R broadcasts) and one more must fit the registers.
constexpr int tile_rows(int vectors) {
  if (vector_registers == 32) return vectors == 4 ? 6 : 8;
  return vectors == 4 ? 3 : vectors == 1 ? 8 : 4;
}

// Packed weights of one panel that should stay in the L1 cache while the rows pass by.
constexpr int64_t panel_bytes = 16384;

// acc[r][index(p)] += a[r, k] * w[k][p] for k < depth, where the last of the X vectors goes to acc[r][Last].
template <int X, int Last, class V, int R, int P>
FUSEDRNN_INLINE void accumulate(V (&acc)[R][P], const Scalar<V>* a, int64_t stride, const Scalar<V>* w, int64_t depth) {
  for (int64_t k = 0; k < depth; ++k) {
    V b[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) b[r] = splat<V>(a[r * stride + k]);
#pragma GCC unroll 8
    for (int p = 0; p < X; ++p) {
      const V v = load<V>(w + (k * X + p) * lanes_of<V>);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const int q = p == X - 1 ? Last : p;
        acc[r][q] = fma(b[r], v, acc[r][q]);
      }
    }
  }
}

// The part of a tile's work that does not change from row group to row group.
struct PanelRange {
  int64_t unit;                        // first unit of the panel
  int64_t x_from, x_to, h_from, h_to;  // this block of the sum
  bool first, last;                    // block
};

// A Cell offers: V, P of its accumulators, operands x and h with X/XLast and HX/HLast vectors, and
//   uniform(), initial(unit, p)            whether all rows start from the same vectors, bias or zeros; these
//   start / resume(sums, rows, unit, row)  otherwise: gradients from above / partial sums of the block before
//   suspend(sums, rows, unit, row)         partial sums for the next block
//   finish(sums, rows, unit, row)          the epilogue
// sums is [rows, P] vectors in memory: those four stand outside of the tiles, once for all of their sizes, since
// their texts are long and beside the product they cost little.
template <int R, class Cell>
FUSEDRNN_INLINE void tile(const Cell& cell, const PanelRange& range, int64_t row) {
  using V = typename Cell::V;
  constexpr int W = lanes_of<V>, P = Cell::P;
  V acc[R][P];
  V sums[R * P];
  if (range.first && cell.uniform()) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      const V v = cell.initial(range.unit, p);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) acc[r][p] = v;
    }
  } else {
    if (range.first)
      cell.start(sums, R, range.unit, row);
    else
      cell.resume(sums, R, range.unit, row);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) acc[r][p] = sums[r * P + p];
  }
  accumulate<Cell::X, Cell::XLast>(
      acc, cell.x.rows + row * cell.x.stride + range.x_from, cell.x.stride,
      cell.x.panels + (cell.x.depth * Cell::x_units(range.unit)) + range.x_from * Cell::X * W,
      range.x_to - range.x_from);
  if constexpr (Cell::HX > 0)
    accumulate<Cell::HX, Cell::HLast>(
        acc, cell.h.rows + row * cell.h.stride + range.h_from, cell.h.stride,
        cell.h.panels + (cell.h.depth * Cell::h_units(range.unit)) + range.h_from * Cell::HX * W,
        range.h_to - range.h_from);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) sums[r * P + p] = acc[r][p];
  if (range.last)
    cell.finish(sums, R, range.unit, row);
  else
    cell.suspend(sums, R, range.unit, row);
}

template <int R, class Cell>
FUSEDRNN_INLINE void row_groups(const Cell& cell, const PanelRange& range, int64_t row, int64_t rows) {
  // Four rows by tiles of three would leave a lone row, whose few chains cannot hide the latency.
  while (rows - row >= R && !(R == 3 && rows - row == 4)) {
    tile<R>(cell, range, row);
    row += R;
  }
  if constexpr (R > 1) row_groups<R == 3 ? 2 : R == 6 ? 4 : R / 2>(cell, range, row, rows);
}

// All rows for one panel, in blocks of the sum small enough for the cache when the rows can reuse them.
template <class Cell>
void panel(const Cell& cell, int64_t unit, int64_t rows) {
  constexpr int R = tile_rows(Cell::P);
  constexpr int widest = Cell::X > Cell::HX ? Cell::X : Cell::HX;
  constexpr int64_t block_depth = panel_bytes / int64_t(widest * sizeof(typename Cell::V));
  const int64_t x_depth = cell.x.depth, depth = x_depth + (Cell::HX > 0 ? cell.h.depth : 0);
  // Blocks of equal size; a sum that is hardly longer than a block stays in one piece.
  const int64_t blocks = rows <= R ? 1 : (depth + block_depth / 2) / block_depth;
  const int64_t block = blocks <= 1 ? depth : (depth + blocks - 1) / blocks;
  int64_t from = 0;
  do {
    const int64_t to = min(depth, from + block);
    const PanelRange range{unit,
                           min(from, x_depth),
                           min(to, x_depth),
                           (from > x_depth ? from : x_depth) - x_depth,
                           (to > x_depth ? to : x_depth) - x_depth,
                           from == 0,
                           to == depth};
    row_groups<R>(cell, range, 0, rows);
    from = to;
  } while (from < depth);
}

// Gate cells: one panel is one vector of units with all its gates side by side.
template <class Cell>
FUSEDRNN_INLINE void walk_gates(const Cell& cell, int64_t rows, int64_t units) {
  for (int64_t unit = 0; unit < units; unit += lanes_of<typename Cell::V>) panel(cell, unit, rows);
}

// Dense cells, Cell<P>: a panel is P vectors of consecutive units.
template <template <class, int> class Cell, class T, class Step>
FUSEDRNN_INLINE void walk_dense(const Step& step) {
  constexpr int W = full_lanes<T>;
  for (int64_t unit = 0; unit < step.units;) {
    const int vectors = dense_panel_vectors((step.units - unit + W - 1) / W);
    if (vectors == 3)
      panel(Cell<T, 3>(step), unit, step.rows);
    else if (vectors == 2)
      panel(Cell<T, 2>(step), unit, step.rows);
    else
      panel(Cell<T, 1>(step), unit, step.rows);
    unit += vectors * W;
  }
}

// What the gate cells share: P gates of one vector of units, kept in rows of `gates` between blocks.
template <class T, int Gates, int XVectors, int XLastGate, int HVectors, int HLastGate>
struct GateCell {
  using V = Vector<T, full_lanes<T>>;
  static constexpr int P = Gates, X = XVectors, XLast = XLastGate, HX = HVectors, HLast = HLastGate;
  static constexpr int W = full_lanes<T>;
  static constexpr int64_t x_units(int64_t unit) { return unit * X; }
  static constexpr int64_t h_units(int64_t unit) { return unit * HX; }

  Operand<T> x, h;
  int64_t units;
  const T* bias;  // packed [panel][P][W]; null: start from what is in gates
  T* gates;       // [rows, P * units]
  int64_t gates_stride;

  FUSEDRNN_INLINE int count(int64_t unit) const { return int(min(W, units - unit)); }
  FUSEDRNN_INLINE bool uniform() const { return bias; }
  FUSEDRNN_INLINE V initial(int64_t unit, int p) const { return load<V>(bias + unit * P + p * W); }
  FUSEDRNN_INLINE void start(V* sums, int rows, int64_t unit, int64_t row) const { resume(sums, rows, unit, row); }

  FUSEDRNN_NOINLINE void resume(V* sums, int rows, int64_t unit, int64_t row) const {
    const int n = count(unit);
    for (int r = 0; r < rows; ++r)
      for (int p = 0; p < P; ++p) sums[r * P + p] = load<V>(gates + (row + r) * gates_stride + p * units + unit, n);
  }

  FUSEDRNN_NOINLINE void suspend(const V* sums, int rows, int64_t unit, int64_t row) const {
    const int n = count(unit);
    for (int r = 0; r < rows; ++r)
      for (int p = 0; p < P; ++p) store(gates + (row + r) * gates_stride + p * units + unit, sums[r * P + p], n);
  }
};

// What the dense cells share: P vectors of consecutive units; partial sums rest in `partial`.
template <class T, int Vectors, int HVectors>
struct DenseCell {
  using V = Vector<T, full_lanes<T>>;
  static constexpr int P = Vectors, X = P, XLast = P - 1, HX = HVectors, HLast = P - 1;
  static constexpr int W = full_lanes<T>;
  static constexpr int64_t x_units(int64_t unit) { return unit; }
  static constexpr int64_t h_units(int64_t unit) { return unit; }

  Operand<T> x, h;
  int64_t units;
  T* partial;  // [rows, units]
  int64_t partial_stride;

  FUSEDRNN_INLINE int count(int64_t unit) const { return int(min(W, units - unit)); }
  FUSEDRNN_INLINE V initial(int64_t, int) const { return V{}; }

  // f(i, unit, row, valid lanes) for the i-th vector of a tile.
  template <class F>
  FUSEDRNN_INLINE void each(int rows, int64_t unit, int64_t row, F f) const {
    for (int i = 0; i < rows * P; ++i) f(i, unit + i % P * W, row + i / P, count(unit + i % P * W));
  }

  FUSEDRNN_NOINLINE void resume(V* sums, int rows, int64_t unit, int64_t row) const {
    each(rows, unit, row,
         [&](int i, int64_t u, int64_t r, int n) { sums[i] = load<V>(partial + r * partial_stride + u, n); });
  }

  FUSEDRNN_NOINLINE void suspend(const V* sums, int rows, int64_t unit, int64_t row) const {
    each(rows, unit, row,
         [&](int i, int64_t u, int64_t r, int n) { store(partial + r * partial_stride + u, sums[i], n); });
  }

  // Where a sum starts from a state's gradient [rows, units] at the last step, and from zero at the others.
  FUSEDRNN_INLINE void start_from(const T* gradient, V* sums, int rows, int64_t unit, int64_t row) const {
    each(rows, unit, row, [&](int i, int64_t u, int64_t r, int n) { sums[i] = load<V>(gradient + r * units + u, n); });
  }
};

// Backward: a tile sums what comes from the future (dh_n, or the following step's product), and adds dy last, so
// that a sequence in pieces, each handing its dh0 to the one before, gives the same bits as the whole.
template <class V>
FUSEDRNN_INLINE V add_dy(V dh, const Scalar<V>* dy, int64_t dy_stride, int64_t unit, int64_t row, int count) {
  return dy ? load<V>(dy + row * dy_stride + unit, count) + dh : dh;
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
