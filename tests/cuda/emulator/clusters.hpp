// Thread-block clusters: barriers in shared memory that count bytes, and pushes to the other blocks.
#pragma once

#include "primitives.hpp"

namespace fusedrnn::emulator {

inline std::string barrier_name(const Block& b, uint32_t address) {
  return "the barrier at " + std::to_string(address) + " of block " + std::to_string(b.index);
}

// The barrier, whose initialisation must have happened before.
inline Barrier& barrier_of(Block& b, uint32_t address, Kind kind, Where where) {
  const auto at = b.barriers.find(address);
  const std::string how = std::string(name(kind)) + " at " + text(where) + ": ";
  if (at == b.barriers.end()) throw Error(how + barrier_name(b, address) + " is not initialised");
  if (!self().covers(at->second.init))
    throw Error(how + barrier_name(b, address) + " may not be initialised yet: " + text(at->second.init));
  return at->second;
}

inline void init_barrier(uint32_t address, Where where) {
  if (launch().called(Kind::init_barrier, where).dropped) return;
  Thread& me = self();
  Block& b = *me.home;
  if (b.barriers.contains(address)) throw Error("init_barrier at " + text(where) + ": twice");
  b.shared.write(address, 8, 8, b.index, me, where, Transit::barrier);
  b.barriers[address].init = me.access(where);
}

// Ends the phase if all has come, and wakes those who wait for it.
inline void settle(Block& b, uint32_t address, Barrier& barrier) {
  if (std::abs(barrier.expected) >= 1 << 20) throw Error(barrier_name(b, address) + ": its count of bytes overflows");
  if (!barrier.arrived || barrier.expected != 0) return;
  ++barrier.phase;
  barrier.arrived = false;
  barrier.ended = std::move(barrier.gathering);
  barrier.gathering = nullptr;
  barrier.joined.clear();
  for (Thread& t : b.threads)
    if (t.state == State::waiting && t.kind == Kind::wait_barrier && t.polled == &barrier) launch().wake(t);
  launch().progress();
}

inline void arrive(uint32_t address, uint32_t bytes, Where where) {
  if (launch().called(Kind::arrive, where).dropped) return;
  launch().perhaps_give_way(Kind::arrive, where);
  Thread& me = self();
  Barrier& barrier = barrier_of(*me.home, address, Kind::arrive, where);
  if (barrier.arrived)
    throw Error("arrive at " + text(where) + ": phase " + std::to_string(barrier.phase) + " of " +
                barrier_name(*me.home, address) + " has had its arrival");
  barrier.arrived = true;
  barrier.expected += bytes;
  barrier.take_up(me.view, me.release());
  settle(*me.home, address, barrier);
}

inline void wait_barrier(uint32_t address, uint32_t phase, Where where) {
  if (launch().called(Kind::wait_barrier, where).dropped) return;
  launch().perhaps_give_way(Kind::wait_barrier, where);
  Thread& me = self();
  Barrier& barrier = barrier_of(*me.home, address, Kind::wait_barrier, where);
  const auto unfit = [&](const char* why) {
    throw Error("wait_barrier at " + text(where) + ": phase " + std::to_string(phase) + " of " +
                barrier_name(*me.home, address) + ", which is in phase " + std::to_string(barrier.phase) + ", " + why);
  };
  if (phase > barrier.phase) unfit("would be taken for the one before");
  if (phase + 1 < barrier.phase) unfit("would be taken for the one after");
  if (phase == barrier.phase) {
    me.polled = &barrier;
    launch().wait(Kind::wait_barrier, where);
    if (phase + 1 != barrier.phase) unfit("was missed");
  }
  me.view = join(me.view, barrier.ended);
}

inline void push(uint32_t address, int block_of_cluster, const void* value, uint32_t counter, Where where) {
  if (launch().called(Kind::push, where).dropped) return;
  launch().perhaps_give_way(Kind::push, where);
  Thread& me = self();
  const std::string how = "push at " + text(where) + ": ";
  if (block_of_cluster < 0 || block_of_cluster >= launch().shape().cluster)
    throw Error(how + "no block " + std::to_string(block_of_cluster) + " in the cluster");
  Block& to = launch().block_of_cluster(*me.home, block_of_cluster);
  if (to.over()) throw Error(how + "block " + std::to_string(to.index) + " has ended");
  barrier_of(to, counter, Kind::push, where);
  to.shared.write(address, 16, 16, to.index, me, where, Transit::push);
  const Access access = me.access(where);
  to.pushers[uint32_t(me.block) << 16 | me.thread] = access;
  std::array<char, 16> bytes;
  std::memcpy(bytes.data(), value, 16);
  launch().send_push([&to, address, bytes, counter, access, part = me.release(), view = me.view] {
    std::memcpy(to.shared.at(address), bytes.data(), 16);
    to.shared.landed(address, 16, access);
    Barrier& barrier = to.barriers.at(counter);
    barrier.take_up(view, part);
    barrier.expected -= 16;
    settle(to, counter, barrier);
  });
}

}  // namespace fusedrnn::emulator
