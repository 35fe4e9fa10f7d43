// From a plan to launches.
#pragma once

#include <host.hpp>

#include "plan.hpp"

namespace fusedrnn::cuda {

using Kernel = void (*)(Arguments);

// The kernels of a cell and a kind of product, in one tier and pass. kernels.cu has one of these for each product.
struct Kernels {
  Kernel prepare, pass;
};
Kernels fma_kernels(CellKind, Tier, bool backward);
Kernels tf32_kernels(CellKind, Tier, bool backward);
Kernels bfloat16_kernels(CellKind, Tier, bool backward);
Kernels float16_kernels(CellKind, Tier, bool backward);

// Runs a pass. `arguments` has the arrays and lengths, reverse, relu; the rest follows from problem and plan. scratch:
// plan.scratch_bytes, aligned to 256, free again when the stream has come past.
void run(const Problem&, const Plan&, Arguments arguments, void* scratch, device::Stream);

}  // namespace fusedrnn::cuda
