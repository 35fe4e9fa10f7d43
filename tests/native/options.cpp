// Cells with all their options, on every instruction set that this processor runs: gradients that agree with
// differences of the outputs, and the same bits for any number of threads, whether these share rows or units. What the
// equations are, tests/test_options.py asks; here the sanitizers look at memory and threads.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../../csrc/core/cells.hpp"
#include "../../csrc/core/dispatch.hpp"
#include "../../csrc/core/parallel.hpp"
#include "../../csrc/core/sequence.hpp"

using namespace fusedrnn;

namespace {

int checks = 0, failures = 0;

void check(bool good, const std::string& what) {
  ++checks;
  if (good) return;
  ++failures;
  std::printf("FAILED %s\n", what.c_str());
}

enum class Cell { rnn, lstm, gru, gru_reset_before };

struct Case {
  const char* name;
  Cell cell;
  int64_t T, N, I, H;
  bool norm, uneven;  // uneven: packed rows, and resets
  int64_t P = 0;      // projection

  int64_t gates() const { return cell == Cell::rnn ? 1 : cell == Cell::lstm ? 4 : 3; }
  int64_t width() const { return P ? P : H; }
};

// What a call is given, and its gradients, by this index.
enum { x, h0, c0, w_ih, w_hh, b_ih, b_hh, gain_ih, gain_hh, gain_c, bias_ih, bias_hh, bias_c, peephole, w_hr, arrays };

template <class T>
struct Result {
  std::vector<std::vector<T>> outputs{3}, gradients{arrays};  // y, h_n, c_n
};

template <class T>
class Problem {
 public:
  explicit Problem(const Case& c) : c_(c), random_(unsigned(c.T * 1000 + c.N * 100 + c.H)) {
    const int64_t G = c.gates() * c.H, W = c.width();
    const bool lstm = c.cell == Cell::lstm, norm = c.norm;
    for (int64_t t = 0; t < c.T; ++t) sizes_.push_back(c.uneven ? std::max<int64_t>(1, c.N - t * c.N / c.T) : c.N);
    rows_ = 0;
    for (const int64_t n : sizes_) rows_ += n;
    for (int64_t r = 0; r < rows_; ++r) resets_.push_back(random_() % 4 == 0);
    const int64_t of[arrays] = {rows_ * c.I, c.N * W,  lstm * c.N * c.H,  G * c.I,        G * W,
                                G,           G,        norm * G,          norm * G,       norm * lstm * c.H,
                                norm * G,    norm * G, norm * lstm * c.H, lstm * 3 * c.H, c.P * c.H};
    for (int i = 0; i < arrays; ++i)
      in.push_back(
          values(of[i], i <= c0 || i == peephole ? 1 : 1 / std::sqrt(double(c.H)), i >= gain_ih && i <= gain_c));
    for (const int64_t n : {rows_ * W, c.N * W, lstm * c.N * c.H}) d.push_back(values(n, 1, false));
  }

  Result<T> run() const {
    Result<T> r;
    for (std::size_t i = 0; i < 3; ++i) r.outputs[i].resize(d[i].size());
    for (std::size_t i = 0; i < arrays; ++i) r.gradients[i].assign(in[i].size(), T(0));
    const Options<T> o = options();
    OptionGradients<T> g{};
    auto& to = r.gradients;
    g = {data(to[gain_ih]), data(to[gain_hh]), data(to[gain_c]),   data(to[bias_ih]),
         data(to[bias_hh]), data(to[bias_c]),  data(to[peephole]), data(to[w_hr])};
    if (c_.cell == Cell::lstm) {
      LstmForward<T> f = forward<LstmForward<T>>(r);
      LstmBackward<T> b = backward<LstmBackward<T>>(r);
      f.c0 = b.c0 = data(in[c0]);
      f.c_n = data(r.outputs[2]);
      b.dc_n = data(d[2]);
      b.dc0 = data(to[c0]);
      std::vector<T> reserve(std::size_t(rows_ * lstm_options_reserve(c_.H, o)));
      b.reserve = f.reserve = data(reserve);
      lstm_options_forward(f, o);
      lstm_options_backward(b, o, g);
    } else if (c_.cell == Cell::rnn) {
      RnnForward<T> f = forward<RnnForward<T>>(r);
      RnnBackward<T> b = backward<RnnBackward<T>>(r);
      std::vector<T> reserve(std::size_t(rows_ * rnn_options_reserve(c_.H, o)));
      b.reserve = f.reserve = data(reserve);
      rnn_options_forward(f, o);
      rnn_options_backward(b, o, g);
    } else {
      GruForward<T> f = forward<GruForward<T>>(r);
      GruBackward<T> b = backward<GruBackward<T>>(r);
      f.reset_after = b.reset_after = c_.cell == Cell::gru;
      std::vector<T> reserve(std::size_t(rows_ * gru_options_reserve(c_.H, f.reset_after, o)));
      b.reserve = f.reserve = data(reserve);
      gru_options_forward(f, o);
      gru_options_backward(b, o, g);
    }
    return r;
  }

