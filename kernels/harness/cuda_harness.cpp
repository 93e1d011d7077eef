#include "kernels/harness/cuda_harness.hpp"

#include <algorithm>
#include <cstring>
#include <random>

#include "kernels/cuda/elementwise.hpp"
#include "kernels/cuda/error.hpp"
#include "kernels/cuda/noise.hpp"
#include "kernels/cuda/optimizer.hpp"

namespace stagecraft::kernels {
namespace {

using Bytes = std::vector<std::byte>;

std::size_t element_bytes(const Tensor& tensor) {
  if (tensor.role == Role::indices) return 4;
  return tensor.storage == Storage::bf16 ? 2 : tensor.storage == Storage::fp32 ? 4 : 8;
}

std::size_t bytes_of(const Tensor& tensor) { return static_cast<std::size_t>(tensor.count) * element_bytes(tensor); }

template <class Stored>
Bytes stored(const float* values, std::size_t count) {
  Bytes bytes(count * sizeof(Stored));
  for (std::size_t i = 0; i < count; ++i) {
    const auto value = static_cast<Stored>(values[i]);
    std::memcpy(bytes.data() + i * sizeof(Stored), &value, sizeof(Stored));
  }
  return bytes;
}

template <class Stored>
void restore(float* values, const Bytes& bytes) {
  for (std::size_t i = 0; i < bytes.size() / sizeof(Stored); ++i) {
    Stored value{};
    std::memcpy(&value, bytes.data() + i * sizeof(Stored), sizeof(Stored));
    values[i] = static_cast<float>(value);
  }
}

Bytes stored(const Tensor& tensor, const Arguments<float>& arguments, std::size_t index) {
  const auto count = static_cast<std::size_t>(tensor.count);
  if (tensor.role == Role::indices) {
    Bytes bytes(count * 4);
    std::memcpy(bytes.data(), arguments.indices(index), bytes.size());
    return bytes;
  }
  switch (tensor.storage) {
    case Storage::bf16:
      return stored<cuda::Bf16>(arguments[index], count);
    case Storage::fp32:
      return stored<float>(arguments[index], count);
    case Storage::fp64:
      return stored<double>(arguments[index], count);
  }
  return {};
}

void restore(const Tensor& tensor, const Arguments<float>& arguments, std::size_t index, const Bytes& bytes) {
  switch (tensor.storage) {
    case Storage::bf16:
      return restore<cuda::Bf16>(arguments[index], bytes);
    case Storage::fp32:
      return restore<float>(arguments[index], bytes);
    case Storage::fp64:
      return restore<double>(arguments[index], bytes);
  }
}

std::vector<cuda::Buffer> allocate(const CudaCase& test) {
  std::vector<cuda::Buffer> buffers;
  for (const Tensor& tensor : test.tensors) buffers.emplace_back(bytes_of(tensor));
  return buffers;
}

DeviceArguments arguments_of(const std::vector<cuda::Buffer>& buffers) {
  std::vector<std::byte*> pointers;
  for (const cuda::Buffer& buffer : buffers) pointers.push_back(buffer.data());
  return DeviceArguments(std::move(pointers));
}

// What the call leaves in device memory.
std::vector<Bytes> run_once(const CudaCase& test, const std::vector<Bytes>& before) {
  const cuda::Stream stream;
  const std::vector<cuda::Buffer> buffers = allocate(test);
  for (std::size_t t = 0; t < before.size(); ++t) {
    STAGECRAFT_CUDA_CHECK(
        cudaMemcpyAsync(buffers[t].data(), before[t].data(), before[t].size(), cudaMemcpyHostToDevice, stream.get()));
  }
  test.candidate(arguments_of(buffers), stream.get());
  std::vector<Bytes> after;
  for (const Bytes& bytes : before) {
    Bytes& to = after.emplace_back(bytes.size());
    STAGECRAFT_CUDA_CHECK(
        cudaMemcpyAsync(to.data(), buffers[after.size() - 1].data(), to.size(), cudaMemcpyDeviceToHost, stream.get()));
  }
  stream.synchronize();
  return after;
}

double bytes_touched(const CudaCase& test) {
  if (test.bytes > 0.0) return test.bytes;
  double bytes = 0.0;
  for (const Tensor& tensor : test.tensors) {
    const auto size = static_cast<double>(bytes_of(tensor));
    if (tensor.role != Role::scratch) bytes += size;
    if (tensor.role == Role::in_out) bytes += size;
  }
  return bytes;
}

// Random contents made on the device: what perf measures is too large for the host's generator.
void fill(const Tensor& tensor, std::byte* memory, std::uint64_t seed, cudaStream_t stream) {
  const auto low = static_cast<float>(tensor.low);
  const auto high = static_cast<float>(tensor.high);
  if (tensor.role == Role::indices) {
    std::mt19937_64 random(seed);
    std::vector<std::int32_t> indices(static_cast<std::size_t>(tensor.count));
    for (auto& index : indices) index = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(tensor.high));
    STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(memory, indices.data(), indices.size() * 4, cudaMemcpyHostToDevice, stream));
    STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(stream));
  } else if (tensor.role == Role::scratch || tensor.storage == Storage::fp64) {
    STAGECRAFT_CUDA_CHECK(cudaMemsetAsync(memory, 0, bytes_of(tensor), stream));
  } else if (tensor.storage == Storage::bf16) {
    cuda::fill_noise(reinterpret_cast<cuda::Bf16*>(memory), tensor.count, low, high, seed, stream);
  } else {
    cuda::fill_noise(reinterpret_cast<float*>(memory), tensor.count, low, high, seed, stream);
  }
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

