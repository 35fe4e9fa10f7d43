// A launch: resumes the threads in a random order, delivers what is under way between blocks, admits blocks as others
// end, and knows when nothing can go on.
#pragma once

#include <functional>
#include <set>
#include <unordered_map>

#include "grid.hpp"

namespace fusedrnn::emulator {

struct Shape {
  int blocks, threads, shared_bytes, cluster;
  bool cooperative;
};

// splitmix64
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  size_t below(size_t n) { return size_t((next() >> 32) * n >> 32); }
  bool chance(double p) { return double(next() >> 11) * 0x1p-53 < p; }

 private:
  uint64_t state_;
};

// How a call site was used, and what is planted there.
struct Call {
  long count = 0;
  bool dropped = false, relaxed = false;
};

class Launch {
 public:
  inline static Launch* now = nullptr;
  inline static Thread* self = nullptr;

  Launch(const Shape& shape, std::function<void()> kernel)
      : random(settings.seed), shape_(shape), kernel_(std::move(kernel)) {
    check(shape);
    constexpr double eagerness[] = {0.02, 0.5, 0.98};
    delivery_ = eagerness[random.below(3)];
    slow_block_ = int(random.below(size_t(shape.blocks)));
    slow_thread_ = int(random.below(size_t(shape.threads)) >> random.below(9));  // low numbers poll and raise flags
  }

  void run() {
    for (int i = 0; i < shape_.blocks / shape_.cluster; ++i) waiting_.push_back(i);
    now = this;
    try {
      admit();
      while (live_ > 0) step();
      while (under_way()) deliver();
      finish();
    } catch (...) {
      unwind();
      finish();
      throw;
    }
  }

  const Shape& shape() const { return shape_; }

  // Counts a call and says what is planted there.
  const Call& called(Kind kind, Where where) {
    const Key key{where.file_name(), where.line(), kind};
    auto& [known, call] = recent_calls_[Hash()(key) % recent_calls_.size()];
    if (!call || known != key) known = key, call = &find(key);
    ++call->count;
    return *call;
  }

  // --- Called by the running thread

  void wait(Kind kind, Where where) {
    self->state = State::waiting;
    leave(kind, where);
  }
  void give_way(Kind kind, Where where) {
    ready_.push_back(self);
    leave(kind, where);
  }
  void perhaps_give_way(Kind kind, Where where) {
    if (random.chance(settings.preemption)) give_way(kind, where);
  }
  void wake(Thread& t) {
    t.state = State::ready;
    ready_.push_back(&t);
  }

  // The lanes of a warp that met go on before others, while their stacks are in the cache.
  void wake_lane(Thread& t) {
    t.state = State::ready;
    lanes_.push_back(&t);
  }

  // Something changed that a thread may have waited for.
  void progress() { idle_ = 0; }
  // A look at a flag, or a pause between two.
  void polled() {
    if (++idle_ > long(settings.rounds) * std::max(live_, 512) && !under_way())
      throw Error("livelock: threads poll and nothing changes; " + whereabouts());
  }

  // Calls `arrive` later: pushes in any order, the flags of one thread in theirs.
  void send_push(std::function<void()> arrive) { pushes_.push_back(std::move(arrive)); }
  void send_flag(Thread& of, std::function<void()> arrive) {
    ++of.flags_under_way;
    flags_.push_back({&of, std::move(arrive)});
  }
  // A thread sees its own flags at once.
  void deliver_flags(Thread& of) {
    while (of.flags_under_way) deliver_flag(of);
  }

  Block& block_of_cluster(const Block& home, int number) { return *home.cluster->blocks[size_t(number)]; }

  GlobalMemory global;
  struct Flag {
    uint64_t age = 0;
    ViewPointer view;
  };
  std::unordered_map<const void*, Flag> flags;
  uint64_t publications = 0;
  Random random;

 private:
  struct Key {
    const char* file;
    unsigned line;
    Kind kind;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    size_t operator()(const Key& k) const {
      return std::hash<const char*>()(k.file) * 31 + k.line * 16 + size_t(k.kind);
    }
  };
  struct Sent {
    Thread* of;
    std::function<void()> arrive;
  };
  struct Unwinding {};

  static Site site(const Key& k) {
    const std::string path = k.file;
    return {path.substr(path.find_last_of('/') + 1), k.line, k.kind};
  }

