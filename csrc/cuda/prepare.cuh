// Before a pass: the weights in the order in which lanes read them, the operand of turn 0, zeros for all that is never
// put, flags lowered.
#pragma once

#include "exchange.cuh"

namespace fusedrnn::cuda {

// Where a lane's words of a tile come from. f(row, term): a weight, of one of the 16 units and a term of the tile.
template <class F>
FUSEDRNN_DEVICE Quad pack_quad(Fma, int quad, F f) {
  const int lane = device::lane(), row = lane / 8 * 4 + quad % 4, term = lane % 8 * 4;
  Quad q;
  for (int j = 0; j < 4; ++j) q.word[j] = device::bits_of(f(row, term + j));
  return q;
}
template <class F>
FUSEDRNN_DEVICE Quad pack_quad(Tf32, int, F f) {
  const int lane = device::lane(), row = lane / 4, term = lane % 4 * 2;
  Quad q;
  for (int j = 0; j < 4; ++j) q.word[j] = device::bits_of(device::to_tf32(f(row + j % 2 * 8, term + j / 2)));
  return q;
}
template <class S, class F>
FUSEDRNN_DEVICE Quad pack_quad(Half<S>, int, F f) {
  const int lane = device::lane(), row = lane / 4, term = lane % 4 * 4;
  Quad q;
  for (int j = 0; j < 4; ++j) {
    const int r = row + j % 2 * 8, k = term + j / 2 * 2;
    q.word[j] = device::from_float<S>(f(r, k)).bits | uint32_t(device::from_float<S>(f(r, k + 1)).bits) << 16;
  }
  return q;
}

// gates: of weight_hh. Forward a tile has 16 units of each gate and some of the H terms of h; backward 16 units of h
// and some of the gates' G H terms.
template <class Product, int gates, bool is_backward>
FUSEDRNN_KERNEL(block_threads)
prepare(const Arguments p) {
  using S = typename Product::Storage;
  constexpr int tile_gates = is_backward ? 1 : gates;
  constexpr int quads = Product::template Tile<tile_gates, 1>::quads;
  const Layout& l = p.layout;
  const uint32_t H = p.hidden, start = uint32_t(device::block()) * device::threads() + device::thread();
  const uint32_t stride = uint32_t(device::blocks()) * device::threads();

  const uint32_t groups = l.padded_units / group_units;
  for (uint32_t i = start; i < p.directions * groups * l.tiles * quads * device::warp_lanes; i += stride) {
    uint32_t rest = i / device::warp_lanes;
    const uint32_t quad = rest % quads;
    rest /= quads;
    const uint32_t tile = rest % l.tiles;
    rest /= l.tiles;
    const uint32_t group = rest % groups, direction = rest / groups;
    const S* const weight = static_cast<const S*>(p.weight) + size_t(direction) * gates * H * H;
    const Quad packed = pack_quad(Product{}, quad, [&](int row, int term) {
      const uint32_t unit = group * group_units + row, k = tile * Product::terms + term;
      const uint32_t piece = k / l.padded_units, of = k % l.padded_units;
      if (unit >= H || of >= H || piece >= (is_backward ? gates : 1)) return 0.0f;
      const uint32_t gate = is_backward ? piece : quad / (quads / tile_gates);
      return device::to_float(
          device::load_constant(weight + (is_backward ? (gate * H + of) * H + unit : (gate * H + unit) * H + of)));
    });
    device::store(static_cast<Quad*>(p.packed) + i, packed);
  }

  const uint32_t row_elements = l.operand_stride / int(sizeof(S)), tiles = row_tiles(p);
  const uint32_t slot = l.rows * row_elements;
  for (uint32_t i = start; i < p.directions * tiles * 2 * slot; i += stride) {
    const uint32_t unit = i % row_elements, team = i / (2 * slot);
    const uint32_t n = team % tiles * l.rows + i / row_elements % l.rows, direction = team / tiles;
    const bool given = !is_backward && p.h0 && i / slot % 2 == 0 && unit < H && n < uint32_t(p.batch);
    float h = 0;
    if (given)
      h = device::to_float(device::load_constant(static_cast<const S*>(p.h0) + (direction * p.batch + n) * H + unit));
    device::store(reinterpret_cast<S*>(p.exchange) + i, S(Product::operand(h)));
  }
  for (uint32_t i = start; i < uint32_t(p.directions) * tiles * l.members; i += stride) device::store(p.flags + i, 0u);
}

}  // namespace fusedrnn::cuda
