// The plain recurrent network with options, from its sums on: any activation.
#pragma once

#include "activations.hpp"
#include "options.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

template <class T>
void rnn_pointwise(const RnnPointwise<T>& step) {
  const RnnPointwise<T> s = step;
  for_row_vectors<T>(s.rows, s.units, [&](int64_t r, int64_t u, int n) {
    const auto f = activate(s.activation, load<Full<T>>(s.sums.at(r) + u, n));
    store(s.y.at(r) + u, f, n);
    if (s.kept.data) store(s.kept.at(r) + u, f, n);
  });
}

template <class T>
void rnn_pointwise_backward(const RnnPointwiseBackward<T>& step) {
  const RnnPointwiseBackward<T> s = step;
  using V = Full<T>;
  for_row_vectors<T>(s.rows, s.units, [&](int64_t r, int64_t u, int n) {
    const V f = load<V>(s.value.at(r) + u, n);
    store(s.gradient.at(r) + u, load<V>(s.gradient.at(r) + u, n) * slope(s.activation, f), n);
  });
}

}  // namespace
}  // namespace fusedrnn::FUSEDRNN_ISA
