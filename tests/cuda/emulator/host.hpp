// Launches a kernel on the emulator: the host's side of csrc/cuda, as csrc/cuda/nvidia/host.hpp has it for a GPU.
#pragma once

#include <map>
#include <type_traits>

#include "device.hpp"

namespace fusedrnn::device {

struct Grid {
  int blocks, threads;
  int shared_bytes;
  int cluster;  // blocks of a cluster, 1 without
  bool cooperative;
};
using Stream = void*;

// Kernels that run in the place of others.
inline std::map<const void*, const void*> substitutes;

// Runs the kernel to its end. std::runtime_error where the launch cannot be or the kernel does what it may not.
template <class A>
void launch(void (*kernel)(A), const Grid& grid, Stream, const A& arguments) {
  static_assert(std::is_trivially_copyable_v<A>);
  if (const auto at = substitutes.find(reinterpret_cast<const void*>(kernel)); at != substitutes.end())
    kernel = reinterpret_cast<void (*)(A)>(const_cast<void*>(at->second));
  emulator::Launch({grid.blocks, grid.threads, grid.shared_bytes, grid.cluster, grid.cooperative}, [&] {
    kernel(arguments);
  }).run();
}

// Calls launch_one(i, stream) for all i < launches.
template <class F>
void launch_each(Stream stream, int launches, F launch_one) {
  for (int i = 0; i < launches; ++i) launch_one(i, stream);
}

}  // namespace fusedrnn::device
