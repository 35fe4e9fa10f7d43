// Compiled once per instruction set (FUSEDRNN_ISA): the only symbol that leaves each of these objects is its table.
#include "bfloat16.hpp"
#include "int8.hpp"

namespace fusedrnn::FUSEDRNN_ISA {

extern const LowPrecisionTable table_low_precision;
const LowPrecisionTable table_low_precision = {full_lanes<uint32_t>, low_precision<Bfloat16>, low_precision<Int8>};

}  // namespace fusedrnn::FUSEDRNN_ISA
