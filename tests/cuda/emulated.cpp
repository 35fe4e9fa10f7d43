// The functions of fusedrnn._cuda over the emulator, and what steers it: an extension module for the tests.
#include <pybind11/stl.h>

#include <random>

// All that is no kernel in one translation unit: most of its time goes into headers.
#include "bindings.cpp"
#include "emulator.hpp"
#include "launch.cpp"
#include "plan.cpp"
#include "scalar.hpp"

using namespace fusedrnn::emulator;

// The mutated copy of the kernels (mutants.py).
namespace fusedrnn::cuda::mutated {
Kernels fma_kernels(CellKind, Tier, bool backward);
Kernels bfloat16_kernels(CellKind, Tier, bool backward);
}  // namespace fusedrnn::cuda::mutated

namespace {

void substitute(const fusedrnn::cuda::Kernels& right, const fusedrnn::cuda::Kernels& mutated) {
  const auto put = [](fusedrnn::cuda::Kernel of, fusedrnn::cuda::Kernel by) {
    fusedrnn::device::substitutes[reinterpret_cast<const void*>(of)] = reinterpret_cast<const void*>(by);
  };
  put(right.prepare, mutated.prepare);
  put(right.pass, mutated.pass);
}

// Puts the mutated copy in the place of the kernels, with one of its bugs switched on; 0: no longer.
void mutate(int mutant) {
  using namespace fusedrnn::cuda;
  fusedrnn::emulator::mutant = mutant;
  fusedrnn::device::substitutes.clear();
  if (mutant == 0) return;
  for (const Tier tier : {Tier::block, Tier::cluster, Tier::grid, Tier::steps})
    for (const bool backward : {false, true}) {
      substitute(fma_kernels(CellKind::lstm, tier, backward), mutated::fma_kernels(CellKind::lstm, tier, backward));
      substitute(bfloat16_kernels(CellKind::gru, tier, backward),
                 mutated::bfloat16_kernels(CellKind::gru, tier, backward));
    }
}

}  // namespace

PYBIND11_MODULE(emulated, m) {
  fusedrnn::cuda::bind(m);

  py::register_exception<Error>(m, "EmulatorError", PyExc_RuntimeError);
  // Sites are tuples (file, line, kind), faults tuples (site, change).
  m.def(
      "configure",
      [](uint64_t seed, int capacity, int cluster, double preemption,
         const std::vector<std::pair<std::tuple<std::string, unsigned, std::string>, std::string>>& faults) {
        settings = {};
        settings.seed = seed;
        settings.capacity = capacity;
        settings.cluster = cluster;
        settings.preemption = preemption;
        for (const auto& [site, change] : faults) {
          const auto& [file, line, kind] = site;
          for (int k = 0; k <= int(Kind::mma); ++k)
            if (name(Kind(k)) == kind)
              settings.faults.push_back({{file, line, Kind(k)}, change == "drop" ? Change::drop : Change::relax});
        }
        statistics = {};
      },
      py::arg("seed") = 1, py::arg("capacity") = 1 << 16, py::arg("cluster") = 8, py::arg("preemption") = 1.0 / 8,
      py::arg("faults") = py::list());
  // The arrays, {name: (address, bytes)}, outside of which a kernel may touch nothing; with none of them, all is
  // allowed.
  m.def(
      "bound",
      [](const std::map<std::string, std::pair<uintptr_t, size_t>>& arrays) {
        settings.arrays.clear();
        for (const auto& [name, place] : arrays)
          settings.arrays.push_back({name, place.first, place.first + place.second});
      },
      py::arg("arrays"));
  m.def("mutate", &mutate, py::arg("mutant"));
  // Each site of the launches since `configure`, with the changes that a fault can make there.
  m.def("sites", [] {
    std::vector<std::tuple<std::string, unsigned, std::string, std::vector<std::string>>> found;
    for (const auto& [site, count] : statistics.sites) {
      std::vector<std::string> possible;
      for (Change c : changes(site.kind)) possible.push_back(c == Change::drop ? "drop" : "relax");
      found.emplace_back(site.file, site.line, name(site.kind), possible);
    }
    return found;
  });

  // How many of random quotients, of the kind that sigmoid and tanh need, the kernels' division does not round
  // correctly.
  m.def(
      "wrong_quotients",
      [](int count, unsigned seed) {
        std::mt19937 random(seed);
        int wrong = 0;
        for (int i = 0; i < count; ++i) {
          const uint32_t mantissa = random() % 0x7fffff, exponent = 127 + random() % 120;
          const float b = std::bit_cast<float>(mantissa | exponent << 23);
          for (float a : {1.0f, b - 2, 0x1p-100f}) wrong += fusedrnn::cuda::divide(a, b) != a / b && a / b > 0x1p-126f;
        }
        return wrong;
      },
      py::arg("count"), py::arg("seed"));
}
