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

// Whether a tile's product lasts so long for each line it reads that hints about the next ones cost nothing beside it.
constexpr bool fetch_ahead = vector_bytes == 64;

// Packed weights of one panel that should stay in the nearest caches while the rows pass by: fetched ahead they can
// come from the L2, else they should be in the L1.
constexpr int64_t panel_bytes = fetch_ahead ? 65536 : 16384;

// acc[r][index(p)] += a[r, k] * w[k][p] for k < depth, where the last of the X vectors goes to acc[r][Last]. The
// weights that follow are read soon: the groups of rows fetch them in turn, one line for each k.
template <int X, int Last, class V, int R, int P>
FUSEDRNN_INLINE void accumulate(V (&acc)[R][P], const Scalar<V>* a, int64_t stride, const Scalar<V>* w, int64_t depth,
                                int64_t group) {
  constexpr int64_t line = 64 / int64_t(sizeof(Scalar<V>));
  const Scalar<V>* const ahead = w + depth * (X * lanes_of<V> + group * line);
  for (int64_t k = 0; k < depth; ++k) {
    if constexpr (fetch_ahead && R >= 4) prefetch(ahead + k * line);
    // The fewer of the two factors wait in registers: with the others 3 vectors times 4 rows would not fit 16 of them.
    if constexpr (R > X) {
      V v[X];
#pragma GCC unroll 8
      for (int p = 0; p < X; ++p) v[p] = load<V>(w + (k * X + p) * lanes_of<V>);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const V b = splat<V>(a[r * stride + k]);
#pragma GCC unroll 8
        for (int p = 0; p < X; ++p) {
          const int q = p == X - 1 ? Last : p;
          acc[r][q] = fma(b, v[p], acc[r][q]);
        }
      }
    } else {
      V b[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) b[r] = splat<V>(a[r * stride + k]);
#pragma GCC unroll 8
      for (int p = 0; p < X; ++p) {
        const V v = load<V>(w + (k * X + p) * lanes_of<V>);
        const int q = p == X - 1 ? Last : p;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) acc[r][q] = fma(b[r], v, acc[r][q]);
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
//   expect(rows, unit, row)                fetches what the epilogue will read and write, while the product runs
//   finish(sums, rows, unit, row)          the epilogue
// sums is [rows, P] vectors in memory: those four stand outside of the tiles, once for all of their sizes, since
// their texts are long and beside the product they cost little.
template <int R, class Cell>
FUSEDRNN_INLINE void tile(const Cell& cell, const PanelRange& range, int64_t row) {
  using V = typename Cell::V;
  constexpr int W = lanes_of<V>, P = Cell::P;
  // A short product would not hide it, and a small network's data is near anyway.
  constexpr int64_t long_product = 128;
  if (fetch_ahead && range.last && range.x_to - range.x_from + range.h_to - range.h_from >= long_product)
    cell.expect(R, range.unit, row);
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
      range.x_to - range.x_from, row / tile_rows(P));
  if constexpr (Cell::HX > 0)
    accumulate<Cell::HX, Cell::HLast>(
        acc, cell.h.rows + row * cell.h.stride + range.h_from, cell.h.stride,
        cell.h.panels + (cell.h.depth * Cell::h_units(range.unit)) + range.h_from * Cell::HX * W,
        range.h_to - range.h_from, row / tile_rows(P));
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

// Where one vector's elements lie in arrays [rows, units]: in `rows` consecutive rows, `count` units of each. Most
// vectors are a single row's. At the end of the units, where a vector would be half empty or more, it holds the tails
// of several rows, Lanes lanes for each, so that the epilogue's work is not wasted.
template <class V, int Lanes>
struct Place {
  using T = Scalar<V>;
  using Piece = Vector<T, Lanes>;
  static constexpr int pieces = lanes_of<V> / Lanes;

  int64_t row, unit;
  int rows, count;

  FUSEDRNN_INLINE static V join_pieces(const Piece* q) {
    if constexpr (pieces == 2)
      return join<V>(q[0], q[1]);
    else {
      using Half = Vector<T, lanes_of<V> / 2>;
      return join<V>(join<Half>(q[0], q[1]), join<Half>(q[2], q[3]));
    }
  }

  FUSEDRNN_INLINE V read(const T* p, int64_t stride) const {
    p += row * stride + unit;
    if constexpr (pieces == 1) {
      return load<V>(p, count);
    } else {
      Piece q[pieces];
#pragma GCC unroll 4
      for (int i = 0; i < pieces; ++i) q[i] = i < rows ? load<Piece>(p + i * stride, count) : Piece{};
      return join_pieces(q);
    }
  }

  FUSEDRNN_INLINE void write(T* p, int64_t stride, V v) const {
    p += row * stride + unit;
    if constexpr (pieces == 1) {
      store(p, v, count);
    } else {
      Piece q[pieces];
      q[0] = part_of<Piece, 0>(v);
      q[1] = part_of<Piece, Lanes>(v);
      if constexpr (pieces == 4) {
        q[2] = part_of<Piece, 2 * Lanes>(v);
        q[3] = part_of<Piece, 3 * Lanes>(v);
      }
#pragma GCC unroll 4
      for (int i = 0; i < pieces; ++i)
        if (i < rows) store(p + i * stride, q[i], count);
    }
  }

  // A vector of sums, which lie in memory with `stride` elements from row to row of the tile.
  FUSEDRNN_INLINE V sums(const T* p, int64_t stride) const {
    Piece q[pieces];
#pragma GCC unroll 4
    for (int i = 0; i < pieces; ++i) q[i] = load<Piece>(p + (i < rows ? i : 0) * stride);
    return join_pieces(q);
  }
};

// Calls f(place, sums) for `rows` rows of the units from `unit` on, of which `count` are left. The G sums lie side by
// side, `between` elements from one to the next, in rows of `stride` elements.
template <class V, int Lanes, int G, class F>
FUSEDRNN_INLINE void for_places(const V* sums, int64_t stride, int64_t between, int rows, int count, int64_t unit,
                                int64_t row, F f) {
  using At = Place<V, Lanes>;
  if constexpr (At::pieces == 1) {
    for (int r = 0; r < rows; ++r) f(At{row + r, unit, 1, count}, sums + r * stride / lanes_of<V>);
  } else {
    for (int r = 0; r < rows; r += At::pieces) {
      const At at{row + r, unit, int(min(At::pieces, rows - r)), count};
      V z[G];
      for (int g = 0; g < G; ++g)
        z[g] = at.sums(reinterpret_cast<const Scalar<V>*>(sums) + r * stride + g * between, stride);
      f(at, z);
    }
  }
}

// The same with as many rows to a vector as fit, where less than a vector's units are left.
template <class V, int G, class F>
FUSEDRNN_INLINE void for_all_places(const V* sums, int64_t stride, int64_t between, int rows, int count, int64_t unit,
                                    int64_t row, F f) {
  constexpr int W = lanes_of<V>, fewest = 16 / int(sizeof(Scalar<V>));
  if constexpr (W / 4 >= fewest)
    if (4 * count <= W) return for_places<V, W / 4, G>(sums, stride, between, rows, count, unit, row, f);
  if constexpr (W / 2 >= fewest)
    if (2 * count <= W) return for_places<V, W / 2, G>(sums, stride, between, rows, count, unit, row, f);
  for_places<V, W, G>(sums, stride, between, rows, count, unit, row, f);
}

// Gate cells: a panel is one vector of units with all its gates side by side. Cell<Lanes> with fewer lanes than a
// vector's has several gates in one vector: the last units of a cell whose weights are packed with narrow tails.
template <template <class, int> class Cell, class T, class Step>
FUSEDRNN_INLINE void walk_gates(const Step& step) {
  constexpr int W = full_lanes<T>;
  constexpr int fewest = 16 / int(sizeof(T));
  const Cell<T, W> cell(step);
  const int64_t rest = step.units % W;
  const int lanes = cell.narrow_tail && rest > 0 ? tail_lanes<T>(rest, W) : W;
  const int64_t whole = lanes == W ? step.units : step.units - rest;
  const int64_t panels = (step.units + W - 1) / W, last = last_panel(step.part, panels) * W;
  for (int64_t unit = first_panel(step.part, panels) * W; unit < min(last, whole); unit += W)
    panel(cell, unit, step.rows);
  if (last <= whole) return;
  if constexpr (Cell<T, W>::narrow_tail && W / 4 >= fewest)
    if (lanes == W / 4) panel(Cell<T, W / 4>(step), whole, step.rows);
  if constexpr (Cell<T, W>::narrow_tail && W / 2 >= fewest)
    if (lanes == W / 2) panel(Cell<T, W / 2>(step), whole, step.rows);
}

// What the gate cells share: the gates of Lanes units, kept in rows of `partial` between blocks. x has XGates of the
// Gates sums, the last of them being XLastGate, and h likewise; where tails are narrow each has all.
template <class T, int Lanes, int Gates, int XGates, int XLastGate, int HGates, int HLastGate, bool NarrowTail>
struct GateCell {
  using V = Vector<T, full_lanes<T>>;
  static constexpr int W = full_lanes<T>;
  static constexpr bool narrow_tail = NarrowTail;
  static_assert(Lanes == W || (NarrowTail && XGates == Gates && HGates == Gates));
  static constexpr int P = Gates * Lanes / W, X = XGates * Lanes / W, HX = HGates * Lanes / W;
  static constexpr int XLast = Lanes == W ? XLastGate : P - 1, HLast = Lanes == W ? HLastGate : P - 1;
  static constexpr int64_t x_units(int64_t unit) { return unit * XGates; }
  static constexpr int64_t h_units(int64_t unit) { return unit * HGates; }

  Operand<T> x, h;
  int64_t units;
  const T* bias;  // packed [panel][Gates][Lanes]; null: start from the partial sums
  T* partial;     // [rows, Gates * units]
  int64_t partial_stride;

  FUSEDRNN_INLINE int count(int64_t unit) const { return int(min(Lanes, units - unit)); }
  FUSEDRNN_INLINE bool uniform() const { return bias; }
  FUSEDRNN_INLINE V initial(int64_t unit, int p) const { return load<V>(bias + unit * Gates + p * W); }
  FUSEDRNN_INLINE void start(V* sums, int rows, int64_t unit, int64_t row) const { resume(sums, rows, unit, row); }

  FUSEDRNN_NOINLINE void resume(V* sums, int rows, int64_t unit, int64_t row) const {
    using Piece = Vector<T, Lanes>;
    const int n = count(unit);
    const T* from = partial + row * partial_stride + unit;
    for (int r = 0; r < rows; ++r, from += partial_stride)
#pragma GCC unroll 4
      for (int g = 0; g < Gates; ++g)
        store(reinterpret_cast<T*>(sums) + (r * Gates + g) * Lanes, load<Piece>(from + g * units, n));
  }

  FUSEDRNN_NOINLINE void suspend(const V* sums, int rows, int64_t unit, int64_t row) const {
    using Piece = Vector<T, Lanes>;
    const int n = count(unit);
    T* to = partial + row * partial_stride + unit;
    for (int r = 0; r < rows; ++r, to += partial_stride)
#pragma GCC unroll 4
      for (int g = 0; g < Gates; ++g)
        store(to + g * units, load<Piece>(reinterpret_cast<const T*>(sums) + (r * Gates + g) * Lanes), n);
  }

  FUSEDRNN_INLINE void expect(int, int64_t, int64_t) const {}

  // f(place, the gates' sums) for every vector of a tile.
  template <class F>
  FUSEDRNN_INLINE void each(const V* sums, int rows, int64_t unit, int64_t row, F f) const {
    if constexpr (NarrowTail)
      for_places<V, Lanes, Gates>(sums, Gates * Lanes, Lanes, rows, count(unit), unit, row, f);
    else
      for_all_places<V, Gates>(sums, Gates * W, W, rows, count(unit), unit, row, f);
  }
};

// Dense cells: a panel is 1 to 3 vectors of consecutive units. What differs from cell to cell is its Ends, where sums
// start and what becomes of them; it is the same text for any number of vectors.
template <class Ends, int Vectors>
struct DenseCell {
  using V = typename Ends::V;
  static constexpr int P = Vectors, X = P, XLast = P - 1, HX = Ends::recurrent ? P : 0, HLast = P - 1;
  static constexpr int64_t x_units(int64_t unit) { return unit; }
  static constexpr int64_t h_units(int64_t unit) { return unit; }

  const Ends& ends;
  const Operand<Scalar<V>>&x = ends.x, &h = ends.h;

  FUSEDRNN_INLINE bool uniform() const { return ends.uniform(); }
  FUSEDRNN_INLINE V initial(int64_t unit, int p) const { return ends.initial(unit, p); }
  FUSEDRNN_INLINE void start(V* s, int rows, int64_t unit, int64_t row) const { ends.start(s, P, rows, unit, row); }
  FUSEDRNN_INLINE void resume(V* s, int rows, int64_t unit, int64_t row) const { ends.resume(s, P, rows, unit, row); }
  FUSEDRNN_INLINE void expect(int rows, int64_t unit, int64_t row) const { ends.expect(P, rows, unit, row); }
  FUSEDRNN_INLINE void suspend(const V* s, int rows, int64_t unit, int64_t row) const {
    ends.suspend(s, P, rows, unit, row);
  }
  FUSEDRNN_INLINE void finish(const V* s, int rows, int64_t unit, int64_t row) const {
    ends.finish(s, P, rows, unit, row);
  }
};

template <template <class> class Ends, class T, class Step>
FUSEDRNN_INLINE void walk_dense(const Step& step) {
  constexpr int W = full_lanes<T>;
  const Ends<T> ends(step);
  const int64_t all = (step.units + W - 1) / W;
  const int64_t panels = dense_panels(all);
  for (int64_t i = first_panel(step.part, panels); i < last_panel(step.part, panels); ++i) {
    const int64_t first = dense_panel_first(all, i), vectors = dense_panel_first(all, i + 1) - first, unit = first * W;
    if (vectors == 3)
      panel(DenseCell<Ends<T>, 3>{ends}, unit, step.rows);
    else if (vectors == 2)
      panel(DenseCell<Ends<T>, 2>{ends}, unit, step.rows);
    else
      panel(DenseCell<Ends<T>, 1>{ends}, unit, step.rows);
  }
}

// What the ends of dense cells share; partial sums rest in `partial`. sums is [rows, vectors].
template <class T>
struct DenseEnds {
  using V = Vector<T, full_lanes<T>>;
  static constexpr int W = full_lanes<T>;
  static constexpr bool recurrent = false;

  Operand<T> x, h;
  int64_t units;
  T* partial;  // [rows, units]
  int64_t partial_stride;

  FUSEDRNN_INLINE int count(int64_t unit) const { return int(min(W, units - unit)); }
  FUSEDRNN_INLINE V initial(int64_t, int) const { return V{}; }
  FUSEDRNN_INLINE void expect(int, int, int64_t, int64_t) const {}

  // Sums from an array [rows, units].
  FUSEDRNN_NOINLINE void fetch(V* sums, int vectors, int rows, int64_t unit, int64_t row, const T* from,
                               int64_t stride) const {
    for (int r = 0; r < rows; ++r)
      for (int p = 0; p < vectors; ++p)
        sums[r * vectors + p] = load<V>(from + (row + r) * stride + unit + p * W, count(unit + p * W));
  }

  FUSEDRNN_INLINE void resume(V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    fetch(sums, vectors, rows, unit, row, partial, partial_stride);
  }

  FUSEDRNN_NOINLINE void suspend(const V* sums, int vectors, int rows, int64_t unit, int64_t row) const {
    for (int r = 0; r < rows; ++r)
      for (int p = 0; p < vectors; ++p)
        store(partial + (row + r) * partial_stride + unit + p * W, sums[r * vectors + p], count(unit + p * W));
  }

  // f(place, sum) for every vector of a tile.
  template <class F>
  FUSEDRNN_INLINE void each(const V* sums, int vectors, int rows, int64_t unit, int64_t row, F f) const {
    for (int p = 0; p < vectors; ++p, unit += W)
      for_all_places<V, 1>(sums + p, vectors * W, 0, rows, count(unit), unit, row,
                           [&](auto at, const V* sum) { f(at, sum[0]); });
  }
};

// Backward: a tile sums what comes from the future (dh_n, or the following step's product), and adds dy last, so
// that a sequence in pieces, each handing its dh0 to the one before, gives the same bits as the whole.
template <class V, class At>
FUSEDRNN_INLINE V add_dy(V dh, const Scalar<V>* dy, int64_t dy_stride, At at) {
  return dy ? at.read(dy, dy_stride) + dh : dh;
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
