// A layer in one direction, one time step a call, for real-time use: weights are packed and memory is taken once.
// The state is the stepper's own. Results have the bits of the sequence calls in cells.hpp, on the instruction set
// that was in use when it was made.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "scratch.hpp"

namespace fusedrnn {

template <class T>
class Stepper {
 protected:
  Memory memory_;

 public:
  const int64_t batch, inputs, hidden;  // N, I, H

  Stepper(int64_t n, int64_t i, int64_t h)
      : batch(n), inputs(i), hidden(h), state_(memory_.zeros<T>(n * h)), next_(memory_.zeros<T>(n * h)) {}
  virtual ~Stepper() = default;
  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;

  // The new hidden state [N, H] from x [N, I]; it stays valid until the next step.
  const T* step(const T* x) {
    advance(x, state_, next_);
    std::swap(state_, next_);
    return state_;
  }

  T* h() { return state_; }           // [N, H]
  virtual T* c() { return nullptr; }  // [N, H], or null for a cell without

 private:
  virtual void advance(const T* x, const T* h_prev, T* h) = 0;

  T *state_, *next_;
};

template <class T>
std::unique_ptr<Stepper<T>> rnn_stepper(int64_t batch, int64_t inputs, int64_t hidden, bool relu, const T* weight_ih,
                                        const T* weight_hh, const T* bias_ih, const T* bias_hh);
template <class T>
std::unique_ptr<Stepper<T>> lstm_stepper(int64_t batch, int64_t inputs, int64_t hidden, const T* weight_ih,
                                         const T* weight_hh, const T* bias_ih, const T* bias_hh);
template <class T>
std::unique_ptr<Stepper<T>> gru_stepper(int64_t batch, int64_t inputs, int64_t hidden, bool reset_after,
                                        const T* weight_ih, const T* weight_hh, const T* bias_ih, const T* bias_hh);

}  // namespace fusedrnn
