# Sets STAGECRAFT_WITH_CUDA: whether the CUDA operations are built. STAGECRAFT_CUDA says whether they must be (ON), must
# not be (OFF), or are where the CUDA toolkit and cuDNN are found (AUTO).
set(STAGECRAFT_CUDA AUTO CACHE STRING "Build the CUDA operations: AUTO, ON or OFF")
set_property(CACHE STAGECRAFT_CUDA PROPERTY STRINGS AUTO ON OFF)
set(STAGECRAFT_WITH_CUDA OFF)
if(NOT STAGECRAFT_CUDA)
  return()
endif()

# Machine code for A100, H100 and B200, and for later devices code that the driver compiles at the first start.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES "80-real;90-real;100-real;100-virtual" CACHE STRING "CUDA architectures")
endif()

set(missing "")
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  find_package(CUDAToolkit 12.0)
  find_package(CUDNN 9.8)
  if(NOT CUDAToolkit_FOUND)
    set(missing "the CUDA toolkit 12 or later")
  elseif(NOT TARGET CUDA::cublasLt)
    set(missing "cuBLASLt")
  elseif(NOT CUDNN_FOUND)
    set(missing "cuDNN 9.8")
  endif()
else()
  set(missing "a CUDA compiler")
endif()

if(missing)
  if(STAGECRAFT_CUDA STREQUAL AUTO)
    message(STATUS "CUDA operations: not built, ${missing} was not found")
    return()
  endif()
  message(FATAL_ERROR "STAGECRAFT_CUDA is ${STAGECRAFT_CUDA}, but ${missing} was not found")
endif()

if(CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
enable_language(CUDA)
set(STAGECRAFT_WITH_CUDA ON)
message(STATUS "CUDA operations: CUDA ${CUDAToolkit_VERSION}, cuDNN ${CUDNN_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")

# Sums and messages between GPUs. Without it the GPUs of one process reach each other by peer copies.
find_package(NCCL 2.18)