  Call& find(const Key& key) {
    auto [at, fresh] = calls_.try_emplace(key);
    if (fresh)
      for (const Fault& f : settings.faults)
        if (f.site == site(key)) (f.change == Change::drop ? at->second.dropped : at->second.relaxed) = true;
    return at->second;
  }

  static void check(const Shape& s) {
    const auto refuse = [](const std::string& why) { throw Error("this launch cannot be: " + why); };
    if (s.blocks < 1 || s.blocks > 65535) refuse(std::to_string(s.blocks) + " blocks");
    if (s.threads < 1 || s.threads > 1024) refuse(std::to_string(s.threads) + " threads in a block");
    if (s.shared_bytes < 0 || s.shared_bytes > settings.shared_limit)
      refuse(std::to_string(s.shared_bytes) + " bytes of shared memory, of " + std::to_string(settings.shared_limit));
    if (s.cluster < 1 || s.cluster > settings.cluster || s.blocks % s.cluster)
      refuse("clusters of " + std::to_string(s.cluster) + " among " + std::to_string(s.blocks) + " blocks");
    if (s.cluster > settings.capacity || (s.cooperative && s.blocks / s.cluster > settings.capacity / s.cluster))
      refuse(std::to_string(s.blocks) + " blocks at once where " + std::to_string(settings.capacity) + " fit");
  }

  void admit() {
    while (!waiting_.empty() && resident_ + shape_.cluster <= settings.capacity) {
      const size_t pick = random.below(waiting_.size());
      const int number = waiting_[pick];
      waiting_[pick] = waiting_.back();
      waiting_.pop_back();
      auto view = std::make_shared<View>();
      view->epochs.resize(size_t(shape_.blocks));
      auto cluster = std::make_unique<Cluster>();
      for (int i = 0; i < shape_.cluster; ++i) {
        const int index = number * shape_.cluster + i;
        auto block = std::make_unique<Block>(index, shape_.threads, size_t(shape_.shared_bytes));
        block->cluster = cluster.get();
        for (int t = 0; t < shape_.threads; ++t) {
          Thread& thread = block->threads[size_t(t)];
          thread.block = uint16_t(index), thread.thread = uint16_t(t), thread.home = block.get(), thread.view = view;
          ready_.push_back(&thread);
        }
        cluster->blocks.push_back(std::move(block));
      }
      live_ += shape_.cluster * shape_.threads;
      resident_ += shape_.cluster;
      clusters_.push_back(std::move(cluster));
    }
  }

  void step() {
    if (!lanes_.empty()) return advance(take(lanes_, lanes_.size() - 1));
    if (under_way() && (ready_.empty() || random.chance(delivery_))) return deliver();
    if (ready_.empty()) throw Error("deadlock: no thread can go on; " + whereabouts());
    size_t pick = random.below(ready_.size());
    const Thread& picked = *ready_[pick];
    if (picked.block == slow_block_ && picked.thread == slow_thread_ && random.chance(0.995))
      pick = random.below(ready_.size());
    advance(take(ready_, pick));
  }

  static Thread& take(std::vector<Thread*>& from, size_t pick) {
    std::swap(from[pick], from.back());
    Thread& t = *from.back();
    from.pop_back();
    return t;
  }

  void advance(Thread& t) {
    resume(t);
    if (error_) std::rethrow_exception(error_);
    if (t.state == State::ended && t.home->over()) retire(*t.home);
  }

  void resume(Thread& t) {
    ++switches_;
    self = &t;
    if (!t.fiber.started()) t.fiber.start(&Launch::body, &t);
    t.fiber.resume();
    self = nullptr;
  }

  static void body(void* thread) {
    Thread& t = *static_cast<Thread*>(thread);
    try {
      now->kernel_();
      now->end(t);
    } catch (Unwinding) {
    } catch (...) {
      now->error_ = std::current_exception();
    }
    t.state = State::ended;
  }

  void leave(Kind kind, Where where) {
    self->kind = kind, self->where = where, self->paused = true;
    self->fiber.suspend();
    if (unwinding_) throw Unwinding();
  }

