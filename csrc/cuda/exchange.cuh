// How the blocks of a team hand each other the operand of the next step: h, or backward the gates' gradients. A turn is
// a step in the order of the walk; the operand of a turn lies in the slot of the turn's last bit, so that a turn is
// written while its predecessor may still be read.
//
// Why two slots suffice: a member writes turn t + 1 after it has received all of turn t, which every member sent after
// it had read all of turn t - 1, whose slot that is.
//
//   Near      one block, or the blocks of a cluster: the operand lies in shared memory, and each member pushes its part
//             into that of the others, counted by a barrier there. No member waits for more than the bytes it needs.
//   Grid      any blocks that are resident together: each member stores its part in global memory and then raises its
//             flag; the others wait for all flags and copy the whole.
//   Launches  each turn is a launch of its own.
#pragma once

#include "product.cuh"

namespace fusedrnn::cuda {

// A block's place.
struct Member {
  int direction, tile, number;  // tile: of the batch's rows; number: within the team
  int team;                     // of all teams of the call

  FUSEDRNN_DEVICE explicit Member(const Arguments& p, int teams_per_direction) {
    const Layout& l = p.layout;
    number = device::block() % l.members;
    const int of_launch = device::block() / l.members;
    direction = of_launch % p.directions;
    tile = p.first_tile + of_launch / p.directions;
    team = direction * teams_per_direction + tile;
  }
};

FUSEDRNN_DEVICE int row_tiles(const Arguments& p) { return (p.batch + p.layout.rows - 1) / p.layout.rows; }

// A team's two slots of the operand in global memory, each [rows, operand_stride] bytes.
struct Slots {
  char* data;

  FUSEDRNN_DEVICE Slots(const Arguments& p, int team)
      : data(p.exchange + int64_t(team) * 2 * p.layout.rows * p.layout.operand_stride) {}

  FUSEDRNN_DEVICE char* of(const Layout& l, int turn) const { return data + turn % 2 * l.rows * l.operand_stride; }

  // The operand's term `unit` of `piece`.
  template <class Product>
  FUSEDRNN_DEVICE void put(const Layout& l, int turn, int row, int piece, int unit, float x) const {
    using S = typename Product::Storage;
    S* const terms = reinterpret_cast<S*>(of(l, turn) + row * l.operand_stride);
    device::store(terms + piece * l.padded_units + unit, S(Product::operand(x)));
  }
};

// From one row of the operand in shared memory to the next: lanes that read eight rows at once meet in no bank.
FUSEDRNN_DEVICE int shared_stride(const Layout& l) { return l.operand_stride + 32; }

// Copies a slot from global to shared memory; sync_threads must follow.
FUSEDRNN_DEVICE void fetch(const Layout& l, const char* slot, Shared to) {
  const int warps = device::threads() / device::warp_lanes;
  for (int row = device::thread() / device::warp_lanes; row < l.rows; row += warps)
    for (int byte = device::lane() * 16; byte < l.operand_stride; byte += device::warp_lanes * 16)
      device::copy_async(to + row * shared_stride(l) + byte, slot + row * l.operand_stride + byte);
  device::wait_copies();
}

template <class Product, int pieces>  // pieces: gates whose gradients are sent, or 1 for h
struct Near {
  using Storage = typename Product::Storage;
  static constexpr bool resident = true;

  // Before turn 0: its operand, which prepare.cuh has left in memory, and zeros where nothing is ever put.
  FUSEDRNN_DEVICE Near(const Arguments& p, const Member& m) : l_(p.layout), member_(m.number) {
    fetch(l_, Slots(p, m.team).of(l_, 0), data(0));
    for (int byte = device::thread() * 16; byte < l_.rows * shared_stride(l_); byte += device::threads() * 16)
      device::store_shared(data(1) + byte, Quad{});
#if FUSEDRNN_CLUSTERS
    if (l_.members > 1) {
      if (device::thread() == 0) {
        for (int turn = 1; turn <= 2; ++turn) {
          device::init_barrier(barrier(turn));
          device::arrive(barrier(turn), bytes_of_others());
        }
      }
      device::sync_cluster();
      return;
    }
#endif
    device::sync_threads();
  }

