// Launches by the CUDA runtime, on the current GPU. tests/cuda/emulator/host.hpp offers the same.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>

namespace fusedrnn::device {

using Stream = void*;  // a cudaStream_t

struct Grid {
  int blocks, threads, shared_bytes;
  int cluster;       // blocks of a cluster; 1 without
  bool cooperative;  // all blocks must be resident together
};

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or the next check would find this one
  throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

inline int current_gpu() {
  int ordinal = 0;
  check(cudaGetDevice(&ordinal), "the current GPU");
  return ordinal;
}
inline int attribute(cudaDeviceAttr which, int ordinal) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, ordinal), "properties of a GPU");
  return value;
}

// --- What fits

// A grid as the runtime takes it.
struct Launch {
  cudaLaunchConfig_t config{};
  cudaLaunchAttribute attribute{};

  Launch(const Grid& grid, Stream stream) {
    config.gridDim = dim3(unsigned(grid.blocks));
    config.blockDim = dim3(unsigned(grid.threads));
    config.dynamicSmemBytes = std::size_t(grid.shared_bytes);
    config.stream = static_cast<cudaStream_t>(stream);
    config.attrs = &attribute;
    if (grid.cooperative) {
      attribute.id = cudaLaunchAttributeCooperative;
      attribute.val.cooperative = 1;
      config.numAttrs = 1;
    } else if (grid.cluster > 1) {
      attribute.id = cudaLaunchAttributeClusterDimension;
      attribute.val.clusterDim = {unsigned(grid.cluster), 1, 1};
      config.numAttrs = 1;
    }
  }
  Launch(const Launch&) = delete;  // config points to attribute
};

// Lets a kernel have all of a block's shared memory, and clusters of more than eight blocks.
inline void open_limits(const void* kernel, bool clusters, int ordinal) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal)),
        "shared memory of a kernel");
  if (clusters)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1), "clusters of a kernel");
}

// How many of a grid's blocks are resident together, or of its clusters; of an ordinary grid it is 1.
inline int count_resident(const void* kernel, const Grid& grid, int ordinal) {
  int count = 1;
  if (grid.cooperative) {
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&count, kernel, grid.threads, std::size_t(grid.shared_bytes)),
          "blocks of a multiprocessor");
    count *= attribute(cudaDevAttrMultiProcessorCount, ordinal);
  } else if (grid.cluster > 1) {
    const Launch launch(grid, nullptr);
    if (cudaOccupancyMaxActiveClusters(&count, kernel, &launch.config) != cudaSuccess) {
      cudaGetLastError();  // the size is none that this GPU knows
      count = 0;
    }
  }
  return count;
}

// Throws where a launch would fail, or would wait forever for a block that cannot be resident. Remembers what it asked.
inline void check_fits(const void* kernel, const Grid& grid) {
  static std::mutex mutex;
  static std::map<std::tuple<int, const void*, int, int, int, bool>, int> known;
  const int ordinal = current_gpu();
  int resident;
  {
    const std::lock_guard lock(mutex);
    const auto [key, fresh] =
        known.try_emplace({ordinal, kernel, grid.threads, grid.shared_bytes, grid.cluster, grid.cooperative}, -1);
    if (key->second < 0) {
      open_limits(kernel, grid.cluster > 1, ordinal);
      key->second = count_resident(kernel, grid, ordinal);
    }
    resident = key->second;
  }
  const auto refuse = [&](const std::string& what, const std::string& instead) {
    throw std::runtime_error("CUDA: GPU " + std::to_string(ordinal) + ' ' + what + ", each of " +
                             std::to_string(grid.threads) + " threads and " + std::to_string(grid.shared_bytes) +
                             " bytes of shared memory; make the plan with " + instead);
  };
  if (grid.cooperative && resident < grid.blocks)
    refuse("holds " + std::to_string(resident) + " of the " + std::to_string(grid.blocks) +
               " blocks that must be resident together",
           "tier=Tier.steps");
  if (grid.cluster > 1 && resident < 1)
    refuse("holds no cluster of " + std::to_string(grid.cluster) + " blocks",
           "tier=Tier.grid or Tier.steps, or with a smaller Gpu.cluster");
}

