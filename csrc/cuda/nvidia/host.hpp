// Launches by the CUDA runtime. tests/cuda/emulator/host.hpp offers the same.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace fusedrnn::device {

using Stream = void*;  // a cudaStream_t

struct Grid {
  int blocks, threads, shared_bytes;
  int cluster;       // blocks of a cluster; 1 without
  bool cooperative;  // all blocks must be resident together
};

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

template <class A>
void launch(void (*kernel)(A), const Grid& grid, Stream stream, const A& arguments) {
  if (grid.shared_bytes > 48 * 1024)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, grid.shared_bytes),
          "shared memory of a kernel");
  cudaLaunchAttribute attribute[1];
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(grid.blocks));
  config.blockDim = dim3(unsigned(grid.threads));
  config.dynamicSmemBytes = std::size_t(grid.shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = attribute;
  if (grid.cooperative) {
    attribute[0].id = cudaLaunchAttributeCooperative;
    attribute[0].val.cooperative = 1;
    config.numAttrs = 1;
  } else if (grid.cluster > 1) {
    attribute[0].id = cudaLaunchAttributeClusterDimension;
    attribute[0].val.clusterDim = {unsigned(grid.cluster), 1, 1};
    config.numAttrs = 1;
  }
  check(cudaLaunchKernelEx(&config, kernel, arguments), "launch of a kernel");
}

}  // namespace fusedrnn::device