  FUSEDRNN_DEVICE void receive(int turn) {
#if FUSEDRNN_CLUSTERS
    if (l_.members == 1 || turn == 0) return;
    device::wait_barrier(barrier(turn), (turn - 1) / 2);
    if (device::thread() == 0) device::arrive(barrier(turn), bytes_of_others());
#else
    (void)turn;
#endif
  }
  FUSEDRNN_DEVICE SharedOperand operand(int turn) const { return {data(turn), shared_stride(l_)}; }

  // A part of the operand of the turn: term `unit` of `piece`.
  FUSEDRNN_DEVICE void put(int turn, int row, int piece, int unit, float x) const {
    const int term = piece * l_.padded_units + unit;
    device::store_shared(data(turn) + row * shared_stride(l_) + term * int(sizeof(Storage)), Product::operand(x));
  }

  FUSEDRNN_DEVICE void send(int turn) const {
    device::sync_threads();
#if FUSEDRNN_CLUSTERS
    if (l_.members == 1) return;
    const int bits = l_.unit_bits - (sizeof(Storage) == 4 ? 2 : 3), parts = l_.rows * pieces << bits;  // of a Quad
    for (int i = device::thread(); i < parts; i += device::threads()) {
      const int row = (i >> bits) / pieces, piece = (i >> bits) % pieces, quad = i & ((1 << bits) - 1);
      const Shared at = data(turn) + row * shared_stride(l_) + piece * l_.padded_units * int(sizeof(Storage)) +
                        member_ * own_bytes() + quad * 16;
      const Quad value = device::load_shared<Quad>(at);
      for (int k = 1; k < l_.members; ++k) {
        const int other = member_ + k < l_.members ? member_ + k : member_ + k - l_.members;
        device::push(at, other, value, barrier(turn));
      }
    }
#else
    (void)turn;
#endif
  }

 private:
  FUSEDRNN_DEVICE Shared data(int turn) const { return turn % 2 * l_.rows * shared_stride(l_); }
  FUSEDRNN_DEVICE Shared barrier(int turn) const { return l_.barriers + turn % 2 * 8; }
  FUSEDRNN_DEVICE int own_bytes() const { return int(sizeof(Storage)) << l_.unit_bits; }
  FUSEDRNN_DEVICE uint32_t bytes_of_others() const { return l_.rows * pieces * (l_.members - 1) * own_bytes(); }

  const Layout& l_;
  int member_;
};

template <class Product, int pieces>
struct Grid {
  using Storage = typename Product::Storage;
  static constexpr bool resident = true;

  FUSEDRNN_DEVICE Grid(const Arguments& p, const Member& m)
      : l_(p.layout), slots_(p, m.team), flags_(p.flags + m.team * p.layout.members), member_(m.number) {}

  FUSEDRNN_DEVICE void receive(int turn) const {
    if (turn > 0) {
      for (int i = device::thread(); i < l_.members; i += device::threads())
        while (device::load_acquire(flags_ + i) < uint32_t(turn)) device::wait_a_little();
      device::sync_threads();
    }
    fetch(l_, slots_.of(l_, turn), 0);
    device::sync_threads();
  }
  FUSEDRNN_DEVICE SharedOperand operand(int) const { return {0, shared_stride(l_)}; }

  FUSEDRNN_DEVICE void put(int turn, int row, int piece, int unit, float x) const {
    slots_.template put<Product>(l_, turn, row, piece, unit, x);
  }

  FUSEDRNN_DEVICE void send(int turn) const {
    device::sync_threads();
    if (device::thread() == 0) device::store_release(flags_ + member_, uint32_t(turn));
  }

 private:
  const Layout& l_;
  const Slots slots_;
  uint32_t* const flags_;
  int member_;
};

template <class Product, int pieces>
struct Launches {
  using Storage = typename Product::Storage;
  static constexpr bool resident = false;

  FUSEDRNN_DEVICE Launches(const Arguments& p, const Member& m) : l_(p.layout), slots_(p, m.team) {}

  FUSEDRNN_DEVICE void receive(int) const {}
  FUSEDRNN_DEVICE GlobalOperand operand(int turn) const { return {slots_.of(l_, turn), l_.operand_stride}; }
  FUSEDRNN_DEVICE void put(int turn, int row, int piece, int unit, float x) const {
    slots_.template put<Product>(l_, turn, row, piece, unit, x);
  }
  FUSEDRNN_DEVICE void send(int) const {}

 private:
  const Layout& l_;
  const Slots slots_;
};

}  // namespace fusedrnn::cuda
