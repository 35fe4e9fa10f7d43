// Shared memory of a block and the global memory of a launch: where data may be accessed, and in which order.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "cells.hpp"

namespace fusedrnn::emulator {

class SharedMemory {
 public:
  // 0xff in every byte is a NaN in float32, bfloat16 and float16.
  explicit SharedMemory(size_t size) : size_(size), storage_((size + 15) / 16) {
    for (Line& line : storage_) std::memset(&line, 0xff, sizeof line);
    for (size_t begin = 0; begin < size; begin += page_bytes) pages_.emplace_back(page_bytes);
  }

  char* at(size_t address) { return reinterpret_cast<char*>(storage_.data()) + address; }

  void read(size_t address, size_t size, size_t alignment, int block, const Standpoint& me, Where where) {
    visit(address, size, alignment, block, where,
          [&](Cell& c, auto memory) { Detector::read(c, me, where, false, memory); });
  }
  void write(size_t address, size_t size, size_t alignment, int block, const Standpoint& me, Where where,
             Transit transit = Transit::none) {
    visit(address, size, alignment, block, where, [&](Cell& c, auto memory) {
      Detector::write(c, me, where, false, memory);
      c.transit = transit;
    });
  }
  // What was under way is there, and counts as written at this moment.
  void landed(size_t address, size_t size, const Access& write) {
    visit(address, size, size, 0, write.where, [&](Cell& c, auto) {
      c.transit = Transit::none;
      c.write = write;
    });
  }

 private:
  static constexpr size_t page_bytes = 256;
  struct alignas(16) Line {
    char byte[16];
  };

  template <class F>
  void visit(size_t address, size_t size, size_t alignment, int block, Where where, F f) {
    const auto memory = [&] {
      return "shared memory at " + std::to_string(address) + " of block " + std::to_string(block);
    };
    if (address + size > size_)
      throw Error("out of bounds: " + memory() + ", which has " + std::to_string(size_) + " bytes, at " + text(where));
    if (address % alignment) throw Error("misaligned: " + memory() + " at " + text(where));
    for (size_t end = address + size; address < end; address += alignment) {
      auto [cell, last] = pages_[address / page_bytes].cells(address % page_bytes, alignment);
      for (; cell != last; ++cell) f(*cell, memory);
    }
  }

  size_t size_;
  std::vector<Line> storage_;
  std::vector<Page> pages_;
};

// Writes go to the memory itself: what makes them visible to others is checked, not simulated.
class GlobalMemory {
 public:
  void read(const void* p, size_t size, const Standpoint& me, Where where, bool flag = false) {
    bound(p, size, where);
    visit(p, size, where, [&](Cell& c, auto memory) { Detector::read(c, me, where, flag, memory); });
  }
  void write(const void* p, size_t size, const Standpoint& me, Where where, bool flag = false) {
    bound(p, size, where);
    Bits b = bits(p, size, where);
    if (b.constant & b.mask) throw Error("write of what load_constant has read: " + name(p) + " at " + text(where));
    b.written |= b.mask;
    visit(p, size, where, [&](Cell& c, auto memory) { Detector::write(c, me, where, flag, memory); });
  }
  void read_constant(const void* p, size_t size, Where where) {
    bound(p, size, where);
    Bits b = bits(p, size, where);
    if (b.written & b.mask) throw Error("load_constant of what this launch writes: " + name(p) + " at " + text(where));
    b.constant |= b.mask;
  }

 private:
  static constexpr size_t page_bytes = 4096;
  struct Block4K {
    std::array<uint64_t, page_bytes / 64> constant{}, written{};  // one bit a byte
    std::unique_ptr<Page> cells;                                  // once anything but load_constant was here
  };
  struct Bits {
    uint64_t &constant, &written, mask;
  };

  static std::string name(const void* p) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%p", p);
    return std::string("global memory at ") + digits;
  }

  // An error where no array holds the bytes; it names the nearest.
  void bound(const void* p, size_t size, Where where) {
    const auto begin = reinterpret_cast<uintptr_t>(p);
    const auto holds = [&](const Array& a) { return begin >= a.begin && begin + size <= a.end; };
    if (settings.arrays.empty() || (array_ && holds(*array_))) return;
    for (const Array& a : settings.arrays)
      if (holds(a)) return void(array_ = &a);
    const auto distance = [&](const Array& a) {
      return begin < a.begin ? a.begin - begin : begin < a.end ? 0 : begin - a.end;
    };
    const Array& near = *std::min_element(settings.arrays.begin(), settings.arrays.end(),
                                          [&](const Array& a, const Array& b) { return distance(a) < distance(b); });
    throw Error("out of bounds: " + std::to_string(int64_t(begin - near.begin)) + " bytes from the beginning of " +
                near.name + ", which has " + std::to_string(near.end - near.begin) + ", at " + text(where));
  }

  Block4K& page(uintptr_t address) {
    const uintptr_t number = address / page_bytes;
    auto& [last, found] = recent_[number % recent_.size()];
    if (!found || last != number) last = number, found = &pages_[number];
    return *found;
  }
  Bits bits(const void* p, size_t size, Where where) {
    const auto address = reinterpret_cast<uintptr_t>(p);
    if (address % size) throw Error("misaligned: " + name(p) + " at " + text(where));
    Block4K& here = page(address);
    const size_t word = address % page_bytes / 64;
    return {here.constant[word], here.written[word], ((uint64_t(1) << size) - 1) << address % 64};
  }
  template <class F>
  void visit(const void* p, size_t size, Where where, F f) {
    const auto address = reinterpret_cast<uintptr_t>(p);
    if (address % size) throw Error("misaligned: " + name(p) + " at " + text(where));
    Block4K& here = page(address);
    if (!here.cells) here.cells = std::make_unique<Page>(page_bytes);
    auto [cell, end] = here.cells->cells(address % page_bytes, size);
    for (; cell != end; ++cell) f(*cell, [&] { return name(p); });
  }

  std::unordered_map<uintptr_t, Block4K> pages_;  // by address / page_bytes; its elements stay where they are
  std::array<std::pair<uintptr_t, Block4K*>, 64> recent_{};
  const Array* array_ = nullptr;  // that was accessed last
};

}  // namespace fusedrnn::emulator
