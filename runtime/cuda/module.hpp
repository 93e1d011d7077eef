// The part of the runtime that needs CUDA: a shared library of its own, loaded when it is asked for, so that the
// program starts on machines without CUDA and builds without the toolkit. It knows the program only through what it is
// given.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/cluster/cluster.hpp"
#include "models/plan.hpp"
#include "runtime/cuda/layout.hpp"
#include "runtime/executor.hpp"

namespace stagecraft::cuda {

// A GPU of this machine.
struct Gpu {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  std::int64_t memory_bytes = 0;    // all of it
  std::int64_t free_bytes = 0;      // when it was asked
  double memory_bandwidth = 0;      // bytes/s, from its clock and the width of its bus
  double multiprocessor_clock = 0;  // Hz, at its highest
};

// Slices are cut in steps of so many multiprocessors: what compute capability 9.0 and later offers.
inline constexpr int slice_multiple = 8;

// Where a rank runs: a whole GPU, or one of the slices that a GPU is cut into.
struct DevicePlace {
  int gpu = 0;
  std::vector<int> slices;  // multiprocessors of each of the GPU's slices; empty: it is whole
  int slice = 0;            // which one
};

class Module {
 public:
  virtual ~Module() = default;
  // Throws device when there is no GPU or driver.
  virtual std::vector<Gpu> gpus() const = 0;
  // Whether sums over GPUs can go over NCCL.
  virtual bool has_nccl() const = 0;
  // The calling thread is the rank's from then on. With NCCL, waits for the ranks that it sums with.
  virtual std::unique_ptr<Executor> make_executor(const ExecutorContext& context, RankLayout layout,
                                                  const DevicePlace& place) const = 0;
  // Seconds of messages of so many bytes, from the event that says the data is there until a computation that waited
  // for it may start.
  virtual std::vector<double> time_messages(const DevicePlace& from, const DevicePlace& to,
                                            std::int64_t bytes) const = 0;
  // Seconds of an all-reduce of bf16 over all workers of the transport, each with a GPU of its own, several times for
  // each size in bytes: one after the other in a graph. All workers call it, on threads of their own.
  // REQUIRES: has_nccl().
  virtual std::vector<std::vector<double>> time_sums(Transport& transport, const DevicePlace& place,
                                                     std::span<const std::int64_t> sizes) const = 0;
};

// Where the device of a row (Plan::devices) and rank is on this machine: whole GPUs are numbered in the order of the
// plan's cluster; slices follow one another on a GPU until it is full.
DevicePlace device_place(const Plan& plan, int row, int rank);

// The library beside the program, in its lib folder, or named by STAGECRAFT_CUDA_MODULE. Throws device when there is
// none or the system cannot load it, with the reason. It stays loaded.
Module& load_module();

// What the library exports: the module, made once. The number is the version of everything in this file and in the
// headers that it includes; a library of another version is refused.
inline constexpr int module_version = 3;
inline constexpr const char* module_symbol = "stagecraft_cuda_module";
using ModuleFunction = Module* (*)(int version);

}  // namespace stagecraft::cuda
