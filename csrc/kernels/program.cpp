// Compiled once per instruction set and scalar type, as table.cpp: the kernels of programs.
#include "program_axis.hpp"
#include "program_elementwise.hpp"
#include "program_moves.hpp"
#include "program_order.hpp"
#include "program_products.hpp"
#include "program_table.hpp"

namespace fusedrnn::FUSEDRNN_ISA {

#define FUSEDRNN_JOIN_(a, b) a##b
#define FUSEDRNN_JOIN(a, b) FUSEDRNN_JOIN_(a, b)
#define FUSEDRNN_ENTRY(name) elementwise<name##_function, Real>,
#define FUSEDRNN_ONE(name) with_scalar<name##_function, 1, Real>,
#define FUSEDRNN_LANES(name) with_scalar<name##_function, program_lanes, Real>,
#define FUSEDRNN_FOR_LANES(L, ENTRY) \
  {{FUSEDRNN_WITH_SCALAR(ENTRY)},    \
   move<L, Real>,                    \
   broadcast<L, Real>,               \
   fold<Adding, L, Real>,            \
   inner<L, Real>,                   \
   fold<Largest, L, Real>,           \
   argmax<L, Real>,                  \
   argsort<L, Real>,                 \
   softmax<L, Real>,                 \
   recurrence<L, Real>,              \
   product<L, Real>,                 \
   load_rows<L, Real>,               \
   store_rows<L, Real>,              \
   select<L, Real>,                  \
   uniform<L, Real>}

using Real = FUSEDRNN_REAL;
extern const ProgramKernels<Real> FUSEDRNN_JOIN(program_, FUSEDRNN_REAL);
const ProgramKernels<Real> FUSEDRNN_JOIN(program_, FUSEDRNN_REAL) = {
    {FUSEDRNN_ELEMENTWISE(FUSEDRNN_ENTRY)},
    {FUSEDRNN_FOR_LANES(1, FUSEDRNN_ONE), FUSEDRNN_FOR_LANES(program_lanes, FUSEDRNN_LANES)},
    pack_lane_weights<Real>,
    lane_affine<Real>,
};

}  // namespace fusedrnn::FUSEDRNN_ISA
