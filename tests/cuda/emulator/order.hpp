// What happened before what: the ground of both race detectors.
//
// A block counts its barriers: its *epoch*. All that its threads did in an earlier epoch happened before what they do
// now. What a thread knows of the others is its *view*: for each block, up to which epoch all of its accesses happened
// before; and of single threads, which released something since their block's last barrier, up to which release.
// A release (store_release, push, arrive) hands a copy of the view on, and an acquire joins it to the reader's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <source_location>
#include <vector>

namespace fusedrnn::emulator {

using Where = std::source_location;

// One access to memory, or one of several by threads of one block in one epoch (`many`).
struct Access {
  Where where;
  uint32_t epoch = 0;     // of the block
  uint32_t releases = 0;  // that the thread had made before
  uint16_t block = 0, thread = 0;
  bool made = false;
  bool many = false;
  bool flag = false;  // by store_release or load_acquire, which may race with one another
};

struct View {
  struct Part {
    uint16_t block, thread;
    uint32_t epoch, releases;
    uint32_t key() const { return uint32_t(block) << 16 | thread; }
  };
  std::vector<uint32_t> epochs;  // [blocks]
  std::vector<Part> parts;       // by rising key

  bool covers(const Access& a) const {
    if (a.epoch < epochs[a.block]) return true;
    if (a.many || parts.empty()) return false;
    const uint32_t key = uint32_t(a.block) << 16 | a.thread;
    const auto part =
        std::lower_bound(parts.begin(), parts.end(), key, [](const Part& p, uint32_t k) { return p.key() < k; });
    return part != parts.end() && part->key() == key && a.releases < part->releases;
  }
  bool covers(const View& other) const {
    for (size_t i = 0; i < epochs.size(); ++i)
      if (epochs[i] < other.epochs[i]) return false;
    for (const Part& p : other.parts) {
      Access last;
      last.block = p.block, last.thread = p.thread, last.epoch = p.epoch, last.releases = p.releases - 1;
      if (!covers(last)) return false;
    }
    return true;
  }
  void add(const Part& part) {
    if (part.epoch < epochs[part.block]) return;
    const auto at =
        std::lower_bound(parts.begin(), parts.end(), part.key(), [](const Part& p, uint32_t k) { return p.key() < k; });
    if (at == parts.end() || at->key() != part.key())
      parts.insert(at, part);
    else if (at->releases < part.releases)
      *at = part;
  }
  void join(const View& other) {
    for (size_t i = 0; i < epochs.size(); ++i) epochs[i] = std::max(epochs[i], other.epochs[i]);
    std::vector<Part> both;
    both.reserve(parts.size() + other.parts.size());
    std::merge(parts.begin(), parts.end(), other.parts.begin(), other.parts.end(), std::back_inserter(both),
               [](const Part& a, const Part& b) { return a.key() < b.key(); });
    parts.clear();
    for (const Part& p : both) {
      if (p.epoch < epochs[p.block]) continue;
      if (parts.empty() || parts.back().key() != p.key())
        parts.push_back(p);
      else
        parts.back().releases = std::max(parts.back().releases, p.releases);
    }
  }
};

using ViewPointer = std::shared_ptr<const View>;

// Views never change once they are shared. The threads of a block often join the same two one after another.
inline ViewPointer join(const ViewPointer& a, const ViewPointer& b) {
  if (!a || a == b) return b;
  if (!b) return a;
  static ViewPointer last_a, last_b, last;
  if (a != last_a || b != last_b) {
    last_a = a, last_b = b;
    if (a->covers(*b)) {
      last = a;
    } else {
      auto both = std::make_shared<View>(*a);
      both->join(*b);
      last = both;
    }
  }
  return last;
}

// Where a thread stands in this order.
struct Standpoint {
  uint16_t block = 0, thread = 0;  // the thread's number in its block
  uint32_t epoch = 0;
  uint32_t releases = 0;
  ViewPointer view;

  Access access(Where where, bool flag = false) const {
    return {where, epoch, releases, block, thread, true, false, flag};
  }

  // Did this access happen before what the thread does now?
  bool covers(const Access& a) const {
    if (a.block == block && ((a.thread == thread && !a.many) || a.epoch < epoch)) return true;
    return view->covers(a);
  }

  // Counts a release: the thread's own part of what it hands on, besides its view.
  View::Part release() { return {block, thread, epoch, ++releases}; }
};

}  // namespace fusedrnn::emulator