Outcome check(const CudaCase& test, std::uint64_t seed) {
  bool same_bits = true;
  const auto candidate = [&](const Arguments<float>& arguments) {
    std::vector<Bytes> before;
    for (std::size_t t = 0; t < test.tensors.size(); ++t) before.push_back(stored(test.tensors[t], arguments, t));
    const std::vector<Bytes> after = run_once(test, before);
    const std::vector<Bytes> again = test.repeatable ? run_once(test, before) : after;
    for (std::size_t t = 0; t < test.tensors.size(); ++t) {
      if (test.tensors[t].role == Role::scratch || test.tensors[t].role == Role::indices) continue;
      same_bits = same_bits && after[t] == again[t];
      restore(test.tensors[t], arguments, t, after[t]);
    }
  };
  try {
    Outcome outcome = check(Case{.op = test.op,
                                 .name = test.name,
                                 .tensors = test.tensors,
                                 .candidate = candidate,
                                 .reference = test.reference,
                                 .prepare = test.prepare,
                                 .flops = test.flops,
                                 .tolerance = test.tolerance,
                                 .scale = test.scale},
                            seed);
    if (outcome.passed && !same_bits) return {false, outcome.error, "a second run gave other bits"};
    return outcome;
  } catch (const cuda::Error& error) {
    return {false, std::numeric_limits<double>::infinity(), error.what()};
  }
}

void CudaLibraries::tune(const cuda::GemmShape& shape) {
  if (!tuned.insert(shape).second) return;
  const cuda::Buffer scratch(cuda::Gemm::tuning_bytes(shape));
  gemm.tune(shape, {scratch.data(), scratch.bytes()}, gemm_workspace.data(), stream.get());
}

namespace {
constexpr std::size_t sweep_bytes = std::size_t{512} << 20;  // several times the largest L2 cache
constexpr int repetitions = 21;
}  // namespace

CudaFloors::CudaFloors(CudaLibraries& libraries)
    : libraries_(libraries),
      sweep_(sweep_bytes),
      total_(sizeof(double)),
      partials_(cuda::squared_norm_workspace_doubles * sizeof(double)) {
  cuda::fill_noise(sweep_.as<float>(), sweep_bytes / 4, -1.0F, 1.0F, 1, libraries.stream.get());
}

double CudaFloors::cold_seconds(const std::function<void(cudaStream_t)>& body) {
  const cudaStream_t stream = libraries_.stream.get();
  body(stream);
  std::vector<cuda::Event> starts(repetitions);
  std::vector<cuda::Event> stops(repetitions);
  for (int i = 0; i < repetitions; ++i) {
    // Reading, not writing: lines that must be written back would be charged to the operation. It also keeps the device
    // busy until the operation is enqueued.
    cuda::squared_norm(total_.as<double>(), sweep_.as<float>(), sweep_bytes / 4, partials_.as<double>(),
                       cuda::Accumulate::no, stream);
    starts[static_cast<std::size_t>(i)].record(stream);
    body(stream);
    stops[static_cast<std::size_t>(i)].record(stream);
  }
  libraries_.stream.synchronize();
  std::vector<double> seconds;
  for (std::size_t i = 0; i < starts.size(); ++i) seconds.push_back(stops[i].seconds_since(starts[i]));
  return median(seconds);
}

double CudaFloors::copy_seconds(std::size_t bytes) {
  const std::size_t half = (bytes / 2 + 255) / 256 * 256;
  const auto found = copies_.find(half);
  if (found != copies_.end()) return found->second;
  if (copy_from_.bytes() < half) {
    copy_from_ = cuda::Buffer(half);
    copy_to_ = cuda::Buffer(half);
  }
  cuda::fill_noise(copy_from_.as<float>(), static_cast<std::int64_t>(half / 4), -1.0F, 1.0F, 1,
                   libraries_.stream.get());
  const double seconds = cold_seconds([&](cudaStream_t stream) {
    cuda::copy(copy_to_.as<float>(), copy_from_.as<float>(), static_cast<std::int64_t>(half / 4), stream);
  });
  return copies_[half] = seconds;
}

double CudaFloors::flops_per_s() {
  if (flops_per_s_ > 0.0) return flops_per_s_;
  constexpr std::int64_t n = 8192;
  const cuda::GemmShape shape{.rows = n, .columns = n, .depth = n};
  libraries_.tune(shape);
  const cuda::Buffer a(2 * n * n);
  const cuda::Buffer b(2 * n * n);
  const cuda::Buffer c(2 * n * n);
  cuda::fill_noise(a.as<cuda::Bf16>(), n * n, -1.0F, 1.0F, 1, libraries_.stream.get());
  cuda::fill_noise(b.as<cuda::Bf16>(), n * n, -1.0F, 1.0F, 2, libraries_.stream.get());
  const double seconds = cold_seconds([&](cudaStream_t stream) {
    libraries_.gemm.run(shape, c.data(), a.data(), b.data(), nullptr, libraries_.gemm_workspace.data(), stream);
  });
  return flops_per_s_ = shape.flops() / seconds;
}

CudaTiming measure(const CudaCase& test, CudaFloors& floors, cudaStream_t stream) {
  const std::vector<cuda::Buffer> buffers = allocate(test);
  for (std::size_t t = 0; t < buffers.size(); ++t) fill(test.tensors[t], buffers[t].data(), t + 1, stream);
  const DeviceArguments arguments = arguments_of(buffers);
  const double seconds = floors.cold_seconds([&](cudaStream_t on) { test.candidate(arguments, on); });
  const double bytes = bytes_touched(test);
  double floor = floors.copy_seconds(static_cast<std::size_t>(bytes));
  if (test.flops > 0.0) floor = std::max(floor, test.flops / floors.flops_per_s());
  return {seconds, test.flops / seconds, bytes / seconds, floor / seconds};
}

}  // namespace stagecraft::kernels
