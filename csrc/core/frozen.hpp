// A layer in one direction whose weights are packed once: whole sequences without packing again, and for real-time use
// one time step a call with a state of its own, in memory that was taken once. Results have the bits of the calls in
// cells.hpp, on the instruction set that was in use when it was made.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "cells.hpp"
#include "scratch.hpp"

namespace fusedrnn {

template <class T>
struct Sequence {
  int64_t steps, batch;  // T, N
  bool reverse;
  const T* x;        // [T, N, I]
  const T *h0, *c0;  // [N, H] or null: zeros; c0 of a cell that has it
  T* y;              // [T, N, H]
  T *h_n, *c_n;      // [N, H]
};

template <class T>
class Frozen {
 protected:
  Memory memory_;

 public:
  const int64_t batch, inputs, hidden;  // N, I, H

  // n: rows of each step; 0 for a layer that is only given sequences.
  Frozen(int64_t n, int64_t i, int64_t h)
      : batch(n), inputs(i), hidden(h), state_(memory_.zeros<T>(n * h)), next_(memory_.zeros<T>(n * h)) {}
  virtual ~Frozen() = default;
  Frozen(const Frozen&) = delete;
  Frozen& operator=(const Frozen&) = delete;

  // The new hidden state [N, H] from x [N, I]; it stays valid until the next step.
  const T* step(const T* x) {
    advance(x, state_, next_);
    std::swap(state_, next_);
    return state_;
  }

  // For inference. Leaves the state of step() alone; several threads may call it at once.
  virtual void sequence(const Sequence<T>&) const = 0;

  T* h() { return state_; }           // [N, H]
  virtual T* c() { return nullptr; }  // [N, H], of a cell that has it
  virtual bool has_c() const { return false; }

 private:
  virtual void advance(const T* x, const T* h_prev, T* h) = 0;

  T *state_, *next_;
};

template <class T>
std::unique_ptr<Frozen<T>> frozen_rnn(int64_t batch, int64_t inputs, int64_t hidden, bool relu, const T* weight_ih,
                                      const T* weight_hh, const T* bias_ih, const T* bias_hh);
template <class T>
std::unique_ptr<Frozen<T>> frozen_lstm(int64_t batch, int64_t inputs, int64_t hidden, const T* weight_ih,
                                       const T* weight_hh, const T* bias_ih, const T* bias_hh);
template <class T>
std::unique_ptr<Frozen<T>> frozen_gru(int64_t batch, int64_t inputs, int64_t hidden, bool reset_after,
                                      const T* weight_ih, const T* weight_hh, const T* bias_ih, const T* bias_hh);
// The kind, shape, weights and activation of p count.
template <class T>
std::unique_ptr<Frozen<T>> frozen_elementwise(int64_t batch, const ElementwiseForward<T>& p);

}  // namespace fusedrnn
