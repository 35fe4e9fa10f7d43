// Threads, warps, blocks and clusters of a launch.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fibers.hpp"
#include "memory.hpp"

namespace fusedrnn::emulator {

constexpr int lanes = 32;

struct Block;

enum class State { ready, waiting, ended };

struct Copy {
  uint32_t to;
  const void* from;
  Where where;
};

struct Thread : Standpoint {
  Block* home = nullptr;
  Fiber fiber;
  State state = State::ready;
  Kind kind = Kind::sync_threads;  // of the primitive that it waits in or last gave way in
  Where where;
  bool paused = false;  // kind and where say something
  std::vector<Copy> copies;
  const void* polled = nullptr;  // the flag that it read last, and of which age it found it
  uint64_t found = 0;
  int flags_under_way = 0;
};

// The rendezvous of a warp's lanes.
struct Warp {
  int arrived = 0;
  Kind kind = Kind::mma;
  Where where;
  void* operands[lanes] = {};
  int apart = 0;  // lanes that wait in a barrier or have ended
};

// A barrier in shared memory (mbarrier with one arrival to a phase).
struct Barrier {
  uint32_t phase = 0;               // the phase that is not over
  bool arrived = false;             // in this phase
  int64_t expected = 0;             // bytes to come; negative while pushes are ahead of `arrive`
  std::shared_ptr<View> gathering;  // what happened before the end of this phase
  std::vector<ViewPointer> joined;  // the views that it took up
  ViewPointer ended;                // what happened before the end of the phase before
  Access init;

  void take_up(const ViewPointer& view, const View::Part& part) {
    if (std::find(joined.begin(), joined.end(), view) == joined.end()) {
      joined.push_back(view);
      if (gathering)
        gathering->join(*view);
      else
        gathering = std::make_shared<View>(*view);
    }
    gathering->add(part);
  }
};

// A barrier of threads, of a block or a cluster.
struct Meeting {
  int arrived = 0;
  Where where;
};

struct Cluster;

struct Block {
  Block(int number, int thread_count, size_t shared_bytes)
      : index(number), threads(size_t(thread_count)), shared(shared_bytes) {
    warps.resize(size_t((thread_count + lanes - 1) / lanes));
  }

  int index;
  Cluster* cluster = nullptr;
  uint32_t epoch = 0;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  SharedMemory shared;
  std::map<uint32_t, Barrier> barriers;  // by address
  Meeting meeting;
  int ended = 0;
  int pushes_under_way = 0;            // to this block
  std::map<uint32_t, Access> pushers;  // the last push of each remote thread to this block

  bool over() const { return ended == int(threads.size()); }
  Warp& warp(const Thread& t) { return warps[t.thread / lanes]; }
};

struct Cluster {
  std::vector<std::unique_ptr<Block>> blocks;
  Meeting meeting;
};

inline bool same(Where a, Where b) { return a.line() == b.line() && std::string_view(a.file_name()) == b.file_name(); }

}  // namespace fusedrnn::emulator