// The most blocks of a cluster, for blocks of this size, of a GPU that has clusters.
template <class A>
int largest_cluster(void (*kernel)(A), int threads, int shared_bytes, int ordinal) {
  const auto function = reinterpret_cast<const void*>(kernel);
  const int before = current_gpu();
  check(cudaSetDevice(ordinal), "a GPU");
  int blocks = 0;
  open_limits(function, true, ordinal);
  const Launch launch({threads, threads, shared_bytes, 1, false}, nullptr);
  const cudaError_t status = cudaOccupancyMaxPotentialClusterSize(&blocks, function, &launch.config);
  check(cudaSetDevice(before), "a GPU");
  check(status, "clusters of a kernel");
  return std::max(1, blocks);
}

template <class A>
void launch(void (*kernel)(A), const Grid& grid, Stream stream, const A& arguments) {
  check_fits(reinterpret_cast<const void*>(kernel), grid);
  const Launch launch(grid, stream);
  check(cudaLaunchKernelEx(&launch.config, kernel, arguments), "launch of a kernel");
}

// --- Many launches

// The graphs of a GPU. There are few, since their numbers of launches are powers of two, and each is used again with
// other kernels and arguments: the CUDA runtime lets launches that are under way finish with those that they had. A
// graph runs once at a time, so that calls in several streams take turns.
struct Graphs {
  static constexpr int longest = 128;  // launches: the GPU begins when so many are ready

  cudaStream_t captured = nullptr;  // launches go here to become a graph: the default stream cannot be captured
  std::map<int, cudaGraphExec_t> ready;

  // Puts the launches that were captured into `stream`. Takes the graph.
  void run(cudaGraph_t graph, int launches, cudaStream_t stream) {
    cudaGraphExec_t& executable = ready[launches];
    cudaGraphExecUpdateResultInfo result;
    if (executable && cudaGraphExecUpdate(executable, graph, &result) != cudaSuccess) {
      cudaGetLastError();
      cudaGraphExecDestroy(executable);
      executable = nullptr;
    }
    cudaError_t status = executable ? cudaSuccess : cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    if (status == cudaSuccess) status = cudaGraphLaunch(executable, stream);
    check(status, "launch of a graph");
  }
};

inline std::mutex graphs_mutex;
inline std::map<int, Graphs> graphs_of_gpu;

// Calls launch_one(i, stream) for all i < launches, each of which launches one kernel without a cluster; the launches
// go into the stream as graphs, whose kernels follow each other without the host.
template <class F>
void launch_each(Stream stream, int launches, F launch_one) {
  const auto caller = static_cast<cudaStream_t>(stream);
  cudaStreamCaptureStatus capturing;
  check(cudaStreamIsCapturing(caller, &capturing), "state of a stream");
  if (capturing != cudaStreamCaptureStatusNone) {  // they become part of the caller's graph
    for (int i = 0; i < launches; ++i) launch_one(i, stream);
    return;
  }
  const std::lock_guard lock(graphs_mutex);
  Graphs& graphs = graphs_of_gpu[current_gpu()];
  if (!graphs.captured) check(cudaStreamCreateWithFlags(&graphs.captured, cudaStreamNonBlocking), "a stream");
  int size = Graphs::longest;
  for (int first = 0; first < launches; first += size) {
    while (size > launches - first) size /= 2;
    // Relaxed: the first launch of a kernel loads it.
    check(cudaStreamBeginCapture(graphs.captured, cudaStreamCaptureModeRelaxed), "capture of launches");
    cudaGraph_t graph = nullptr;
    try {
      for (int i = first; i < first + size; ++i) launch_one(i, graphs.captured);
    } catch (...) {
      cudaStreamEndCapture(graphs.captured, &graph);
      cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(graphs.captured, &graph), "capture of launches");
    graphs.run(graph, size, caller);
  }
}

}  // namespace fusedrnn::device
