// Which instruction set runs: chosen once, by the processor or FUSEDRNN_ISA; read once per call.
#pragma once

#include <string>
#include <vector>

#include "../kernels/low_precision_table.hpp"
#include "../kernels/program_table.hpp"
#include "../kernels/table.hpp"

namespace fusedrnn {

// Built into this library, narrowest first; those of them that this processor runs; the one in use.
std::vector<std::string> built_isas();
std::vector<std::string> available_isas();
std::string isa();
// std::invalid_argument if the name is unknown or the processor lacks it.
void set_isa(const std::string& name);

template <class T>
const KernelTable<T>& kernels();
template <class T>
const ProgramKernels<T>& program_kernels();
const LowPrecisionTable& low_precision_kernels();

}  // namespace fusedrnn
