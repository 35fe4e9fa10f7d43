// What the primitives of device.hpp do: barriers of threads, flags, copies, and the rendezvous of a warp.
#pragma once

#include "scheduler.hpp"

namespace fusedrnn::emulator {

inline Thread& self() { return *Launch::self; }
inline Launch& launch() { return *Launch::now; }

// --- Global and shared memory. Bytes are copied, whatever type they were written as.

template <class T>
T copy_of(const void* p) {
  T value;
  std::memcpy(static_cast<void*>(&value), p, sizeof value);
  return value;
}

inline void load(const void* p, size_t size, Where where) {
  launch().deliver_flags(self());
  launch().global.read(p, size, self(), where);
}
inline void store(void* p, const void* value, size_t size, Where where) {
  launch().deliver_flags(self());
  launch().global.write(p, size, self(), where);
  std::memcpy(p, value, size);
}

inline const void* load_shared(uint32_t address, size_t size, size_t alignment, Where where) {
  const Thread& me = self();
  me.home->shared.read(address, size, alignment, me.block, me, where);
  return me.home->shared.at(address);
}
inline void store_shared(uint32_t address, const void* value, size_t size, size_t alignment, Where where) {
  const Thread& me = self();
  me.home->shared.write(address, size, alignment, me.block, me, where);
  std::memcpy(me.home->shared.at(address), value, size);
}

// --- Flags

inline void store_release(uint32_t* flag, uint32_t value, Where where) {
  const Call& call = launch().called(Kind::store_release, where);
  if (call.dropped) return;
  launch().perhaps_give_way(Kind::store_release, where);
  Thread& me = self();
  launch().global.write(flag, sizeof *flag, me, where, true);
  std::shared_ptr<View> view;
  if (!call.relaxed) {
    view = std::make_shared<View>(*me.view);
    view->add(me.release());
  }
  launch().progress();
  launch().send_flag(me, [flag, value, view] {
    *flag = value;
    launch().flags[flag] = {++launch().publications, view};
  });
}

inline uint32_t load_acquire(const uint32_t* flag, Where where) {
  const Call& call = launch().called(Kind::load_acquire, where);
  if (!launch().shape().cooperative)
    throw Error("load_acquire at " + text(where) + " in a launch whose blocks need not be resident together");
  Thread& me = self();
  launch().polled();
  // Nothing new since the last look: let others go on.
  if (me.polled == flag && me.found == launch().flags[flag].age)
    launch().give_way(Kind::load_acquire, where);
  else
    launch().perhaps_give_way(Kind::load_acquire, where);
  launch().deliver_flags(me);
  launch().global.read(flag, sizeof *flag, me, where, true);
  const Launch::Flag& seen = launch().flags[flag];
  me.polled = flag, me.found = seen.age;
  if (!call.relaxed && seen.view) me.view = join(me.view, seen.view);
  return *flag;
}

inline void wait_a_little(Where where) {
  launch().called(Kind::wait_a_little, where);
  launch().polled();
  self().polled = nullptr;
  launch().give_way(Kind::wait_a_little, where);
}

// --- Copies from global to shared memory

inline void copy_async(uint32_t to, const void* from, Where where) {
  if (launch().called(Kind::copy_async, where).dropped) return;
  Thread& me = self();
  launch().global.read(from, 16, me, where);
  me.home->shared.write(to, 16, 16, me.block, me, where, Transit::copy);
  me.copies.push_back({to, from, where});
}

inline void wait_copies(Where where) {
  if (launch().called(Kind::wait_copies, where).dropped) return;
  Thread& me = self();
  for (const Copy& copy : me.copies) {
    launch().global.read(copy.from, 16, me, copy.where);  // it may have been read as late as now
    std::memcpy(me.home->shared.at(copy.to), copy.from, 16);
    me.home->shared.landed(copy.to, 16, me.access(copy.where));
  }
  me.copies.clear();
}

// --- Barriers of threads

// The blocks' threads know of all that each of them did or knew; a new epoch begins in each block.
inline void share_views(const std::vector<Block*>& blocks, Kind kind) {
  ViewPointer known;
  for (Block* b : blocks) {
    const View* last = nullptr;
    for (Thread& t : b->threads) {
      if (t.view.get() != last) known = join(known, t.view);
      last = t.view.get();
    }
  }
  auto next = std::make_shared<View>(*known);
  for (Block* b : blocks) next->epochs[size_t(b->index)] = ++b->epoch;
  std::erase_if(next->parts, [&](const View::Part& p) { return p.epoch < next->epochs[p.block]; });
  for (Block* b : blocks) {
    for (Warp& w : b->warps) w.apart = 0;
    for (Thread& t : b->threads) {
      t.view = next, t.epoch = b->epoch;
      if (t.state == State::waiting && t.kind == kind) launch().wake(t);
    }
  }
}

inline void meet(Kind kind, Where where, Meeting& meeting, int expected, const std::vector<Block*>& blocks) {
  launch().perhaps_give_way(kind, where);
  Thread& me = self();
  const auto who = [&] { return "thread " + std::to_string(me.thread) + " of block " + std::to_string(me.block); };
  Warp& warp = me.home->warp(me);
  if (warp.arrived)
    throw Error(std::string("divergent collective: ") + who() + " is in " + name(kind) + " at " + text(where) +
                " while lanes of its warp wait in " + name(warp.kind) + " at " + text(warp.where));
  for (const Block* b : blocks)
    if (b->ended)
      throw Error(std::string(name(kind)) + " at " + text(where) + ": threads of block " + std::to_string(b->index) +
                  " have ended");
  if (meeting.arrived && !same(meeting.where, where))
    throw Error(std::string("divergent ") + name(kind) + ": " + who() + " is at " + text(where) + ", others at " +
                text(meeting.where));
  meeting.where = where;
  ++warp.apart;
  if (++meeting.arrived < expected) return launch().wait(kind, where);
  meeting.arrived = 0;
  share_views(blocks, kind);
  launch().progress();
}

inline void sync_threads(Where where) {
  if (launch().called(Kind::sync_threads, where).dropped) return;
  Block& b = *self().home;
  meet(Kind::sync_threads, where, b.meeting, int(b.threads.size()), {&b});
}

inline void sync_cluster(Where where) {
  if (launch().called(Kind::sync_cluster, where).dropped) return;
  Cluster& cluster = *self().home->cluster;
  std::vector<Block*> blocks;
  for (auto& b : cluster.blocks) blocks.push_back(b.get());
  meet(Kind::sync_cluster, where, cluster.meeting, int(blocks.size() * blocks[0]->threads.size()), blocks);
}

// --- The warp

// The last lane to arrive computes for all: compute(operands) with a pointer to each lane's.
template <class Operand, class Compute>
void collective(Kind kind, Where where, Operand& mine, Compute compute) {
  launch().called(kind, where);
  Thread& me = self();
  Block& b = *me.home;
  Warp& warp = b.warp(me);
  const int lane = me.thread % lanes, first = me.thread - lane;
  const auto diverge = [&](const std::string& why) {
    throw Error("divergent collective: thread " + std::to_string(me.thread) + " of block " + std::to_string(me.block) +
                " is in " + name(kind) + " at " + text(where) + " while " + why);
  };
  if (warp.apart) diverge("lanes of its warp wait in a barrier or have ended");
  if (first + lanes > int(b.threads.size())) diverge("its warp lacks lanes");
  if (warp.arrived && (warp.kind != kind || !same(warp.where, where)))
    diverge(std::string("lanes of its warp are in ") + name(warp.kind) + " at " + text(warp.where));
  warp.kind = kind, warp.where = where, warp.operands[lane] = &mine;
  if (++warp.arrived < lanes) return launch().wait(kind, where);
  warp.arrived = 0;
  compute(reinterpret_cast<Operand* const*>(warp.operands));
  for (int i = 0; i < lanes; ++i)
    if (i != lane) launch().wake_lane(b.threads[size_t(first + i)]);
}

inline float shuffle_xor(float value, int mask, Where where) {
  struct Operand {
    float value;
    int mask;
    float result;
  } mine{value, mask, 0};
  collective(Kind::shuffle_xor, where, mine, [&](Operand* const* operands) {
    for (int i = 0; i < lanes; ++i) {
      const int from = i ^ operands[i]->mask;
      if (from < 0 || from >= lanes)
        throw Error("shuffle_xor at " + text(where) + ": mask " + std::to_string(operands[i]->mask));
      operands[i]->result = operands[from]->value;
    }
  });
  return mine.result;
}

}  // namespace fusedrnn::emulator
