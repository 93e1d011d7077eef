#include "runtime/cuda/device.hpp"

#include <fmt/ranges.h>

#include <array>
#include <numeric>

#include "kernels/cuda/error.hpp"

namespace stagecraft::cuda {
namespace {

// A function of the driver. The library does not link to it: a machine without a GPU has none.
template <class Function>
Function* driver(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t status = cudaGetDriverEntryPointByVersion(name, &function, 12080, cudaEnableDefault, &found);
  if (status != cudaSuccess || found != cudaDriverEntryPointSuccess) {
    throw kernels::cuda::Error(std::string("the driver has no ") + name + ": slices of a GPU need CUDA 12.8 or later");
  }
  return reinterpret_cast<Function*>(function);
}
#define STAGECRAFT_DRIVER(function) driver<decltype(function)>(#function)

void check(CUresult status, const std::string& what) {
  if (status == CUDA_SUCCESS) return;
  const char* text = nullptr;
  STAGECRAFT_DRIVER(cuGetErrorString)(status, &text);
  throw kernels::cuda::Error(what + ": " + (text != nullptr ? text : "unknown error"));
}

}  // namespace

void DestroyGreenContext::operator()(CUgreenCtx context) const {
  static_cast<void>(STAGECRAFT_DRIVER(cuGreenCtxDestroy)(context));
}

Device::Device(const DevicePlace& place) : place_(place) {
  STAGECRAFT_CUDA_CHECK(cudaSetDevice(place.gpu));
  STAGECRAFT_CUDA_CHECK(cudaFree(nullptr));  // makes the GPU's context
  STAGECRAFT_CUDA_CHECK(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, place.gpu));
  allow_peer_access();
  if (is_slice()) cut();
  int lowest = 0, highest = 0;
  STAGECRAFT_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  compute_ = make_stream();
  // On a slice copies are kernels: without priority a message waits for the kernels that wait already.
  arrivals_ = make_stream(highest);
  departures_ = make_stream(highest);
  sums_ = make_stream(highest);
}

// The GPU's multiprocessors are split into equal groups, as large as all slices are multiples of, and the slices take
// them one after the other. Every rank of the GPU makes the same cuts.
void Device::cut() {
  CUdevice device = 0;
  check(STAGECRAFT_DRIVER(cuDeviceGet)(&device, place_.gpu), "cuDeviceGet");
  CUdevResource all{};
  check(STAGECRAFT_DRIVER(cuDeviceGetDevResource)(device, &all, CU_DEV_RESOURCE_TYPE_SM), "cuDeviceGetDevResource");
  int size = 0;
  for (const int slice : place_.slices) size = std::gcd(size, slice);
  std::array<CUdevResource, 64> groups{};
  unsigned count = groups.size();
  CUdevResource rest{};
  check(STAGECRAFT_DRIVER(cuDevSmResourceSplitByCount)(groups.data(), &count, &all, &rest, 0,
                                                       static_cast<unsigned>(size)),
        "cuDevSmResourceSplitByCount");

  unsigned next = 0, first = 0;
  for (int i = 0; i <= place_.slice; ++i) {
    const int wanted = place_.slices[static_cast<std::size_t>(i)];
    first = next;
    int taken = 0;
    while (taken < wanted && next < count) taken += static_cast<int>(groups.at(next++).sm.smCount);
    if (taken == wanted) continue;
    throw kernels::cuda::Error(fmt::format(
        "slice {} of GPU {}: its {} multiprocessors come in {} groups of {}, which cannot be cut into {}", i,
        place_.gpu, multiprocessors_, count, groups.front().sm.smCount, fmt::join(place_.slices, " + ")));
  }
  CUdevResourceDesc description = nullptr;
  check(STAGECRAFT_DRIVER(cuDevResourceGenerateDesc)(&description, &groups.at(first), next - first),
        "cuDevResourceGenerateDesc");
  CUgreenCtx green = nullptr;
  check(STAGECRAFT_DRIVER(cuGreenCtxCreate)(&green, description, device, CU_GREEN_CTX_DEFAULT_STREAM),
        "cuGreenCtxCreate");
  green_.reset(green);
  CUcontext context = nullptr;
  check(STAGECRAFT_DRIVER(cuCtxFromGreenCtx)(&context, green), "cuCtxFromGreenCtx");
  check(STAGECRAFT_DRIVER(cuCtxSetCurrent)(context), "cuCtxSetCurrent");
  multiprocessors_ = place_.slices[static_cast<std::size_t>(place_.slice)];
}

// Where the machine has no way from GPU to GPU, the driver copies through the host.
void Device::allow_peer_access() const {
  int gpus = 0;
  STAGECRAFT_CUDA_CHECK(cudaGetDeviceCount(&gpus));
  for (int other = 0; other < gpus; ++other) {
    int possible = 0;
    if (other != gpu()) STAGECRAFT_CUDA_CHECK(cudaDeviceCanAccessPeer(&possible, gpu(), other));
    if (possible == 0) continue;
    const cudaError_t status = cudaDeviceEnablePeerAccess(other, 0);
    if (status == cudaErrorPeerAccessAlreadyEnabled) {
      static_cast<void>(cudaGetLastError());
    } else {
      STAGECRAFT_CUDA_CHECK(status);
    }
  }
}

std::string Device::name() const {
  cudaDeviceProp properties{};
  STAGECRAFT_CUDA_CHECK(cudaGetDeviceProperties(&properties, place_.gpu));
  return is_slice() ? fmt::format("{}, {} multiprocessors", properties.name, multiprocessors_) : properties.name;
}

Device::Stream Device::make_stream(int priority) const {
  cudaStream_t stream = nullptr;
  if (is_slice()) {
    check(STAGECRAFT_DRIVER(cuGreenCtxStreamCreate)(&stream, green_.get(), CU_STREAM_NON_BLOCKING, priority),
          "cuGreenCtxStreamCreate");
  } else {
    STAGECRAFT_CUDA_CHECK(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority));
  }
  return Stream(stream);
}

}  // namespace stagecraft::cuda
