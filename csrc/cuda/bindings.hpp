// The functions of fusedrnn._cuda, which know nothing of where they run: module.cpp makes the extension module of them,
// and tests/cuda another one over the emulator. Shapes, dtypes and devices are checked in python/fusedrnn/cuda.
#pragma once

#include <pybind11/pybind11.h>

namespace fusedrnn::cuda {

void bind(pybind11::module_&);

}  // namespace fusedrnn::cuda