  // The sum of d times the outputs.
  double loss() const {
    const Result<T> r = run();
    double sum = 0;
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t j = 0; j < d[i].size(); ++j) sum += double(d[i][j]) * double(r.outputs[i][j]);
    return sum;
  }

  std::vector<T> values(int64_t n, double scale, bool about_one) {
    std::uniform_real_distribution<double> uniform(-scale, scale);
    std::vector<T> v(static_cast<std::size_t>(n));
    for (T& e : v) e = T(uniform(random_) + (about_one ? 1 : 0));
    return v;
  }

  std::vector<std::vector<T>> in, d;

 private:
  template <class V>
  static auto data(V& v) {
    return v.empty() ? nullptr : v.data();
  }

  Options<T> options() const {
    Options<T> o{};
    o.gain_ih = data(in[gain_ih]);
    o.gain_hh = data(in[gain_hh]);
    o.gain_c = data(in[gain_c]);
    o.norm_bias_ih = data(in[bias_ih]);
    o.norm_bias_hh = data(in[bias_hh]);
    o.norm_bias_c = data(in[bias_c]);
    o.weight_peephole = data(in[peephole]);
    o.weight_hr = data(in[w_hr]);
    o.projection = c_.width();
    o.zoneout_h = 0.3;
    o.zoneout_c = c_.cell == Cell::lstm ? 0.2 : 0;
    o.recurrent_dropout = 0.3;
    o.dropconnect = 0.2;
    o.training = true;
    o.seed = 12345678901234567890u;
    o.gate = Activation::sigmoid;
    o.candidate = Activation::softsign;
    o.output = Activation::tanh;
    return o;
  }

  template <class Call>
  Call call() const {
    Call p{};
    p.shape = {c_.T, c_.N, c_.I, c_.H};
    if (c_.uneven) {
      p.shape.batch_sizes = sizes_.data();
      p.shape.resets = resets_.data();
    }
    p.x = data(in[x]);
    p.h0 = data(in[h0]);
    p.weight_ih = data(in[w_ih]);
    p.weight_hh = data(in[w_hh]);
    return p;
  }
  template <class Forward>
  Forward forward(Result<T>& r) const {
    Forward p = call<Forward>();
    p.bias_ih = data(in[b_ih]);
    p.bias_hh = data(in[b_hh]);
    p.y = data(r.outputs[0]);
    p.h_n = data(r.outputs[1]);
    return p;
  }
  template <class Backward>
  Backward backward(Result<T>& r) const {
    Backward p = call<Backward>();
    p.dy = data(d[0]);
    p.dh_n = data(d[1]);
    p.y = data(r.outputs[0]);
    p.dx = data(r.gradients[x]);
    p.dh0 = data(r.gradients[h0]);
    p.dweight_ih = data(r.gradients[w_ih]);
    p.dweight_hh = data(r.gradients[w_hh]);
    p.dbias_ih = data(r.gradients[b_ih]);
    p.dbias_hh = data(r.gradients[b_hh]);
    return p;
  }

  Case c_;
  std::mt19937 random_;
  std::vector<int64_t> sizes_;
  std::vector<uint8_t> resets_;
  int64_t rows_;
};

