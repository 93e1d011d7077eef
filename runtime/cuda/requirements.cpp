#include "runtime/cuda/requirements.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "models/schedule/checker.hpp"
#include "models/text.hpp"
#include "runtime/cuda/module.hpp"
#include "runtime/network_check.hpp"

namespace stagecraft::cuda {
namespace {

void check_plan(const Plan& plan) {
  const DataType precision = plan.precision;
  if (precision != DataType::fp32 && precision != DataType::tf32 && precision != DataType::bf16) {
    throw bad_input("precision: the CUDA backend trains in fp32, tf32 and bf16, the plan says {}", name(precision));
  }
  const auto refuse = [](std::string_view what) {
    throw bad_input("{}: not done on GPUs; the CPU backend does", what);
  };
  const Transformer& t = *plan.network.transformer;
  if (t.head == HeadKind::regression) refuse("a regression head");
  if (precision == DataType::bf16 && t.hidden % 8 != 0) {
    throw bad_input("hidden: expected a multiple of 8 for bf16, got {}", t.hidden);
  }
  // Overlap is what the runtime does where it can, whatever was predicted.
  PlanLayout layout = plan.layout;
  layout.zero = layout.zero == 1 ? 0 : layout.zero;
  layout.overlap_gradients = layout.overlap_parameters = layout.overlap_pipeline = false;
  check_layout(plan, layout, "CUDA");
  if (plan.layout.zero > 0 && plan.shards() > 1) {
    throw bad_input("layout.zero: not done on GPUs beside tensor parallelism: expected 0, got {}", plan.layout.zero);
  }
  const ComputeSchedule& schedule = plan.schedule;
  if (plan.layout.zero > 0 && std::any_of(plan.stages.begin(), plan.stages.end(),
                                          [](const PlanStage& stage) { return stage.second_rank.has_value(); })) {
    throw bad_input("layout.zero: not done for stages on two ranks (schedule '{}'): expected 0, got {}", schedule.name,
                    plan.layout.zero);
  }
  if (schedule.updates != WeightUpdates::synchronous) refuse("asynchronous updates");
}

std::string text(std::int64_t bytes) { return to_string(Bytes(static_cast<double>(bytes))); }

// Processes reach each other over NCCL alone.
void check_processes(const Plan& plan) {
  if (!load_module().has_nccl()) {
    throw device_error("several processes need NCCL, which this build does not have: start one process for all GPUs");
  }
  for (const DeviceType& type : plan.cluster.device_types) {
    if (!type.is_slice()) continue;
    throw bad_input("cluster.device_types: '{}' is a slice of a GPU: several processes need whole GPUs; start one",
                    type.name);
  }
  if (plan.schedule.forward_only) throw bad_input("schedule: inference runs in one process on GPUs; start one");
  const std::vector<ScheduleFault> faults = check(lowered(plan, true), 0, Pairing::by_order);
  if (faults.empty()) return;
  throw bad_input("schedule '{}': does not run in several processes, whose messages pair by their order: {}",
                  plan.schedule.name, faults.front().message);
}

// Shards have a GPU each and reach each other over NCCL alone.
void check_shards(const Plan& plan) {
  if (!load_module().has_nccl()) {
    throw device_error("layout.tensor: shards on GPUs exchange over NCCL, which this build does not have");
  }
  for (const std::vector<DeviceId>& row : plan.devices) {
    for (const DeviceId id : row) {
      const DeviceType& type = plan.cluster.type_of(id);
      if (!type.is_slice()) continue;
      throw device_error("layout.tensor: shards need a whole GPU each, device {} is a slice ({})", id.value, type.name);
    }
  }
}

// What the plan's ranks, or this process's, need of each GPU, and whether it is there.
void check_gpus(const Plan& plan, int process, bool deterministic, const std::vector<Gpu>& gpus) {
  const LoweredSchedule schedule = lowered(plan, process >= 0);
  std::map<int, std::int64_t> needed;
  for (int row = 0; row < static_cast<int>(plan.devices.size()); ++row) {
    const int replica = row / plan.shards();
    for (int rank = 0; rank < plan.ranks(); ++rank) {
      if (process >= 0 && process != row * plan.ranks() + rank) continue;
      const DeviceId id = plan.devices[static_cast<std::size_t>(row)][static_cast<std::size_t>(rank)];
      const DeviceType& type = plan.cluster.type_of(id);
      if (type.kind != DeviceKind::gpu) {
        throw device_error("rank {} of replica {} needs device {}, a CPU core ({}): run it with the CPU backend", rank,
                           replica, id.value, type.name);
      }
      const DevicePlace place = device_place(plan, row, rank);
      if (place.gpu >= static_cast<int>(gpus.size())) {
        throw device_error("rank {} of replica {} needs GPU {}, this machine has {}", rank, replica, place.gpu,
                           gpus.size());
      }
      needed[place.gpu] += lay_out_rank(plan, schedule, rank, 0, deterministic).arena_bytes;
    }
  }
  for (const auto& [gpu, bytes] : needed) {
    const std::int64_t available = gpus[static_cast<std::size_t>(gpu)].memory_bytes;
    if (bytes <= available) continue;
    throw device_error("the plan needs {} of GPU {}, which has {}", text(bytes), gpu, text(available));
  }
}

}  // namespace

void check_runnable(const Plan& plan, int process, bool deterministic) {
  check_plan(plan);
  if (process >= 0) check_processes(plan);
  if (plan.shards() > 1) check_shards(plan);
  check_gpus(plan, process, deterministic, load_module().gpus());
}

LoweredSchedule lowered(const Plan& plan, bool processes) {
  if (!processes) return plan.lowered();
  return lower(plan.schedule, {plan.replicas() > 1, plan.tied_ends()}, Receives::as_sent);
}

std::string machine_name() {
  std::map<std::string, int> counts;
  for (const Gpu& gpu : load_module().gpus()) ++counts[gpu.name];
  std::vector<std::string> parts;
  parts.reserve(counts.size());
  for (const auto& [name, count] : counts) parts.push_back(fmt::format("{} x {}", count, name));
  return join(parts);
}

}  // namespace stagecraft::cuda
