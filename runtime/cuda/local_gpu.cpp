#include "runtime/cuda/local_gpu.hpp"

#include <charconv>
#include <string_view>

#include "models/error.hpp"
#include "models/text.hpp"

namespace stagecraft::cuda {
namespace {

constexpr std::string_view base = "local-gpu";
constexpr std::string_view slices_option = "local-gpu:slices=";

// Dense operations a clock and multiprocessor; tf32 has half of bf16's (NVIDIA's architecture papers).
struct Rates {
  double bf16, fp32;
};
Rates rates(int major) {
  if (major >= 10) return {8192, 256};
  if (major == 9) return {4096, 256};
  return {2048, 128};
}

std::vector<int> numbers(const std::string& name, std::string_view text) {
  std::vector<int> list;
  while (true) {
    int number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const bool stops = end == text.data() + text.size();
    if (error != std::errc() || number < 1 || (!stops && *end != '+')) {
      throw bad_input("'{}': expected slices=4 (equal ones), or their multiprocessors such as slices=64+32+32",
                      printable(name));
    }
    list.push_back(number);
    if (stops) return list;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()) + 1);
  }
}

// Multiprocessors of each slice of a GPU; empty: whole.
std::vector<int> slices_of(const std::string& name, const Gpu& gpu) {
  if (name == base) return {};
  if (!name.starts_with(slices_option)) {
    throw bad_input("'{}': expected local-gpu or local-gpu:slices=4", printable(name));
  }
  std::vector<int> slices = numbers(name, std::string_view(name).substr(slices_option.size()));
  if (slices.size() == 1) {
    const int count = slices.front();
    const int each = gpu.multiprocessors / count / slice_multiple * slice_multiple;
    if (each == 0) {
      throw bad_input("'{}': {} has {} multiprocessors, and a slice at least {}", printable(name), gpu.name,
                      gpu.multiprocessors, slice_multiple);
    }
    return std::vector<int>(static_cast<std::size_t>(count), each);
  }
  int sum = 0;
  for (const int slice : slices) {
    sum += slice;
    if (slice % slice_multiple != 0 || sum > gpu.multiprocessors) {
      throw bad_input("'{}': expected multiples of {}, in all at most the {} multiprocessors of {}", printable(name),
                      slice_multiple, gpu.multiprocessors, gpu.name);
    }
  }
  return slices;
}

// Nominal figures; `stagecraft profile` replaces them by measured ones.
DeviceType device_type(const Gpu& gpu, const std::vector<int>& slices, int multiprocessors) {
  const double share = static_cast<double>(multiprocessors) / gpu.multiprocessors;
  DeviceType type;
  type.name = printable(gpu.name, 100);
  type.kind = DeviceKind::gpu;
  // What the context and the libraries take is not for the plan.
  type.memory = Bytes(static_cast<double>(gpu.memory_bytes) * 0.97);
  type.memory_bandwidth = BytesPerSecond(gpu.memory_bandwidth);
  if (!slices.empty()) {
    type.name += fmt::format(", {} multiprocessors", multiprocessors);
    type.multiprocessors = multiprocessors, type.gpu_multiprocessors = gpu.multiprocessors;
    type.memory = type.memory / static_cast<double>(slices.size());
    // All slices want it at once.
    type.memory_bandwidth = type.memory_bandwidth * share;
  }
  const Rates rate = rates(gpu.major);
  const double clocks = multiprocessors * gpu.multiprocessor_clock;
  const auto set = [&](DataType data, double flops) {
    type.peak[static_cast<std::size_t>(data)] = FlopsPerSecond(flops * clocks);
  };
  set(DataType::bf16, rate.bf16), set(DataType::fp16, rate.bf16);
  set(DataType::tf32, rate.bf16 / 2), set(DataType::fp32, rate.fp32);
  type.efficiency = {0.65, 0.35, 0.8, Flops(2e9), Seconds(10e-6)};
  return type;
}

}  // namespace

bool is_local_gpu(const std::string& name) { return name == base || name.starts_with("local-gpu:"); }

Cluster describe(const std::string& name, const std::vector<Gpu>& gpus) {
  if (gpus.empty()) throw device_error("{}: this machine has no GPU", name);
  Cluster cluster;
  cluster.name = name;
  Node node;
  node.name = "local";
  const bool sliced = name != base;
  node.local_kind = sliced ? "device memory" : "nvlink";
  node.local = sliced ? Link{Seconds(8e-6), BytesPerSecond(1.5e12)} : Link{Seconds(5e-6), BytesPerSecond(360e9)};
  for (const Gpu& gpu : gpus) {
    const std::vector<int> slices = slices_of(name, gpu);
    for (const int multiprocessors : slices.empty() ? std::vector{gpu.multiprocessors} : slices) {
      const DeviceType type = device_type(gpu, slices, multiprocessors);
      int number = 0;
      const auto count = static_cast<int>(cluster.device_types.size());
      while (number < count && cluster.device_types[static_cast<std::size_t>(number)] != type) ++number;
      if (number == count) cluster.device_types.push_back(type);
      node.devices.push_back({static_cast<std::int32_t>(cluster.devices.size())});
      cluster.devices.push_back({number, 0});
    }
  }
  cluster.nodes.push_back(std::move(node));
  return cluster;
}

Cluster local_gpu(const std::string& name) { return describe(name, load_module().gpus()); }

}  // namespace stagecraft::cuda
