#include <algorithm>
#include <numeric>

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
      all.reserve(static_cast<std::size_t>(count));
      for (int i = 0; i < count; ++i) all.push_back(describe(i));
      return all;
    });
  }
  std::unique_ptr<Executor> make_executor(const ExecutorContext& context, RankLayout layout,
                                          const DevicePlace& place) const override {
    return as_device_error([&] { return std::make_unique<RankExecutor>(context, std::move(layout), place); });
  }

  std::vector<double> time_messages(const DevicePlace& from, const DevicePlace& to, std::int64_t bytes) const override {
    return as_device_error([&] {
      const Device source(from);
      const kernels::cuda::Buffer data(static_cast<std::size_t>(bytes));
      const Device target(to);
      const kernels::cuda::Buffer arrived(static_cast<std::size_t>(bytes));
      // Keeps the device busy until the host has enqueued the message and what waits for it.
      constexpr std::size_t delay_bytes = std::size_t{256} << 20;
      const kernels::cuda::Buffer delay(delay_bytes);
      const auto wait = [](cudaStream_t stream, const kernels::cuda::Event& event) {
        STAGECRAFT_CUDA_CHECK(cudaStreamWaitEvent(stream, event.get(), 0));
      };
      constexpr int repetitions = 20;
      std::vector<double> seconds;
      for (int i = 0; i < repetitions; ++i) {
        const kernels::cuda::Event ready, there, asked, answered, start;
        STAGECRAFT_CUDA_CHECK(cudaMemsetAsync(delay.data(), 0, delay_bytes, target.compute()));
        ready.record(target.compute());
        wait(target.arrivals(), ready);
        STAGECRAFT_CUDA_CHECK(cudaMemcpyPeerAsync(arrived.data(), to.gpu, data.data(), from.gpu,
                                                  static_cast<std::size_t>(bytes), target.arrivals()));
        there.record(target.arrivals());
        // As the executor does before a computation.
        asked.record(target.compute());
        wait(target.compute(), there);
        answered.record(target.compute());
        start.record(target.compute());
        start.synchronize();
        if (i >= repetitions / 4) seconds.push_back(start.seconds_since(ready));
      }
      return seconds;
    });
  }

  std::vector<std::vector<double>> time_sums(Transport& transport, const DevicePlace& place,
                                             std::span<const std::int64_t> sizes) const override {
    return as_device_error([&] {
      constexpr int warm_up = 3, repetitions = 15, in_graph = 10;
      const Device device(place);
      std::vector<int> all(static_cast<std::size_t>(transport.workers()));
      std::iota(all.begin(), all.end(), 0);
      Communicator group(transport, all, std::chrono::seconds(60));
      const kernels::cuda::Buffer data(static_cast<std::size_t>(*std::max_element(sizes.begin(), sizes.end())));
      STAGECRAFT_CUDA_CHECK(cudaMemsetAsync(data.data(), 0, data.bytes(), device.compute()));
      Graphs graphs;
      std::vector<std::vector<double>> seconds;
      for (const std::int64_t bytes : sizes) {
        const auto sum = [&] { group.all_reduce(data.data(), bytes / 2, Element::bf16, device.compute()); };
        sum();  // loads kernels and connects before the capture
        group.wait(device.compute());
        const kernels::cuda::Event start, end;
        std::vector<double>& times = seconds.emplace_back();
        for (int i = 0; i < warm_up + repetitions; ++i) {
          start.record(device.compute());
          graphs.launch({.stage = static_cast<int>(seconds.size())}, device.compute(), [&] {
            for (int k = 0; k < in_graph; ++k) sum();
          });
          end.record(device.compute());
          group.wait(device.compute());
          if (i >= warm_up) times.push_back(end.seconds_since(start) / in_graph);
        }
      }
      graphs.clear();  // a communicator stays as long as a graph uses it
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
