// The example of docs/cpp.md: a layer of an LSTM learns to say the sign of its input's running sum.
#include <cmath>
#include <cstdio>
#include <new>
#include <random>
#include <vector>

#include "core/cells.hpp"
#include "core/parallel.hpp"

using Floats = std::vector<float>;

Floats random(std::mt19937& generator, int64_t size) {
  std::normal_distribution<float> normal(0, 0.3f);
  Floats values(static_cast<std::size_t>(size));
  for (float& value : values) value = normal(generator);
  return values;
}

void descend(Floats& weights, const Floats& gradient) {
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] -= 10 * gradient[i];
}

int main() {
  using namespace fusedrnn;
  const int64_t T = 12, N = 32, I = 1, H = 16;
  set_num_threads(2);

  std::mt19937 generator(0);
  Floats weight_ih = random(generator, 4 * H * I), weight_hh = random(generator, 4 * H * H), bias(4 * H);
  const Floats x = random(generator, T * N * I);
  Floats y(T * N * H), h_n(N * H), c_n(N * H), reserve(T * N * 5 * H);
  Floats dy(T * N * H), dh0(N * H), dc0(N * H);

  float first = 0, loss = 0;
  try {
    for (int update = 0; update < 200; ++update) {
      LstmForward<float> f{};  // what is not set is null or false: zeros, no options
      f.shape = {T, N, I, H};
      f.x = x.data();
      f.weight_ih = weight_ih.data();
      f.weight_hh = weight_hh.data();
      f.bias_ih = bias.data();
      f.y = y.data();
      f.h_n = h_n.data();
      f.c_n = c_n.data();
      f.reserve = reserve.data();  // null for inference
      lstm_forward(f);

      // Half the mean square of what is between the units' mean and the target.
      loss = 0;
      Floats sums(N);
      for (int64_t t = 0; t < T; ++t)
        for (int64_t n = 0; n < N; ++n) {
          sums[n] += x[t * N + n];
          const float* const row = &y[(t * N + n) * H];
          float mean = 0;
          for (int64_t u = 0; u < H; ++u) mean += row[u] / H;
          const float difference = mean - std::copysign(0.5f, sums[n]);
          loss += difference * difference / 2 / (T * N);
          for (int64_t u = 0; u < H; ++u) dy[(t * N + n) * H + u] = difference / H / (T * N);
        }
      if (update == 0) first = loss;

      LstmBackward<float> b{};
      b.shape = f.shape;
      b.dy = dy.data();
      b.x = f.x;
      b.y = f.y;
      b.weight_ih = f.weight_ih;
      b.weight_hh = f.weight_hh;
      b.reserve = f.reserve;
      b.dh0 = dh0.data();
      b.dc0 = dc0.data();
      Floats dweight_ih(weight_ih.size()), dweight_hh(weight_hh.size()), dbias(bias.size());
      b.dweight_ih = dweight_ih.data();  // these are added to; b.dx stays null: nobody asks for it
      b.dweight_hh = dweight_hh.data();
      b.dbias_ih = dbias.data();
      lstm_backward(b);

      descend(weight_ih, dweight_ih);
      descend(weight_hh, dweight_hh);
      descend(bias, dbias);
    }
  } catch (const std::bad_alloc&) {
    std::fputs("no memory for scratch\n", stderr);
    return 1;
  }
  std::printf("loss %.4f, then %.4f\n", first, loss);
  return loss < first / 2 ? 0 : 1;
}
