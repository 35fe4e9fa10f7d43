// The cells whose units see no state but their own (kernels/elementwise.hpp): X(name, struct of formulas). What else
// there is of them in the engine follows from this list. Twice included: table.cpp alone wants the formulas, with
// FUSEDRNN_FORMULAS defined.
#if defined(FUSEDRNN_FORMULAS)

#include "indrnn.hpp"
#include "mingru.hpp"

#elif !defined(FUSEDRNN_ELEMENTWISE_CELLS)

#include <cstdint>

#define FUSEDRNN_ELEMENTWISE_CELLS(X) X(indrnn, IndRnn) X(mingru, MinGru)

namespace fusedrnn {

#define FUSEDRNN_NAME(name, formulas) name,
enum class ElementwiseKind { FUSEDRNN_ELEMENTWISE_CELLS(FUSEDRNN_NAME) count };
#undef FUSEDRNN_NAME

template <class T>
struct ElementwiseForwardStep;
template <class T>
struct ElementwiseBackwardStep;

template <class T>
struct ElementwiseCell {
  int64_t gates;  // products with the input that a unit has
  bool kept;      // whether forward keeps the activated gates for backward
  void (*forward)(const ElementwiseForwardStep<T>&);
  void (*backward)(const ElementwiseBackwardStep<T>&);
};

}  // namespace fusedrnn

#endif
