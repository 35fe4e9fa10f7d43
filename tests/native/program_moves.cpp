// Instructions of programs that bring numbers elsewhere, on every instruction set that this processor runs.
#include <numeric>

#include "program_rows.hpp"

namespace {

// f(place) for each place of an array in C order.
template <class F>
void each_place(const std::vector<int64_t>& size, F f) {
  std::vector<int64_t> place(size.size(), 0);
  for (;;) {
    f(place);
    std::size_t d = size.size();
    while (d > 0 && ++place[d - 1] == size[d - 1]) place[--d] = 0;
    if (d == 0) return;
  }
}

int64_t dot(const std::vector<int64_t>& place, const int64_t* stride) {
  return std::inner_product(place.begin(), place.end(), stride, int64_t(0));
}

// Strides of an array whose axes lie in a random order, some of them with gaps, some backwards; its elements, and where
// the first one is.
struct Lay {
  int64_t stride[move_dims] = {}, elements = 1, start = 0;
  Lay(std::mt19937& generator, const std::vector<int64_t>& size, bool repeats) {
    std::vector<std::size_t> order(size.size());
    std::iota(order.begin(), order.end(), std::size_t(0));
    if (generator() % 2) std::shuffle(order.begin(), order.end(), generator);
    for (std::size_t i = order.size(); i-- > 0;) {
      const std::size_t d = order[i];
      if (repeats && generator() % 4 == 0) continue;  // stride 0
      const int64_t gap = generator() % 4 == 0 ? 2 : 1;
      stride[d] = elements * gap;
      elements *= size[d] * gap;
      if (generator() % 5 == 0) {
        start += stride[d] * (size[d] - 1);
        stride[d] = -stride[d];
      }
    }
  }
};

std::vector<int64_t> random_size(std::mt19937& generator) {
  constexpr int64_t choice[] = {1, 2, 3, 5, 16, 17, 20, 33};
  std::vector<int64_t> size(generator() % 4 + 1);
  for (std::size_t d = 0; d < size.size(); ++d) size[d] = choice[generator() % (d < 2 ? 8 : 5)];
  return size;
}

template <class T>
void check_moves(const std::string& where) {
  Maker<T> make;
  for (int i = 0; i < 200; ++i) {
    const std::vector<int64_t> size = random_size(make.generator);
    const Lay to(make.generator, size, false), from(make.generator, size, true);
    Move move{};
    move.dims = int32_t(size.size());
    move.add = i % 3 == 0;
    std::copy(size.begin(), size.end(), move.size);
    std::copy(to.stride, to.stride + size.size(), move.out_stride);
    std::copy(from.stride, from.stride + size.size(), move.in_stride);
    for (const int64_t L : {int64_t(1), lanes}) {  // the first element is not the start of memory
      const int64_t in_start = from.start * L, out_start = to.start * L;
      const Sixteen<T> in = make.rows(from.elements), start = make.rows(to.elements);
      for (int64_t first = 0; first < lanes; first += L) {
        const Block<T> source = block_of(in, L, first);
        Block<T> got = block_of(start, L, first), wanted = got;
        each_place(size, [&](const std::vector<int64_t>& place) {
          for (int64_t l = 0; l < L; ++l) {
            T& y = wanted.data[std::size_t(out_start + dot(place, to.stride) * L + l)];
            const T x = source.data[std::size_t(in_start + dot(place, from.stride) * L + l)];
            y = move.add ? y + x : x;
          }
        });
        program_kernels<T>().lanes[L > 1].move(got.data.data() + out_start, source.data.data() + in_start, move);
        check(same_bits(got.data, wanted.data), where + "move at L " + std::to_string(L));
      }
    }
  }
  Move nothing{2, false, {3, 0}, {1, 1}, {1, 1}};
  T untouched[4] = {1, 2, 3, 4};
  program_kernels<T>().lanes[0].move(untouched, untouched + 2, nothing);
  check(untouched[0] == T(1) && untouched[1] == T(2), where + "move of nothing");
}

template <class T>
void check_broadcasts(const std::string& where) {
  Maker<T> make;
  for (int i = 0; i < 200; ++i) {
    const std::vector<int64_t> size = random_size(make.generator);
    const Lay from(make.generator, size, true);
    Broadcast pattern{};
    pattern.dims = int32_t(size.size());
    std::copy(size.begin(), size.end(), pattern.size);
    std::copy(from.stride, from.stride + size.size(), pattern.stride);
    std::vector<int64_t> places;
    each_place(size,
               [&](const std::vector<int64_t>& place) { places.push_back(from.start + dot(place, from.stride)); });
    const int64_t all = int64_t(places.size());
    const int64_t first = i % 2 ? int64_t(make.generator()) % all : 0;
    const int64_t count = i % 3 ? 1 + int64_t(make.generator()) % (all - first) : all - first;
    const Sixteen<T> rows = make.rows(from.elements);
    for (const int64_t L : {int64_t(1), lanes})
      for (int64_t row = 0; row < lanes; row += L) {
        const Block<T> in = block_of(rows, L, row);
        Block<T> got(std::size_t(count * L)), wanted = got;
        for (int64_t e = 0; e < count; ++e)
          for (int64_t l = 0; l < L; ++l)
            wanted.data[std::size_t(e * L + l)] = in.data[std::size_t(places[std::size_t(first + e)] * L + l)];
        program_kernels<T>().lanes[L > 1].broadcast(got.data.data(), in.data.data() + from.start * L, pattern, first,
                                                    count);
        got.data.resize(std::size_t(count * L));  // beyond them it may write
        wanted.data.resize(got.data.size());
        check(same_bits(got.data, wanted.data), where + "broadcast at L " + std::to_string(L));
      }
  }
}

// Rows of an array that has not a number more than them.
template <class T>
void check_rows(const std::string& where) {
  Maker<T> make;
  for (const int64_t L : {int64_t(1), lanes})
    for (const int64_t rows : {1, 5, 15, 16})
      for (const int64_t width : {1, 7, 15, 16, 17, 33})
        for (const bool masked : {false, true}) {
          if (rows > L) continue;
          const auto& kernels = program_kernels<T>().lanes[L > 1];
          const int64_t stride = width + 3, size = (rows - 1) * stride + width;
          const std::string what = " " + std::to_string(rows) + " rows of " + std::to_string(width);
          const std::vector<T> from = random<T>(make.generator, size, 1);
          std::vector<T> alive(std::size_t(L), T(1));
          for (T& v : alive) v = T(make.generator() % 3 > 0);
          const T* const mask = masked ? alive.data() : nullptr;
          const auto lives = [&](int64_t row) { return !masked || alive[std::size_t(row)] != T(0); };
          Block<T> block(std::size_t(width * L)), wanted = block;
          for (int64_t i = 0; i < width; ++i)
            for (int64_t l = 0; l < L; ++l) {
              const int64_t row = std::min(l, rows - 1);
              wanted.data[std::size_t(i * L + l)] = lives(row) ? from[std::size_t(row * stride + i)] : T(0);
            }
          kernels.load(block.data.data(), from.data(), stride, rows, width, mask);
          check(same_bits(block.data, wanted.data), where + "load" + what);

          const std::vector<T> start = random<T>(make.generator, size, 1);
          std::vector<T> to = start, wanted_rows = start;
          Block<T> numbers(std::size_t(width * L));
          const std::vector<T> filled = random<T>(make.generator, width * L, 1);
          std::copy(filled.begin(), filled.end(), numbers.data.begin());
          for (int64_t row = 0; row < rows; ++row)
            for (int64_t i = 0; i < width; ++i)
              wanted_rows[std::size_t(row * stride + i)] = lives(row) ? filled[std::size_t(i * L + row)] : T(0);
          kernels.store(to.data(), stride, rows, numbers.data.data(), width, mask);
          check(same_bits(to, wanted_rows), where + "store" + what);

          if (!masked) continue;
          Block<T> chosen(std::size_t(width * L)), wanted_choice = chosen;
          for (std::size_t i = 0; i < filled.size(); ++i)
            wanted_choice.data[i] = alive[i % std::size_t(L)] != T(0) ? numbers.data[i] : block.data[i];
          kernels.select(chosen.data.data(), mask, numbers.data.data(), block.data.data(), width);
          check(same_bits(chosen.data, wanted_choice.data), where + "select" + what);
          kernels.select(block.data.data(), mask, numbers.data.data(), block.data.data(), width);
          check(std::equal(block.data.begin(), block.data.begin() + width * L, chosen.data.begin()) && block.intact(),
                where + "select in place" + what);
        }
}

// Philox4x32-10, one counter.
void philox(uint64_t seed, uint32_t (&c)[4]) {
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const uint64_t p0 = uint64_t(c[0]) * 0xD2511F53u, p1 = uint64_t(c[2]) * 0xCD9E8D57u;
    const uint32_t next[] = {uint32_t(p1 >> 32) ^ c[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ c[3] ^ k1,
                             uint32_t(p0)};
    std::copy(next, next + 4, c);
  }
}

template <class T>
void check_uniform(const std::string& where) {
  constexpr uint64_t seed = 0x123456789abcdef;
  constexpr uint32_t first_row = 32, step = 9, stream = 3;
  for (const int64_t width : {1, 17, 64, 150}) {
    Block<T> wide(std::size_t(width * lanes)), wanted = wide;
    program_kernels<T>().lanes[1].uniform(wide.data.data(), width, seed, first_row, step, stream);
    for (int64_t l = 0; l < lanes; ++l) {
      Block<T> one{std::size_t(width)};
      program_kernels<T>().lanes[0].uniform(one.data.data(), width, seed, first_row + uint32_t(l), step, stream);
      bool same = one.intact();
      for (int64_t u = 0; u < width; ++u) {
        uint32_t c[] = {uint32_t(u / 64 * 16 + u % 16), first_row + uint32_t(l), step, stream};
        philox(seed, c);
        const T value = T(double(c[u / 16 % 4] >> 8) / 16777216);
        same = same && one.data[std::size_t(u)] == value;
        wanted.data[std::size_t(u * lanes + l)] = value;
      }
      check(same, where + "uniform numbers of a row");
    }
    check(same_bits(wide.data, wanted.data), where + "uniform numbers of rows");
  }
}

}  // namespace

int main() {
  each_set([](auto type, const std::string& where) {
    using T = decltype(type);
    check_moves<T>(where);
    check_broadcasts<T>(where);
    check_rows<T>(where);
    check_uniform<T>(where);
  });
  return report();
}
