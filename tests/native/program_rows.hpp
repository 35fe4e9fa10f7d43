// What the tests of a program's kernels share: the same rows as blocks of L = 16 and of L = 1, beside a plain loop over
// one row, whose bits both must have. And nothing past the end is written.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "../../csrc/core/dispatch.hpp"
#include "checks.hpp"

using namespace fusedrnn;

constexpr int64_t lanes = program_lanes;
inline bool fused;  // whether this set's fma() rounds once

template <class T>
T fma_as_kernels(T a, T b, T c) {
  if (fused) return std::fma(a, b, c);
  volatile T product = a * b;
  return product + c;
}

template <class T>
bool same_numbers(const std::vector<T>& a, const std::vector<T>& b) {  // NaN is NaN, whatever its bits
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!(std::isnan(a[i]) && std::isnan(b[i])) && std::memcmp(&a[i], &b[i], sizeof(T)) != 0) return false;
  return true;
}

template <class T>
using Row = std::vector<T>;
template <class T>
using Sixteen = std::vector<Row<T>>;  // `lanes` of them

// An array as kernels see it: its numbers, then a vector's room, which they may read.
template <class T>
struct Block {
  static constexpr std::size_t slack = 64 / sizeof(T);
  std::vector<T> data;
  explicit Block(std::size_t n) : data(n + slack, T(-77)) {}
  bool intact() const {
    return std::all_of(data.end() - slack, data.end(), [](T v) { return v == T(-77); });
  }
};

// [width][L] of the rows from `first` on.
template <class T>
Block<T> block_of(const Sixteen<T>& rows, int64_t L, int64_t first) {
  const std::size_t width = rows[0].size();
  Block<T> block(width * std::size_t(L));
  for (std::size_t i = 0; i < width; ++i)
    for (int64_t l = 0; l < L; ++l) block.data[i * std::size_t(L) + std::size_t(l)] = rows[std::size_t(first + l)][i];
  return block;
}

template <class T>
using Kernels = typename ProgramKernels<T>::ForLanes;
template <class T>
using Call = std::function<void(const Kernels<T>&, T* out, const std::vector<const T*>& in)>;
template <class T>
using Plain = std::function<void(Row<T>& out, const Sixteen<T>& in)>;  // one row; in: the operands

// The kernel over 16 rows at once and one by one against the plain loop.
template <class T>
void compare(const std::string& what, const std::vector<Sixteen<T>>& operands, const Sixteen<T>& start,
             const Call<T>& call, const Plain<T>& plain) {
  Sixteen<T> wanted = start;
  for (int64_t r = 0; r < lanes; ++r) {
    Sixteen<T> in;
    for (const Sixteen<T>& operand : operands) in.push_back(operand[std::size_t(r)]);
    plain(wanted[std::size_t(r)], in);
  }
  for (const int64_t L : {int64_t(1), lanes}) {
    bool good = true, intact = true;
    for (int64_t first = 0; first < lanes; first += L) {
      std::vector<Block<T>> blocks;
      std::vector<const T*> in;
      for (const Sixteen<T>& operand : operands) blocks.push_back(block_of(operand, L, first));
      for (const Block<T>& block : blocks) in.push_back(block.data.data());
      Block<T> out = block_of(start, L, first);
      call(program_kernels<T>().lanes[L == 1 ? 0 : 1], out.data.data(), in);
      intact = intact && out.intact();
      good = good && same_numbers(out.data, block_of(wanted, L, first).data);
    }
    check(good, what + " at L " + std::to_string(L));
    check(intact, what + " writes past the end at L " + std::to_string(L));
  }
}

template <class T>
struct Maker {
  std::mt19937 generator{12345};
  Sixteen<T> rows(int64_t width, double scale = 2) {
    Sixteen<T> r;
    for (int64_t l = 0; l < lanes; ++l) r.push_back(random<T>(generator, width, scale));
    return r;
  }
  // Few different numbers, with zeros of both signs and, for some rows, NaN.
  Sixteen<T> ties(int64_t width, bool nan) {
    Sixteen<T> r = rows(width, 3);
    const T limit = std::numeric_limits<T>::infinity();
    for (std::size_t l = 0; l < r.size(); ++l)
      for (std::size_t i = 0; i < r[l].size(); ++i) {
        T& v = r[l][i];
        v = std::round(v);
        if (v == 2) v = limit;
        if (v == -2) v = -limit;
        if (nan && l % 2 == 0 && generator() % 8 == 0) v = std::numeric_limits<T>::quiet_NaN();
      }
    return r;
  }
};

template <class T>
Sixteen<T> zeros(int64_t width) {
  return Sixteen<T>(std::size_t(lanes), Row<T>(std::size_t(width), T(0)));
}

// f(T(), the name of what runs) for each instruction set and scalar type.
template <class F>
void each_set(F f) {
  for (const std::string& isa : available_isas()) {
    if (isa == "avx512_bf16_vnni") continue;  // programs are avx512's
    set_isa(isa);
#if defined(__aarch64__)
    fused = true;
#else
    fused = isa != "baseline";
#endif
    f(float(), isa + " float ");
    f(double(), isa + " double ");
  }
}
