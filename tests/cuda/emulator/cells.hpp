// The race detector: for each piece of memory the last write and the reads since, of which each must have happened
// before the next access that conflicts with it. It is exact for the accesses that were made: a race is found in
// whichever order the two happened to run, not only where it made a difference.
//
// This is the emulator's weak memory model too. A program without data races cannot tell a memory with store buffers
// and stale caches from a simple one; so instead of buffering stores and guessing what a reader might see, a read that
// is not ordered after every write is an error. (Flags, the only accesses that may race, arrive late: scheduler.hpp.)
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "emulator.hpp"
#include "order.hpp"

namespace fusedrnn::emulator {

inline std::string file_of(Where where) {
  const std::string path = where.file_name();
  return path.substr(path.find_last_of('/') + 1);
}
inline std::string text(Where where) { return file_of(where) + ":" + std::to_string(where.line()); }
inline std::string text(const Access& a) {
  return text(a.where) + " (block " + std::to_string(a.block) + ", thread " + std::to_string(a.thread) +
         (a.many ? " and others)" : ")");
}

enum class Transit : uint8_t { none, copy, push, barrier };

// What is known of some neighbouring bytes that were always accessed together.
struct Cell {
  Access write;
  Access read;                                  // of the first block that read since
  std::unique_ptr<std::vector<Access>> others;  // of the other blocks, one each
  Transit transit = Transit::none;              // not to be touched: data under way, or a barrier

  Cell() = default;
  Cell(Cell&&) = default;
  Cell(const Cell& c) : write(c.write), read(c.read), transit(c.transit) {
    if (c.others) others = std::make_unique<std::vector<Access>>(*c.others);
  }
};

// The cells of a page. They are as large as the narrowest access so far: 16 bytes at first, split when one is narrower.
class Page {
 public:
  explicit Page(size_t bytes) : cells_(bytes >> shift_) {}

  // The cells of an aligned access to `size` bytes.
  std::pair<Cell*, Cell*> cells(size_t offset, size_t size) {
    while (size_t(1) << shift_ > size) split();
    Cell* first = cells_.data() + (offset >> shift_);
    return {first, first + (size >> shift_)};
  }

 private:
  void split() {
    std::vector<Cell> finer;
    finer.reserve(cells_.size() * 2);
    for (Cell& c : cells_) {
      finer.push_back(c);
      finer.push_back(std::move(c));
    }
    cells_ = std::move(finer);
    --shift_;
  }

  int shift_ = 4;
  std::vector<Cell> cells_;
};

// Checks and notes accesses. `memory()` names the place in an error.
class Detector {
 public:
  template <class Name>
  static void read(Cell& c, const Standpoint& me, Where where, bool flag, const Name& memory) {
    if (c.transit != Transit::none) untouchable(c, "read", me.access(where), memory());
    if (c.write.made && !(flag && c.write.flag) && !me.covers(c.write))
      race("read", me.access(where), "write", c.write, memory());
    Access& last = last_read(c, me.block);
    if (last.made && last.epoch == me.epoch && (last.many || last.thread != me.thread)) {
      last.many = true;
      last.flag &= flag;
    } else {
      last = me.access(where, flag);
    }
  }

  template <class Name>
  static void write(Cell& c, const Standpoint& me, Where where, bool flag, const Name& memory) {
    if (c.transit != Transit::none) untouchable(c, "write", me.access(where), memory());
    const auto ordered = [&](const Access& a) { return !a.made || (flag && a.flag) || me.covers(a); };
    if (!ordered(c.write)) race("write", me.access(where), "write", c.write, memory());
    if (!ordered(c.read)) race("write", me.access(where), "read", c.read, memory());
    if (c.others) {
      for (const Access& a : *c.others)
        if (!ordered(a)) race("write", me.access(where), "read", a, memory());
      c.others->clear();
    }
    c.read.made = false;
    c.write = me.access(where, flag);
  }

 private:
  // The entry for this block's reads.
  static Access& last_read(Cell& c, uint16_t block) {
    if (!c.read.made || c.read.block == block) return c.read;
    if (!c.others) c.others = std::make_unique<std::vector<Access>>();
    for (Access& a : *c.others)
      if (a.block == block) return a;
    return c.others->emplace_back();
  }

  [[noreturn]] static void untouchable(const Cell& c, const std::string& what, const Access& a,
                                       const std::string& memory) {
    const char* why = c.transit == Transit::copy   ? "a copy_async is still under way: "
                      : c.transit == Transit::push ? "a push is still under way: "
                                                   : "a barrier lives there: ";
    throw Error(what + " of " + memory + " by " + text(a) + ", where " + why + text(c.write));
  }
  [[noreturn]] static void race(const std::string& what, const Access& a, const std::string& earlier_what,
                                const Access& earlier, const std::string& memory) {
    throw Error("race: " + what + " of " + memory + " by " + text(a) + " is not ordered after the " + earlier_what +
                " by " + text(earlier));
  }
};

}  // namespace fusedrnn::emulator
