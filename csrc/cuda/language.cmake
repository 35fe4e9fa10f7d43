# Enables the language CUDA as FUSEDRNN_CUDA says, and sets FUSEDRNN_CUDA_BUILT. Included by ../../CMakeLists.txt, since a
# language is enabled in the highest folder that uses it.
set(FUSEDRNN_CUDA OFF CACHE STRING "Kernels for NVIDIA GPUs: OFF, ON (an error without a working nvcc), or AUTO (if it works)")
set_property(CACHE FUSEDRNN_CUDA PROPERTY STRINGS OFF ON AUTO)
set(FUSEDRNN_CUDA_BUILT OFF)
if(NOT FUSEDRNN_CUDA MATCHES "^(OFF|ON|AUTO)$")
  message(FATAL_ERROR "FUSEDRNN_CUDA: expected OFF, ON or AUTO, got ${FUSEDRNN_CUDA}")
endif()
if(FUSEDRNN_CUDA STREQUAL OFF)
  return()
endif()

# Machine code for each generation (8.6 and 8.9 run that of 8.0), and PTX, which drivers compile for what has no machine
# code here: 11.0 and all that comes later take that of 10.0. CMake would ask for an architecture that lacks bfloat16.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 100 120-real)
endif()
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)

include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  enable_language(CUDA)
  set(FUSEDRNN_CUDA_BUILT ON)
  message(STATUS "CUDA: nvcc ${CMAKE_CUDA_COMPILER_VERSION} builds the kernels for ${CMAKE_CUDA_ARCHITECTURES}")
else()
  unset(CMAKE_CUDA_COMPILER CACHE)  # so that the next configuration looks again
  set(why "nvcc is not found, cannot link, or does not know these architectures: ${CMAKE_CUDA_ARCHITECTURES}")
  if(FUSEDRNN_CUDA STREQUAL ON)
    message(FATAL_ERROR "FUSEDRNN_CUDA=ON needs a working nvcc of CUDA 12.8 or newer, on PATH or named by CUDACXX. "
      "Here ${why}. README.md says how to get one from the Python registry. FUSEDRNN_CUDA=OFF builds without.")
  endif()
  message(STATUS "CUDA: left out, since ${why}")
endif()
