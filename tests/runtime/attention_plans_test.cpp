// cuDNN has a plan for the attention of every network that the CUDA runtime trains, on GPUs that need not be here, and
// the workspace that the plan asks for is foreseen in the layout of the arena.
//
// cudnn_devices/h200.json is what `kernels_check_cuda device` prints on an H200; the other two have the numbers of the
// CUDA programming guide and of data sheets instead.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/cudnn_attention.hpp"
#include "kernels/cuda/error.hpp"
#include "models/files.hpp"
#include "models/network/network.hpp"
#include "runtime/cuda/layer_layout.hpp"

namespace stagecraft::cuda {
namespace {

using kernels::AttentionShape;
using kernels::cuda::AttentionBackward;
using kernels::cuda::CudnnAttention;

CudnnAttention on_device(const std::string& device, AttentionBackward backward) {
  // What asks for the driver by its name later gets the one that is there already.
  static void* const driver = dlopen(STAGECRAFT_IDLE_CUDA_DRIVER, RTLD_NOW | RTLD_GLOBAL);
  if (driver == nullptr) throw std::runtime_error(dlerror());
  const std::filesystem::path folder = STAGECRAFT_CUDNN_DEVICES;
  return {backward, read_file(folder / (device + ".json"))};
}

StageSpec block_of(const Transformer& transformer, const Shape& shape, bool deterministic) {
  StageSpec spec;
  spec.transformer = transformer;
  spec.layers = {1, 2};
  spec.shape = shape;
  spec.precision = DataType::bf16;
  spec.deterministic = deterministic;
  return spec;
}

AttentionShape attention_of(const Transformer& t, const Shape& shape) {
  const std::int64_t packed = (t.heads + 2 * t.kv_heads) * t.head_size;
  return {shape.microbatch, shape.sequence, t.heads, t.kv_heads, t.head_size, packed, packed};
}

void expect_foreseen(const Transformer& transformer, const Shape& shape) {
  for (const std::string device : {"a100", "h200", "b200"}) {
    for (const bool deterministic : {false, true}) {
      SCOPED_TRACE(device + (deterministic ? ", deterministic" : ""));
      CudnnAttention attention =
          on_device(device, deterministic ? AttentionBackward::deterministic : AttentionBackward::fast);
      const auto needed = static_cast<std::int64_t>(attention.prepare(attention_of(transformer, shape)));
      EXPECT_LE(needed, lay_out_block(block_of(transformer, shape, deterministic)).attention_bytes);
    }
  }
}

// Of the presets that the runtime trains, one for each head size and number of heads that share keys.
std::vector<std::string> kinds_of_networks() {
  std::vector<std::string> names;
  std::set<std::pair<std::int64_t, std::int64_t>> kinds;
  for (const std::string& name : network_presets()) {
    const Network network = load_network(name);
    const auto& t = network.transformer;
    if (!t || t->experts > 0 || t->latent) continue;
    if (kinds.emplace(t->head_size, t->heads / t->kv_heads).second) names.push_back(name);
  }
  return names;
}

class AttentionPlans : public testing::TestWithParam<std::string> {};

TEST_P(AttentionPlans, AreThereAndTheirWorkspaceIsForeseen) {
  expect_foreseen(*load_network(GetParam()).transformer, {.microbatch = 2, .sequence = 1024});
}

INSTANTIATE_TEST_SUITE_P(Networks, AttentionPlans, testing::ValuesIn(kinds_of_networks()), [](const auto& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(c) == 0; }, '_');
  return name;
});

TEST(AttentionPlan, FitsSequencesThatFillNoTile) {
  for (const std::int64_t kv_heads : {3, 1}) {
    Transformer t;
    t.heads = 3, t.kv_heads = kv_heads, t.head_size = 40;
    expect_foreseen(t, {.microbatch = 2, .sequence = 77});
  }
}

TEST(AttentionPlan, SaysThatThereIsNone) {
  CudnnAttention attention = on_device("h200", AttentionBackward::fast);
  EXPECT_THROW(attention.prepare({1, 64, 3, 3, 63, 9 * 63, 9 * 63}), kernels::cuda::Error);
}

}  // namespace
}  // namespace stagecraft::cuda
