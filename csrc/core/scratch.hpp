// Memory that dies with the call. Each thread keeps its block for the next call, so that a training loop does
// not ask the system for the same pages again and again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

namespace fusedrnn {

template <class T>
void copy(T* to, const T* from, int64_t n) {
  if (n > 0) std::memcpy(to, from, std::size_t(n) * sizeof(T));
}

// std::fill_n goes element by element where gcc does not know how many there are.
template <class T>
void zero(T* to, int64_t n) {
  if (n > 0) std::memset(to, 0, std::size_t(n) * sizeof(T));
}

// `count` elements, 64-byte aligned, of an owner of memory: Scratch below, or Memory.
template <class Owner>
class Takes {
 public:
  // Not initialised.
  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(static_cast<Owner*>(this)->take_bytes(std::size_t(count) * sizeof(T)));
  }

  template <class T>
  T* zeros(int64_t count) {
    T* p = take<T>(count);
    zero(p, count);
    return p;
  }
};

class Scratch : public Takes<Scratch> {
 public:
  Scratch() : arena_(arena()), mark_(arena_.mark()) {}
  ~Scratch() { arena_.release(mark_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  void* take_bytes(std::size_t bytes) { return arena_.take(bytes); }

 private:
  static constexpr std::size_t alignment = 64, kept_bytes = std::size_t(256) << 20;

  struct Block {
    char* data;
    std::size_t size;
  };
  struct Mark {
    std::size_t block, offset;
  };

  class Arena {
   public:
    ~Arena() { clear(); }

    Mark mark() const { return {block_, offset_}; }

    void* take(std::size_t bytes) {
      bytes = (bytes + alignment - 1) / alignment * alignment;
      while (block_ < blocks_.size() && offset_ + bytes > blocks_[block_].size) {
        ++block_;
        offset_ = 0;
      }
      if (block_ == blocks_.size()) {
        const std::size_t size = bytes > smallest ? bytes : smallest;
        blocks_.push_back({static_cast<char*>(::operator new(size, std::align_val_t(alignment))), size});
      }
      void* p = blocks_[block_].data + offset_;
      offset_ += bytes;
      return p;
    }

    void release(Mark mark) {
      block_ = mark.block;
      offset_ = mark.offset;
      if (block_ != 0 || offset_ != 0 || blocks_.size() < 2) return;
      // Several blocks become one for the next call, unless that would hold on to very much.
      std::size_t total = 0;
      for (const Block& b : blocks_) total += b.size;
      clear();
      if (total <= kept_bytes)
        if (void* p = ::operator new(total, std::align_val_t(alignment), std::nothrow))
          blocks_.push_back({static_cast<char*>(p), total});
    }

   private:
    static constexpr std::size_t smallest = std::size_t(1) << 20;

    void clear() {
      for (const Block& b : blocks_) ::operator delete(b.data, std::align_val_t(alignment));
      blocks_.clear();
    }

    std::vector<Block> blocks_;
    std::size_t block_ = 0, offset_ = 0;
  };

  static Arena& arena() {
    thread_local Arena a;
    return a;
  }

  Arena& arena_;
  Mark mark_;
};

// Memory that lives as long as this object: packed weights and state of a frozen layer.
class Memory : public Takes<Memory> {
 public:
  Memory() = default;
  ~Memory() {
    for (void* p : blocks_) ::operator delete(p, std::align_val_t(64));
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void* take_bytes(std::size_t bytes) {
    blocks_.reserve(blocks_.size() + 1);
    blocks_.push_back(::operator new(bytes, std::align_val_t(64)));
    return blocks_.back();
  }

 private:
  std::vector<void*> blocks_;
};

}  // namespace fusedrnn
