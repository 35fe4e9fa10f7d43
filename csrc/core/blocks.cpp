#include "blocks.hpp"

#include <pthread.h>
#include <sys/mman.h>

#include <mutex>
#include <new>
#include <vector>

namespace fusedrnn {
namespace {

constexpr std::size_t alignment = 64, page = 4096, kept_bytes = std::size_t(256) << 20;

// Blocks of some megabytes begin at a huge page and ask for such: a walk back through a reserve otherwise waits for the
// address of every page.
constexpr std::size_t huge_page = std::size_t(2) << 20, fewest_huge_bytes = 2 * huge_page;

std::align_val_t alignment_of(std::size_t size) {
  return std::align_val_t(size < fewest_huge_bytes ? alignment : huge_page);
}

// Lies in the 64 bytes before the memory that is handed out.
struct Header {
  std::size_t size;  // of header and memory
};

void* new_block(std::size_t size) noexcept {
  void* const p = ::operator new(size, alignment_of(size), std::nothrow);
#if defined(MADV_HUGEPAGE)
  if (p != nullptr && size >= fewest_huge_bytes) madvise(p, size, MADV_HUGEPAGE);  // a wish: without it pages are small
#endif
  return p;
}

void free_block(Header* h) { ::operator delete(h, alignment_of(h->size)); }

class Blocks {
 public:
  Header* take(std::size_t size) {
    {
      const std::lock_guard lock(mutex_);
      // The youngest is the likeliest to be in the cache.
      for (std::size_t i = idle_.size(); i-- > 0;) {
        Header* h = idle_[i];
        if (h->size < size || h->size > size + size / 4) continue;
        idle_.erase(idle_.begin() + std::ptrdiff_t(i));
        idle_bytes_ -= h->size;
        return h;
      }
    }
    void* p = new_block(size);
    if (p == nullptr) {
      shrink_to(0);
      p = new_block(size);
      if (p == nullptr) throw std::bad_alloc();
    }
    auto* h = static_cast<Header*>(p);
    h->size = size;
    return h;
  }

  void give(Header* h) noexcept {
    {
      const std::lock_guard lock(mutex_);
      try {
        idle_.push_back(h);
        idle_bytes_ += h->size;
        h = nullptr;
      } catch (const std::bad_alloc&) {
      }
    }
    if (h != nullptr) return free_block(h);
    shrink_to(kept_bytes);
  }

  // A child of fork has no other threads: a lock that one of them held at that moment would never open again.
  void before_fork() { mutex_.lock(); }
  void after_fork() { mutex_.unlock(); }

 private:
  // Oldest first.
  void shrink_to(std::size_t limit) noexcept {
    const std::lock_guard lock(mutex_);
    std::size_t gone = 0;
    while (idle_bytes_ > limit) {
      idle_bytes_ -= idle_[gone]->size;
      free_block(idle_[gone++]);
    }
    idle_.erase(idle_.begin(), idle_.begin() + std::ptrdiff_t(gone));
  }

  std::mutex mutex_;
  std::vector<Header*> idle_;
  std::size_t idle_bytes_ = 0;
};

Blocks& blocks() {
  static auto& instance = *new Blocks;  // never destroyed: arrays may outlive every static
  return instance;
}

void before_fork() { blocks().before_fork(); }
void after_fork() { blocks().after_fork(); }

}  // namespace

void* take_block(std::size_t bytes) {
  static const int registered = pthread_atfork(before_fork, after_fork, after_fork);
  (void)registered;
  if (bytes > std::size_t(-1) - alignment - page) throw std::bad_alloc();
  const std::size_t size = (bytes + alignment + page - 1) / page * page;
  return reinterpret_cast<char*>(blocks().take(size)) + alignment;
}

void give_block(void* block) noexcept {
  blocks().give(reinterpret_cast<Header*>(static_cast<char*>(block) - alignment));
}

}  // namespace fusedrnn