  void end(Thread& t) {
    Block& b = *t.home;
    const auto who = [&] { return "thread " + std::to_string(t.thread) + " of block " + std::to_string(b.index); };
    if (!t.copies.empty()) throw Error(who() + " ended with a copy_async under way: " + text(t.copies.back().where));
    if (b.meeting.arrived) throw Error(who() + " ended while others wait in sync_threads at " + text(b.meeting.where));
    if (b.cluster->meeting.arrived)
      throw Error(who() + " ended while others wait in sync_cluster at " + text(b.cluster->meeting.where));
    Warp& w = b.warp(t);
    if (w.arrived)
      throw Error(std::string("divergent collective: ") + who() + " ended while lanes of its warp wait in " +
                  name(w.kind) + " at " + text(w.where));
    ++w.apart;
    ++b.ended;
    --live_;
    progress();
    if (b.over()) check_pushes(b);
  }

  // A block's shared memory ends with it: every push to it must have happened before.
  void check_pushes(Block& b) {
    for (const auto& [thread, push] : b.pushers) {
      bool covered = false;
      for (const Thread& t : b.threads) covered = covered || t.covers(push);
      if (!covered)
        throw Error("block " + std::to_string(b.index) + " ended without waiting for the push by " + text(push));
    }
  }

  void retire(Block& b) {
    --resident_;
    for (const auto& other : b.cluster->blocks)
      if (!other->over()) return;
    // A flag under way refers to its thread; then the cluster stays until the launch ends.
    for (const auto& other : b.cluster->blocks)
      for (const Thread& t : other->threads)
        if (t.flags_under_way) return admit();
    std::erase_if(clusters_, [gone = b.cluster](const auto& cluster) { return cluster.get() == gone; });
    admit();
  }

  bool under_way() const { return !pushes_.empty() || !flags_.empty(); }

  void deliver() {
    const size_t pick = random.below(pushes_.size() + flags_.size());
    if (pick >= pushes_.size()) return deliver_flag(*flags_[pick - pushes_.size()].of);
    std::swap(pushes_[pick], pushes_.back());
    const std::function<void()> arrive = std::move(pushes_.back());
    pushes_.pop_back();
    arrive();
    progress();
  }
  void deliver_flag(Thread& of) {
    const auto first = std::find_if(flags_.begin(), flags_.end(), [&](const Sent& f) { return f.of == &of; });
    const std::function<void()> arrive = std::move(first->arrive);
    flags_.erase(first);
    --of.flags_under_way;
    arrive();
    progress();
  }

  // After an error: every thread that has begun leaves its kernel by an exception.
  void unwind() {
    unwinding_ = true;
    for (auto& cluster : clusters_)
      for (auto& block : cluster->blocks)
        for (Thread& t : block->threads)
          if (t.fiber.started()) resume(t);
  }

  void finish() {
    ++statistics.launches;
    statistics.switches += switches_;
    for (const auto& [key, call] : calls_) statistics.sites[site(key)] += call.count;
    now = nullptr;
  }

  std::string whereabouts() const {
    std::string out;
    for (const auto& cluster : clusters_)
      for (const auto& block : cluster->blocks) {
        if (block->over()) continue;
        std::map<std::string, int> places;
        for (const Thread& t : block->threads)
          ++places[t.state == State::ended ? "ended"
                   : t.paused              ? std::string(name(t.kind)) + " at " + text(t.where)
                                           : "not begun"];
        out += (out.empty() ? "block " : "; block ") + std::to_string(block->index) + ": ";
        for (bool first = true; const auto& [place, count] : places) {
          out += (first ? "" : ", ") + std::to_string(count) + " in " + place;
          first = false;
        }
      }
    if (!waiting_.empty())
      out += "; " + std::to_string(waiting_.size() * size_t(shape_.cluster)) + " blocks wait to begin";
    return out;
  }

  Shape shape_;
  std::function<void()> kernel_;
  double delivery_ = 0.5;                 // how soon flags and pushes arrive
  int slow_block_ = 0, slow_thread_ = 0;  // one thread falls behind, as far as others let it
  std::vector<int> waiting_;              // clusters that have not begun
  std::vector<std::unique_ptr<Cluster>> clusters_;
  std::vector<Thread*> ready_, lanes_;
  std::vector<std::function<void()>> pushes_;
  std::vector<Sent> flags_;                    // in the order of their stores
  std::unordered_map<Key, Call, Hash> calls_;  // its elements stay where they are
  std::array<std::pair<Key, Call*>, 64> recent_calls_{};
  std::exception_ptr error_;
  bool unwinding_ = false;
  int resident_ = 0, live_ = 0;
  long idle_ = 0, switches_ = 0;
};

}  // namespace fusedrnn::emulator