// Each argument's gradient along a direction of its own.
void check_gradients(const std::string& where, const Case& c) {
  Problem<double> p(c);
  const Result<double> r = p.run();
  constexpr double step = 1e-5;
  for (std::size_t i = 0; i < arrays; ++i) {
    const std::vector<double> direction = p.values(int64_t(p.in[i].size()), 1, false), at = p.in[i];
    double along = 0, size = 0;
    for (std::size_t j = 0; j < at.size(); ++j) {
      along += direction[j] * r.gradients[i][j];
      size += std::abs(direction[j] * r.gradients[i][j]);
    }
    const auto loss_at = [&](double distance) {
      for (std::size_t j = 0; j < at.size(); ++j) p.in[i][j] = at[j] + distance * direction[j];
      return p.loss();
    };
    const double numeric = (loss_at(step) - loss_at(-step)) / (2 * step);
    p.in[i] = at;
    check(std::abs(numeric - along) <= 1e-6 * std::max(1.0, size), where + c.name + ": gradient " + std::to_string(i) +
                                                                       " is " + std::to_string(along) +
                                                                       ", differences say " + std::to_string(numeric));
  }
}

template <class T>
bool same_bits(const std::vector<std::vector<T>>& a, const std::vector<std::vector<T>>& b) {
  bool same = a.size() == b.size();
  for (std::size_t i = 0; same && i < a.size(); ++i)
    same =
        a[i].size() == b[i].size() && (a[i].empty() || !std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(T)));
  return same;
}

template <class T>
void check_threads(const std::string& where, const Case& c, bool by_units) {
  const Problem<T> p(c);
  set_num_threads(1);
  const Result<T> one = p.run();
  for (const int threads : {2, 3}) {
    set_num_threads(threads);
    const Sharing sharing({c.T, c.N, c.I, c.H}, c.gates(), c.width(), sizeof(T));
    check(sharing.by_units() == by_units, where + c.name + ": threads share otherwise than meant");
    const Result<T> r = p.run();
    check(same_bits(r.outputs, one.outputs) && same_bits(r.gradients, one.gradients),
          where + c.name + ": " + std::to_string(threads) + " threads differ from one");
  }
  set_num_threads(1);
}

}  // namespace

int main() {
  const Case small[] = {{"rnn", Cell::rnn, 4, 3, 2, 5, false, false},
                        {"rnn norm", Cell::rnn, 4, 3, 2, 5, true, true},
                        {"lstm projection", Cell::lstm, 4, 3, 2, 5, false, true, 3},
                        {"lstm norm", Cell::lstm, 4, 3, 2, 5, true, false},
                        {"gru", Cell::gru, 4, 3, 2, 5, false, true},
                        {"gru norm", Cell::gru, 4, 3, 2, 5, true, true},
                        {"gru reset before", Cell::gru_reset_before, 4, 3, 2, 5, false, true}};
  const Case rows[] = {{"rnn rows", Cell::rnn, 5, 90, 3, 33, true, true},
                       {"lstm rows", Cell::lstm, 4, 60, 3, 33, false, true, 17},
                       {"gru rows", Cell::gru, 4, 60, 3, 33, true, true},
                       {"gru reset before rows", Cell::gru_reset_before, 4, 60, 3, 33, false, true}};
  const Case units[] = {{"rnn units", Cell::rnn, 10, 3, 3, 208, true, false},
                        {"lstm units", Cell::lstm, 8, 2, 1, 136, false, true, 120},
                        {"gru units", Cell::gru, 8, 2, 9, 150, true, true},
                        {"gru reset before units", Cell::gru_reset_before, 8, 2, 1, 161, false, true}};
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    set_num_threads(1);
    for (const Case& c : small) check_gradients(isa + " ", c);
    for (const Case& c : rows) check_threads<float>(isa + " float32 ", c, false);
    for (const Case& c : units) check_threads<float>(isa + " float32 ", c, true);
    check_threads<double>(isa + " float64 ", rows[2], false);
    check_threads<double>(isa + " float64 ", units[3], true);
  }
  std::printf("%d checks, %d failures\n", checks, failures);
  return failures ? 1 : 0;
}
