// What a test sees of the emulator: its settings, the faults that it can plant, and what it counted.
//
// The emulator runs the kernels of csrc/cuda on a CPU: each CUDA thread is a fiber, the blocks that fit are alive at
// once, and a seed decides in which order they run. Whatever a GPU might get wrong is an Error that says where.
// One launch at a time; no thread but the one that launches.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace fusedrnn::emulator {

// A kernel did what the hardware does not allow, or leaves to chance.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The primitives that order threads or move data behind their backs.
enum class Kind {
  sync_threads,
  sync_cluster,
  wait_copies,
  copy_async,
  store_release,
  load_acquire,
  wait_a_little,
  init_barrier,
  arrive,
  wait_barrier,
  push,
  shuffle_xor,
  mma,
};

inline const char* name(Kind kind) {
  constexpr const char* names[] = {"sync_threads", "sync_cluster",  "wait_copies",  "copy_async", "store_release",
                                   "load_acquire", "wait_a_little", "init_barrier", "arrive",     "wait_barrier",
                                   "push",         "shuffle_xor",   "mma"};
  return names[int(kind)];
}

// A call of a primitive in the source. `file` is without its folders.
struct Site {
  std::string file;
  unsigned line;
  Kind kind;
  auto operator<=>(const Site&) const = default;
};

inline std::string name(const Site& site) {
  return site.file + ":" + std::to_string(site.line) + " " + name(site.kind);
}

// A planted bug. drop: the call does nothing. relax: a store_release publishes its flag and no data, a load_acquire
// reads the flag and orders nothing.
enum class Change { drop, relax };

struct Fault {
  Site site;
  Change change;
};

// What can be planted at a site of this kind.
inline std::vector<Change> changes(Kind kind) {
  switch (kind) {
    case Kind::sync_threads:
    case Kind::sync_cluster:
    case Kind::wait_copies:
    case Kind::init_barrier:
    case Kind::arrive:
    case Kind::wait_barrier:
    case Kind::push:
      return {Change::drop};
    case Kind::store_release:
      return {Change::drop, Change::relax};
    case Kind::load_acquire:
      return {Change::relax};
    default:
      return {};
  }
}

// Global memory that kernels may touch.
struct Array {
  std::string name;
  uintptr_t begin, end;
};

struct Settings {
  uint64_t seed = 1;
  int capacity = 1 << 16;         // blocks that are resident at once
  int cluster = 16;               // blocks of a cluster, at most
  int shared_limit = 227 * 1024;  // bytes of shared memory that a block may have
  double preemption = 1.0 / 8;    // the chance that a thread gives way where others might notice
  int rounds = 200;               // polls of every thread, nothing having changed, that make a livelock
  std::vector<Fault> faults;
  std::vector<Array> arrays;  // outside of all of them every access is an error; any is allowed where there are none
};

struct Statistics {
  long launches = 0;
  long switches = 0;
  std::map<Site, long> sites;  // how often each was called
};

inline Settings settings;
inline int mutant = 0;  // which of the bugs is switched on that a mutated copy of the kernels has (../mutants.py)
inline Statistics statistics;  // added to by each launch; a test clears it

}  // namespace fusedrnn::emulator
