// Instructions that read or write at places which the program computed: indices are numbers like all others.
#pragma once

#include <atomic>
#include <cstdint>

#include "../kernels/program_table.hpp"
#include "scratch.hpp"

namespace fusedrnn {

// Turns a number of a row into a place from 0 to size - 1; NumPy counts negative ones from the end. Beyond them (or
// NaN) `bad` is set, unless the row's sequence is over, and 0 serves until the call ends with an error.
template <class T>
struct Places {
  int64_t size, lanes;
  const T* alive;  // [lanes] or null
  std::atomic<bool>& bad;

  int64_t operator()(T value, int64_t lane) const {
    const T limit = T(size);
    if (!(value >= -limit && value < limit)) {
      if (!alive || alive[lane] != T(0)) bad.store(true, std::memory_order_relaxed);
      return 0;
    }
    const auto i = int64_t(value);
    return i < 0 ? i + size : i;
  }
};

// out[o, i, e] = x[o, index[o, i, e], e]: out and index [outer, n, inner], x [outer, size, inner].
template <class T>
void gather(T* out, const T* x, const T* index, Axis axis, const Places<T>& place) {
  const int64_t inner = axis.inner * place.lanes, size = place.size;
  for (int64_t o = 0; o < axis.outer; ++o, x += size * inner)
    for (int64_t i = 0; i < axis.n; ++i, out += inner, index += inner)
      for (int64_t e = 0; e < inner; ++e) out[e] = x[place(index[e], e % place.lanes) * inner + e];
}

// out[o, index[o, i, e], e] += x[o, i, e], from zeros, by ascending i: x and index [outer, n, inner].
template <class T>
void scatter(T* out, const T* x, const T* index, Axis axis, const Places<T>& place) {
  const int64_t inner = axis.inner * place.lanes, size = place.size;
  zero(out, axis.outer * size * inner);
  for (int64_t o = 0; o < axis.outer; ++o, out += size * inner)
    for (int64_t i = 0; i < axis.n; ++i, x += inner, index += inner)
      for (int64_t e = 0; e < inner; ++e) out[place(index[e], e % place.lanes) * inner + e] += x[e];
}

// out[i, w] = table[index[i], w]: index [n], table [size, width], of each row or alike for all.
template <class T>
void take(T* out, const T* table, const T* index, int64_t n, int64_t width, bool shared, const Places<T>& place) {
  const int64_t lanes = place.lanes;
  for (int64_t i = 0; i < n; ++i, out += width * lanes)
    for (int64_t l = 0; l < lanes; ++l) {
      const int64_t p = place(index[i * lanes + l], l);
      const T* const from = shared ? table + p * width : table + p * width * lanes + l;
      for (int64_t w = 0; w < width; ++w) out[w * lanes + l] = from[w * (shared ? 1 : lanes)];
    }
}

// out[index[i], w] += x[i, w], from zeros, by ascending i: x [n, width], out [size, width].
template <class T>
void put(T* out, const T* x, const T* index, int64_t n, int64_t width, const Places<T>& place) {
  const int64_t lanes = place.lanes;
  zero(out, place.size * width * lanes);
  for (int64_t i = 0; i < n; ++i, x += width * lanes)
    for (int64_t l = 0; l < lanes; ++l) {
      T* const to = out + place(index[i * lanes + l], l) * width * lanes + l;
      for (int64_t w = 0; w < width; ++w) to[w * lanes] += x[w * lanes + l];
    }
}

}  // namespace fusedrnn
