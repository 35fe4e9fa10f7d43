// Compiled once per instruction set and scalar type (FUSEDRNN_ISA, FUSEDRNN_REAL): the only symbol that leaves
// each of these objects is its table.
#include "table.hpp"

#define FUSEDRNN_FORMULAS
#include "elementwise_cells.hpp"
#include "gemm.hpp"
#include "gru.hpp"
#include "gru_options.hpp"
#include "logarithm.hpp"
#include "losses.hpp"
#include "lstm.hpp"
#include "lstm_options.hpp"
#include "mixture_density.hpp"
#include "optim.hpp"
#include "options.hpp"
#include "random.hpp"
#include "rnn.hpp"
#include "rnn_options.hpp"
#include "transpose.hpp"
#include "trigonometric.hpp"

namespace fusedrnn::FUSEDRNN_ISA {
namespace {

template <class V>
FUSEDRNN_INLINE V function_of(int function, V v) {
  switch (function) {
    case 0:
      return exp(v);
    case 1:
      return sigmoid(v);
    case 2:
      return tanh(v);
    case 3:
      return softplus(v);
    case 4:
      return log(v);
    case 5:
      return log1p(v);
    case 6:
      return expm1(v);
    case 7:
      return sin(v);
    default:
      return cos(v);
  }
}

template <class T>
void math(int function, int64_t count, const T* x, T* y) {
  for_vectors_once<T>(count,
                      [&](int64_t i, int n) { store(y + i, function_of(function, load<Full<T>>(x + i, n)), n); });
}

}  // namespace

#define FUSEDRNN_JOIN_(a, b) a##b
#define FUSEDRNN_JOIN(a, b) FUSEDRNN_JOIN_(a, b)

using Real = FUSEDRNN_REAL;
#define FUSEDRNN_CELL(name, formulas)                                                                  \
  {formulas<Full<Real>>::gates, formulas<Full<Real>>::from_gates, elementwise_forward<formulas, Real>, \
   elementwise_backward<formulas, Real>},
extern const KernelTable<Real> FUSEDRNN_JOIN(table_, FUSEDRNN_REAL);
const KernelTable<Real> FUSEDRNN_JOIN(table_, FUSEDRNN_REAL) = {
    full_lanes<Real>,
    affine<Real>,
    rnn_forward<Real>,
    rnn_backward<Real>,
    lstm_forward<Real>,
    lstm_backward<Real>,
    gru_forward<Real>,
    gru_reset_forward<Real>,
    gru_candidate<Real>,
    gru_backward<Real>,
    gru_before_backward<Real>,
    gru_reset_backward<Real>,
    {FUSEDRNN_ELEMENTWISE_CELLS(FUSEDRNN_CELL)},
    pack_inputs<Real>,
    weight_gradient<Real>,
    transpose<Real>,
    random_mask<Real>,
    normalize<Real>,
    normalize_backward<Real>,
    column_sums<Real>,
    zoneout<Real>,
    state_gradient<Real>,
    multiply<Real>,
    lstm_pointwise<Real>,
    lstm_pointwise_backward<Real>,
    gru_gates<Real>,
    gru_output<Real>,
    gru_output_backward<Real>,
    gru_gates_backward<Real>,
    rnn_pointwise<Real>,
    rnn_pointwise_backward<Real>,
    sgd<Real>,
    adagrad<Real>,
    rmsprop<Real>,
    adam<Real>,
    clip_value<Real>,
    scale<Real>,
    squared_norm<Real>,
    softmax_cross_entropy<Real>,
    binary_cross_entropy<Real>,
    squared_error<Real>,
    mixture_density<Real>,
    math<Real>,
};

}  // namespace fusedrnn::FUSEDRNN_ISA
