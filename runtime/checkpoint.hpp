// A training run on disk: one safetensors file with the weights under their names, the optimizer's state under
// "first_moment.NAME" and the like, and in the metadata
//   format "stagecraft-checkpoint-1", step, seed, network (digest), optimizer
// The file does not depend on the partition, the shards, the replicas or the transport that wrote it.
#pragma once

#include <cstdint>
#include <filesystem>

#include "models/plan.hpp"
#include "runtime/executor.hpp"
#include "runtime/hugging_face_weights.hpp"
#include "runtime/transport.hpp"

namespace stagecraft {

struct CheckpointInfo {
  std::int64_t step = 0;
  std::uint64_t seed = 0;
};

// "DIRECTORY/step-00000012.safetensors".
std::filesystem::path checkpoint_path(const std::filesystem::path& directory, std::int64_t step);

// The file itself, or the newest checkpoint of a folder. Throws bad_input when there is none.
std::filesystem::path find_checkpoint(const std::filesystem::path& file_or_directory);

// Throws bad_input unless the file is a whole checkpoint of the plan's network and optimizer.
CheckpointInfo read_checkpoint_info(const std::filesystem::path& path, const Plan& plan);

// Reads what one worker holds. Throws bad_input.
void load_checkpoint(const std::filesystem::path& path, const Plan& plan, Executor& executor);

// Reads the values alone; the optimizer starts afresh. Throws bad_input.
void load_weights(const HuggingFaceWeights& weights, Executor& executor);

// Called by every worker of replica 0, and of all replicas where they share the optimizer's state; worker 0 receives
// the tensors one after the other, puts together those that shards hold between them, and writes them, so nobody holds
// the whole model. The file appears when it is whole. Throws bad_input (on worker 0) when it cannot be written.
void save_checkpoint(const std::filesystem::path& path, const Plan& plan, const CheckpointInfo& info,
                     const Executor& executor, Transport& transport);

}  // namespace stagecraft
