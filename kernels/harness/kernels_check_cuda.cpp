// kernels_check_cuda test|grad|perf [--op NAME]: the harness of the CUDA operations on the first device. Exit code 0:
// all right, 1: a check failed, 2: wrong arguments, 77: no device, nothing done.
// kernels_check_cuda device: its properties for cuDNN, which tests/runtime/cudnn_devices has for machines without one.
#include <cublasLt.h>
#include <cudnn.h>
#include <unistd.h>

#include "kernels/cuda/error.hpp"
#include "kernels/harness/command_line.hpp"
#include "kernels/harness/cuda_harness.hpp"

namespace {

using namespace stagecraft::kernels;

constexpr int skipped = 77;

// Why there is nothing to run on; empty if there is.
std::string why_no_device() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) return cudaGetErrorString(status);
  return count == 0 ? "no CUDA device" : "";
}

struct TemporaryFile {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / fmt::format("kernels_check_cuda.{}.txt", getpid());
  TemporaryFile() = default;
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }
};

void print_context() {
  cudaDeviceProp device{};
  STAGECRAFT_CUDA_CHECK(cudaGetDeviceProperties(&device, 0));
  int driver = 0;
  STAGECRAFT_CUDA_CHECK(cudaDriverGetVersion(&driver));
  fmt::print(
      "{}: compute capability {}.{}, {} multiprocessors, {:.0f} GiB; driver for CUDA {}.{}, runtime {}.{}, "
      "cuBLASLt {}, cuDNN {}\n",
      device.name, device.major, device.minor, device.multiProcessorCount,
      static_cast<double>(device.totalGlobalMem) / (1 << 30), driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
      CUDART_VERSION % 1000 / 10, cublasLtGetVersion(), cudnnGetVersion());
}

std::optional<int> run_perf(const CommandLine& command, CudaLibraries& libraries) {
  CudaFloors floors(libraries);
  constexpr std::size_t large = std::size_t{1} << 30;
  fmt::print("bf16 product {:.0f} TFLOP/s, copy {:.0f} GB/s; caches are cold\n", floors.flops_per_s() * 1e-12,
             static_cast<double>(large) / floors.copy_seconds(large) * 1e-9);
  fmt::print("{:<84} {:>10} {:>8} {:>7} {:>9}\n", "case", "median us", "TFLOP/s", "GB/s", "of floor");
  std::optional<int> code;
  for (const CudaCase& test : cuda_perf_cases(libraries)) {
    if (!command.selects(test.op)) continue;
    code = code.value_or(0);
    try {
      const CudaTiming timing = measure(test, floors, libraries.stream.get());
      fmt::print("{:<84} {:>10.1f} {:>8.0f} {:>7.0f} {:>8.0f}%\n", test.name, timing.median_s * 1e6,
                 timing.flops_per_s * 1e-12, timing.bytes_per_s * 1e-9, timing.share_of_floor * 100.0);
    } catch (const cuda::Error& error) {
      fmt::print("{:<84} {}\n", test.name, error.what());
      code = 1;
    }
    std::fflush(stdout);
  }
  return code;
}

std::optional<int> run(const CommandLine& command, CudaLibraries& libraries) {
  if (command.mode == "test") {
    return run_checks(command, cuda_test_cases(libraries), [](const CudaCase& c, auto s) { return check(c, s); });
  }
  if (command.mode == "grad") return run_checks(command, cuda_gradient_cases(libraries), check_gradient);
  return run_perf(command, libraries);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const bool wants_device = words == std::vector<std::string>{"device"};
  const auto command = parse_command_line(words);
  if (const std::string reason = why_no_device(); !reason.empty()) {
    fmt::print("skipped: {}\n", reason);
    return command || wants_device ? skipped : 2;
  }
  try {
    if (wants_device) {
      fmt::print("{}\n", cuda::CudnnAttention(cuda::AttentionBackward::fast).device_properties());
      return 0;
    }
    print_context();
    const TemporaryFile cache;
    CudaLibraries libraries{.gemm_cache = cache.path};
    const std::optional<int> code = command ? run(*command, libraries) : std::nullopt;
    return code ? *code : print_usage("kernels_check_cuda", cuda_test_cases(libraries));
  } catch (const cuda::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}
