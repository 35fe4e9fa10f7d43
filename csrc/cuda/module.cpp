// The extension module fusedrnn._cuda. It loads without a driver; `missing` says what a call would lack.
#include "bindings.hpp"

#include <cuda_runtime.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "launch.hpp"

namespace py = pybind11;

namespace fusedrnn::cuda {
namespace {

std::string version(int number) { return std::to_string(number / 1000) + '.' + std::to_string(number % 1000 / 10); }

constexpr int oldest = 8;  // the major number of the compute capability that the kernels need

std::optional<std::string> missing() {
  int driver = 0, count = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no NVIDIA driver is installed";
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) {
    for (int ordinal = 0; ordinal < count; ++ordinal)
      if (device::attribute(cudaDevAttrComputeCapabilityMajor, ordinal) >= oldest) return {};
    return "no GPU here has compute capability " + std::to_string(oldest) + ".0 or newer";
  }
  cudaGetLastError();  // or the next check would find this one
  if (status == cudaErrorInsufficientDriver)
    return "the NVIDIA driver is too old: it knows CUDA " + version(driver) + ", and this build needs " +
           version(CUDART_VERSION / 1000 * 1000) + " or newer";
  if (status == cudaSuccess || status == cudaErrorNoDevice)
    return "the NVIDIA driver shows no GPU to this process (CUDA_VISIBLE_DEVICES hides those that it does not name)";
  return std::string("the NVIDIA driver does not work: ") + cudaGetErrorString(status);
}

Gpu gpu(int ordinal) {
  if (const std::optional<std::string> what = missing()) throw std::runtime_error("CUDA: " + *what);
  using device::attribute;
  Gpu g = known_gpu(attribute(cudaDevAttrComputeCapabilityMajor, ordinal),
                    attribute(cudaDevAttrComputeCapabilityMinor, ordinal),
                    attribute(cudaDevAttrMultiProcessorCount, ordinal));
  if (g.major < oldest)
    throw std::runtime_error("CUDA: GPU " + std::to_string(ordinal) + " has compute capability " +
                             std::to_string(g.major) + '.' + std::to_string(g.minor) + ", the kernels need " +
                             std::to_string(oldest) + ".0 or newer");
  g.shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal);
  if (attribute(cudaDevAttrClusterLaunch, ordinal)) {
    const Kernel kernel = bfloat16_kernels(CellKind::lstm, Tier::cluster, false).pass;
    g.cluster = device::largest_cluster(kernel, block_threads, g.shared_bytes, ordinal);
  } else {
    g.cluster = 1;
  }
  return g;
}

}  // namespace
}  // namespace fusedrnn::cuda

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
  using namespace fusedrnn::cuda;
  m.doc() = "The kernels for NVIDIA GPUs: addresses on the GPU in, launches out. Use fusedrnn.torch or fusedrnn.cuda.";
  m.attr("compiler") = "nvcc " FUSEDRNN_NVCC;
  bind(m);
  m.def("missing", &missing);
  m.def("gpu", &gpu, py::arg("ordinal"));
}
