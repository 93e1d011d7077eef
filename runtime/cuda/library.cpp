#include "kernels/cuda/error.hpp"
#include "runtime/cuda/rank_executor.hpp"

namespace stagecraft::cuda {
namespace {

Gpu describe(int number) {
  cudaDeviceProp properties{};
  STAGECRAFT_CUDA_CHECK(cudaGetDeviceProperties(&properties, number));
  int memory_khz = 0, bus_bits = 0, clock_khz = 0;
  STAGECRAFT_CUDA_CHECK(cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, number));
  STAGECRAFT_CUDA_CHECK(cudaDeviceGetAttribute(&bus_bits, cudaDevAttrGlobalMemoryBusWidth, number));
  STAGECRAFT_CUDA_CHECK(cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, number));
  STAGECRAFT_CUDA_CHECK(cudaSetDevice(number));
  std::size_t free = 0, all = 0;
  STAGECRAFT_CUDA_CHECK(cudaMemGetInfo(&free, &all));
  return {.name = properties.name,
          .major = properties.major,
          .minor = properties.minor,
          .multiprocessors = properties.multiProcessorCount,
          .memory_bytes = static_cast<std::int64_t>(all),
          .free_bytes = static_cast<std::int64_t>(free),
          // Two transfers a clock.
          .memory_bandwidth = 2e3 * memory_khz * bus_bits / 8,
          .multiprocessor_clock = 1e3 * clock_khz};
}

class CudaModule : public Module {
 public:
  CudaModule() { set_nccl_defaults(); }
  bool has_nccl() const override { return nccl_available(); }
  std::vector<Gpu> gpus() const override {
    return as_device_error([] {
      int count = 0;
      STAGECRAFT_CUDA_CHECK(cudaGetDeviceCount(&count));
      std::vector<Gpu> all;
      for (int i = 0; i < count; ++i) all.push_back(describe(i));
      return all;
    });
  }
  std::unique_ptr<Executor> make_executor(const ExecutorContext& context, RankLayout layout,
                                          const DevicePlace& place) const override {
    return as_device_error([&] { return std::make_unique<RankExecutor>(context, std::move(layout), place); });
  }

  std::vector<double> time_copies(const DevicePlace& from, const DevicePlace& to, std::int64_t bytes) const override {
    return as_device_error([&] {
      const Device source(from);
      const kernels::cuda::Buffer data(static_cast<std::size_t>(bytes));
      const Device target(to);
      const kernels::cuda::Buffer arrived(static_cast<std::size_t>(bytes));
      constexpr int repetitions = 20;
      std::vector<double> seconds;
      for (int i = 0; i < repetitions; ++i) {
        const kernels::cuda::Event ready, there;
        ready.record(target.compute());
        STAGECRAFT_CUDA_CHECK(cudaStreamWaitEvent(target.arrivals(), ready.get(), 0));
        STAGECRAFT_CUDA_CHECK(cudaMemcpyPeerAsync(arrived.data(), to.gpu, data.data(), from.gpu,
                                                  static_cast<std::size_t>(bytes), target.arrivals()));
        there.record(target.arrivals());
        there.synchronize();
        if (i >= repetitions / 4) seconds.push_back(there.seconds_since(ready));
      }
      return seconds;
    });
  }
};

}  // namespace
}  // namespace stagecraft::cuda

extern "C" __attribute__((visibility("default"))) stagecraft::cuda::Module* stagecraft_cuda_module(int version) {
  static stagecraft::cuda::CudaModule module;
  return version == stagecraft::cuda::module_version ? &module : nullptr;
}
