// What the tests on GPUs share. Where there is no GPU, they say so and are skipped.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "runtime/cuda/module.hpp"
#include "tests/runtime/plans.hpp"
#include "tests/runtime/steps.hpp"

namespace stagecraft {

// Larger than the others' networks, so that the libraries' fast paths are taken.
inline Transformer small_gpt() {
  Transformer t = tiny_gpt(true);
  t.layers = 4;
  t.hidden = 128;
  t.head_size = 64;
  t.ffn = 512;
  t.vocabulary = 200;
  t.max_sequence = 64;
  return t;
}

inline Transformer small_llama() {
  Transformer t = tiny_llama();
  t.layers = 4;
  t.hidden = 256;
  t.heads = 4;
  t.kv_heads = 2;
  t.head_size = 64;
  t.ffn = 384;
  t.vocabulary = 200;
  return t;
}

// The plan's ranks on GPUs of their own, or on slices of the first.
inline Plan on_gpu(Plan plan, DataType precision, const cuda::Gpu& gpu, int slice_multiprocessors) {
  plan.precision = precision;
  DeviceType& type = plan.cluster.device_types.front();
  type.kind = DeviceKind::gpu;
  type.multiprocessors = slice_multiprocessors;
  type.gpu_multiprocessors = slice_multiprocessors == 0 ? 0 : gpu.multiprocessors;
  return plan;
}

class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    try {
      gpus_ = cuda::load_module().gpus();
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
    if (gpus_.empty()) GTEST_SKIP() << "no GPU";
  }
  Step step(const Plan& plan, DataType precision, int slice_multiprocessors = 0) const {
    return take_step(on_gpu(plan, precision, gpus_.front(), slice_multiprocessors), Backend::cuda);
  }

  std::vector<cuda::Gpu> gpus_;
};

inline PlanShape whole() { return {.cuts = {}, .microbatches = 4, .microbatch = 2, .sequence = 32}; }

}  // namespace stagecraft
