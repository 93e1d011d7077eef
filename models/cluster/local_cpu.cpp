// The machine that this runs on, as a cluster of its CPU cores.
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <fstream>
#include <set>

#include "models/cluster/cluster.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

// Processors this process may run on, by the kernel's numbers.
std::vector<int> allowed_processors() {
  constexpr int most = 8192;
  cpu_set_t* set = CPU_ALLOC(most);
  if (set == nullptr) return {0};
  std::vector<int> allowed;
  if (sched_getaffinity(0, CPU_ALLOC_SIZE(most), set) == 0) {
    for (int i = 0; i < most; ++i) {
      if (CPU_ISSET_S(i, CPU_ALLOC_SIZE(most), set)) allowed.push_back(i);
    }
  }
  CPU_FREE(set);
  return allowed.empty() ? std::vector<int>{0} : allowed;
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// The value of the first "key : value" line of /proc/cpuinfo; empty when there is none (the keys differ by processor).
std::string cpuinfo(std::string_view key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::size_t start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

std::optional<double> leading_number(std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && std::isfinite(number) && number > 0 ? std::optional(number) : std::nullopt;
}

// Nominal clock in Hz: the highest the kernel allows, else the one in the model's name, else the current one.
double clock_rate(const std::string& model) {
  if (const auto khz = leading_number(first_line("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"))) {
    return *khz * 1e3;
  }
  if (const std::size_t at = model.find("@ "); at != std::string::npos) {
    if (const auto ghz = leading_number(std::string_view(model).substr(at + 2))) return *ghz * 1e9;
  }
  if (const auto mhz = leading_number(cpuinfo("cpu MHz"))) return std::round(*mhz / 100) * 1e8;
  return 2e9;
}

// Single-precision operations a cycle of one core with two fused multiply-add units of the widest registers.
double flops_per_cycle() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return 64;
  if (__builtin_cpu_supports("fma")) return 32;
  if (__builtin_cpu_supports("avx")) return 16;
  return 8;
#else
  return 16;
#endif
}

// Share of a physical core that each allowed processor has: below 1 where both threads of a core are allowed.
double core_share(const std::vector<int>& processors) {
  std::set<std::string> cores;
  for (const int processor : processors) {
    const std::string siblings =
        first_line(fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", processor));
    cores.insert(siblings.empty() ? fmt::format("{}", processor) : siblings);
  }
  return static_cast<double>(cores.size()) / static_cast<double>(processors.size());
}

// Physical memory, or the limit of the control group that this process is in, whichever is less.
Bytes usable_memory() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_size = sysconf(_SC_PAGESIZE);
  double memory = pages > 0 && page_size > 0 ? static_cast<double>(pages) * static_cast<double>(page_size) : 1 << 30;
  for (const char* file : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    if (const auto limit = leading_number(first_line(file))) memory = std::min(memory, *limit);
  }
  return Bytes(memory);
}

}  // namespace

Cluster local_cpu() {
  const std::vector<int> processors = allowed_processors();
  const auto count = static_cast<double>(processors.size());
  std::string model = cpuinfo("model name");
  if (model.empty()) model = "CPU";

  DeviceType core;
  core.name = printable(model, 100);
  core.kind = DeviceKind::cpu;
  core.memory = Bytes(std::floor(usable_memory().value() / count));
  core.memory_bandwidth = BytesPerSecond(10e9);
  core.peak[static_cast<std::size_t>(DataType::fp32)] =
      FlopsPerSecond(clock_rate(model) * flops_per_cycle() * core_share(processors));
  // Nominal figures of a server core; `stagecraft profile` replaces them by measured ones.
  core.efficiency = {0.7, 0.2, 0.6, Flops(2e6), Seconds(5e-6)};

  Cluster cluster;
  cluster.name = "local-cpu";
  cluster.device_types = {core};
  Node node;
  node.name = "local";
  node.local_kind = "shared-memory";
  node.local = {Seconds(10e-6), BytesPerSecond(5e9)};
  for (std::size_t i = 0; i < processors.size(); ++i) {
    node.devices.push_back({static_cast<std::int32_t>(i)});
    cluster.devices.push_back({0, 0});
  }
  cluster.nodes.push_back(std::move(node));
  return cluster;
}

}  // namespace stagecraft
