// Fibers: functions with a stack of their own that the scheduler resumes and that suspend themselves.
//
// The switch is a few instructions on x86-64 and aarch64, and ucontext elsewhere or with FUSEDRNN_EMULATOR_UCONTEXT.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(FUSEDRNN_EMULATOR_UCONTEXT)
#define FUSEDRNN_EMULATOR_UCONTEXT
#endif
#ifdef FUSEDRNN_EMULATOR_UCONTEXT
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define FUSEDRNN_EMULATOR_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FUSEDRNN_EMULATOR_ASAN 1
#endif
#endif
#ifdef FUSEDRNN_EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef FUSEDRNN_EMULATOR_UCONTEXT
// fusedrnn_emulator_switch(save, to): pushes the registers that a callee must keep, leaves the stack pointer in *save,
// and goes on where the stack `to` was left. One copy, however many files include this.
extern "C" void fusedrnn_emulator_switch(void** save, void* to);
asm(R"(
.pushsection .text.fusedrnn_emulator_switch,"axG",%progbits,fusedrnn_emulator_switch,comdat
.weak fusedrnn_emulator_switch
.type fusedrnn_emulator_switch,%function
fusedrnn_emulator_switch:
)"
#ifdef __x86_64__
    R"(
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)"
#else
    R"(
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)"
#endif
    R"(
.size fusedrnn_emulator_switch, .-fusedrnn_emulator_switch
.popsection
)");
#endif

namespace fusedrnn::emulator {

// Memory with a page below it that traps, so that an overflow is no silent corruption.
class Stack {
 public:
  static constexpr size_t bytes = 256 * 1024;  // only the pages that are touched cost memory

  Stack() : guard_(size_t(sysconf(_SC_PAGESIZE))) {
    void* base =
        mmap(nullptr, guard_ + bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<char*>(base);
    mprotect(base_, guard_, PROT_NONE);
  }
  ~Stack() { munmap(base_, guard_ + bytes); }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  char* bottom() const { return base_ + guard_; }

 private:
  size_t guard_;
  char* base_;
};

// Where an execution was left.
struct Context {
#ifdef FUSEDRNN_EMULATOR_UCONTEXT
  ucontext_t registers;
#else
  void* stack_pointer = nullptr;
#endif
#ifdef FUSEDRNN_EMULATOR_ASAN
  void* fake_stack = nullptr;
  const void* bottom = nullptr;
  size_t size = 0;
#endif
};

inline void switch_context(Context& from, Context& to, [[maybe_unused]] bool forever = false) {
#ifdef FUSEDRNN_EMULATOR_ASAN
  __sanitizer_start_switch_fiber(forever ? nullptr : &from.fake_stack, to.bottom, to.size);
#endif
#ifdef FUSEDRNN_EMULATOR_UCONTEXT
  swapcontext(&from.registers, &to.registers);
#else
  fusedrnn_emulator_switch(&from.stack_pointer, to.stack_pointer);
#endif
#ifdef FUSEDRNN_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

class Fiber {
 public:
  using Body = void (*)(void*);

  bool started() const { return stack_ != nullptr; }

  void start(Body body, void* argument) {
    stack_ = take_stack();
    body_ = body;
    argument_ = argument;
    char* bottom = stack_->bottom();
    // Stacks that begin at one offset in their pages would fight for the same lines of the cache.
    static unsigned colour = 0;
    const size_t size = Stack::bytes - (colour++ % 32) * 128;
#ifdef FUSEDRNN_EMULATOR_ASAN
    context_.bottom = bottom;
    context_.size = Stack::bytes;
    __asan_unpoison_memory_region(bottom, Stack::bytes);
#endif
#ifdef FUSEDRNN_EMULATOR_UCONTEXT
    getcontext(&context_.registers);
    context_.registers.uc_stack.ss_sp = bottom;
    context_.registers.uc_stack.ss_size = size;
    context_.registers.uc_link = nullptr;
    makecontext(&context_.registers, enter, 0);
#elif defined(__x86_64__)
    void** top = reinterpret_cast<void**>(bottom + size);
    *--top = nullptr;  // where `enter` would return to
    *--top = reinterpret_cast<void*>(enter);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context_.stack_pointer = top;
#else
    void** top = reinterpret_cast<void**>(bottom + size) - 20;
    for (int i = 0; i < 20; ++i) top[i] = nullptr;
    top[11] = reinterpret_cast<void*>(enter);
    context_.stack_pointer = top;
#endif
  }

  // Runs the fiber until it suspends itself or ends.
  void resume() {
    running_ = this;
    switch_context(main_, context_);
    if (ended_) {
      stacks().push_back(std::move(stack_));
      ended_ = false;
    }
  }

  // Back to the one who resumed this fiber.
  void suspend() { switch_context(context_, main_); }

 private:
  static void enter() {
#ifdef FUSEDRNN_EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &main_.bottom, &main_.size);
#endif
    Fiber& self = *running_;
    self.body_(self.argument_);
    self.ended_ = true;
    switch_context(self.context_, main_, true);
  }

  // Stacks are kept from launch to launch: mapping thousands costs more than many a kernel.
  static std::vector<std::unique_ptr<Stack>>& stacks() {
    static std::vector<std::unique_ptr<Stack>> pool;
    return pool;
  }
  static std::unique_ptr<Stack> take_stack() {
    if (stacks().empty()) return std::make_unique<Stack>();
    std::unique_ptr<Stack> stack = std::move(stacks().back());
    stacks().pop_back();
    return stack;
  }

  inline static Context main_;
  inline static Fiber* running_ = nullptr;

  Context context_;
  std::unique_ptr<Stack> stack_;
  Body body_ = nullptr;
  void* argument_ = nullptr;
  bool ended_ = false;
};

}  // namespace fusedrnn::emulator
