#include "dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace fusedrnn {

#define FUSEDRNN_DECLARE(name)                        \
  namespace name {                                    \
  extern const KernelTable<float> table_float;        \
  extern const KernelTable<double> table_double;      \
  extern const ProgramKernels<float> program_float;   \
  extern const ProgramKernels<double> program_double; \
  extern const LowPrecisionTable table_low_precision; \
  }
// Which sets are built, csrc/CMakeLists.txt says.
FUSEDRNN_DECLARE(baseline)
#if defined(FUSEDRNN_HAS_AVX2)
FUSEDRNN_DECLARE(avx2)
#endif
#if defined(FUSEDRNN_HAS_AVX512)
FUSEDRNN_DECLARE(avx512)
#endif
#if defined(FUSEDRNN_HAS_AVX512_BF16_VNNI)
namespace avx512_bf16_vnni {  // all else is avx512's
extern const LowPrecisionTable table_low_precision;
}
#endif

namespace {

struct Isa {
  const char* name;
  bool (*supported)();
  const KernelTable<float>* table_float;
  const KernelTable<double>* table_double;
  const ProgramKernels<float>* program_float;
  const ProgramKernels<double>* program_double;
  const LowPrecisionTable* table_low_precision;
};

#if defined(FUSEDRNN_HAS_AVX512)
bool supports_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const Isa isas[] = {
    {"baseline", [] { return true; }, &baseline::table_float, &baseline::table_double, &baseline::program_float,
     &baseline::program_double, &baseline::table_low_precision},
#if defined(FUSEDRNN_HAS_AVX2)
    {"avx2",
     [] {
       return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
              __builtin_cpu_supports("bmi2");
     },
     &avx2::table_float, &avx2::table_double, &avx2::program_float, &avx2::program_double, &avx2::table_low_precision},
#endif
#if defined(FUSEDRNN_HAS_AVX512)
    {"avx512", supports_avx512, &avx512::table_float, &avx512::table_double, &avx512::program_float,
     &avx512::program_double, &avx512::table_low_precision},
#endif
#if defined(FUSEDRNN_HAS_AVX512_BF16_VNNI)
    {"avx512_bf16_vnni",
     [] { return supports_avx512() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni"); },
     &avx512::table_float, &avx512::table_double, &avx512::program_float, &avx512::program_double,
     &avx512_bf16_vnni::table_low_precision},
#endif
};

std::string names(const std::vector<std::string>& list) {
  std::string text;
  for (const std::string& name : list) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const Isa* find(const std::string& name, const char* argument) {
  for (const Isa& i : isas)
    if (name == i.name && i.supported()) return &i;
  throw std::invalid_argument(std::string(argument) + ": expected an instruction set of this processor (" +
                              names(available_isas()) + "), got '" + name + "'");
}

const Isa* initial() {
  if (const char* name = std::getenv("FUSEDRNN_ISA"); name && *name) return find(name, "FUSEDRNN_ISA");
  const Isa* best = &isas[0];
  for (const Isa& i : isas)
    if (i.supported()) best = &i;
  return best;
}

std::atomic<const Isa*>& current() {
  static std::atomic<const Isa*> value{initial()};
  return value;
}

}  // namespace

std::vector<std::string> built_isas() {
  std::vector<std::string> list;
  for (const Isa& i : isas) list.emplace_back(i.name);
  return list;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> list;
  for (const Isa& i : isas)
    if (i.supported()) list.emplace_back(i.name);
  return list;
}

std::string isa() { return current().load()->name; }

void set_isa(const std::string& name) { current().store(find(name, "name")); }

template <>
const KernelTable<float>& kernels<float>() {
  return *current().load()->table_float;
}

template <>
const KernelTable<double>& kernels<double>() {
  return *current().load()->table_double;
}

template <>
const ProgramKernels<float>& program_kernels<float>() {
  return *current().load()->program_float;
}

template <>
const ProgramKernels<double>& program_kernels<double>() {
  return *current().load()->program_double;
}

const LowPrecisionTable& low_precision_kernels() { return *current().load()->table_low_precision; }

}  // namespace fusedrnn
