// Recycled blocks: a block comes back, and a child of fork can take one whatever other threads were doing.

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>

#include "../../csrc/core/blocks.hpp"

namespace {

constexpr std::size_t bytes = std::size_t(1) << 20;
constexpr int forks = 300;

bool comes_back() {
  void* const block = fusedrnn::take_block(bytes);
  std::memset(block, 1, bytes);
  fusedrnn::give_block(block);
  void* const again = fusedrnn::take_block(bytes);
  fusedrnn::give_block(again);
  return again == block;
}

bool survives_fork() {
  std::atomic<bool> running{true};
  std::thread busy([&] {
    while (running) fusedrnn::give_block(fusedrnn::take_block(bytes));
  });
  bool good = true;
  for (int i = 0; good && i < forks; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(10);  // a child that waits for a lock is ended
      fusedrnn::give_block(fusedrnn::take_block(bytes));
      _exit(0);
    }
    int status = 0;
    good = child > 0 && waitpid(child, &status, 0) == child && status == 0;
  }
  running = false;
  busy.join();
  return good;
}

}  // namespace

int main() {
  if (!comes_back()) return std::puts("a block that was given back should be handed out again"), 1;
  if (!survives_fork()) return std::puts("a child of fork could not take a block"), 1;
  std::printf("blocks come back, and %d children of fork took theirs\n", forks);
}
