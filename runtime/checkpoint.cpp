#include "runtime/checkpoint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "models/error.hpp"
#include "models/files.hpp"
#include "models/text.hpp"
#include "runtime/safetensors.hpp"

namespace stagecraft {
namespace {

constexpr const char* format = "stagecraft-checkpoint-1";
constexpr const char* suffix = ".safetensors";
constexpr std::int64_t piece_floats = 1 << 18;  // in which tensors travel
constexpr MessageTag tag{Lane::control, 0, -1};

std::string network_digest(const Plan& plan) {
  Network network = plan.network;
  network.name.clear();
  return digest(to_json(network).dump());
}

// The tensors of a checkpoint in file order: the weights, then each kind of optimizer state.
struct StoredTensor {
  TensorInfo info;
  Parameter parameter;
  int state = -1;  // -1: the weight
  int rank = 0;    // whose stage owns it
};

std::vector<StoredTensor> tensors_of(const Plan& plan) {
  const Transformer& transformer = *plan.network.transformer;
  const auto names = state_names(plan.optimizer);
  std::vector<StoredTensor> tensors;
  for (int state = -1; state < static_cast<int>(names.size()); ++state) {
    const std::string prefix = state < 0 ? "" : names[static_cast<std::size_t>(state)] + ".";
    for (const PlanStage& stage : plan.stages) {
      for (std::int64_t layer = stage.layers.first; layer < stage.layers.last; ++layer) {
        for (const Parameter& p : layer_parameters(transformer, layer)) {
          tensors.push_back({{prefix + p.name, p.shape}, p, state, stage.rank.value});
        }
      }
    }
  }
  return tensors;
}

// The position of the tensor's parameter in what a worker holds.
std::size_t find(const Executor& executor, const StoredTensor& tensor) {
  const auto& held = executor.parameters();
  for (std::size_t i = 0; i < held.size(); ++i) {
    if (!held[i].copy && held[i].parameter.name == tensor.parameter.name) return i;
  }
  throw Error(ErrorKind::internal, fmt::format("checkpoint: no stage of this rank owns '{}'", tensor.parameter.name));
}

// Brings the tensors from where they are to worker 0, one piece after the other.
class Collection {
 public:
  Collection(const Plan& plan, const Executor& executor, Transport& transport)
      : plan_(plan),
        executor_(executor),
        transport_(transport),
        self_(worker_place(plan, transport.worker())),
        buffer_(static_cast<std::size_t>(piece_floats)) {}

  // Hands in what this worker keeps of the tensor, unless worker 0 has it from elsewhere. Worker 0 calls take(floats),
  // piece by piece.
  template <class Take>
  void collect(const StoredTensor& tensor, Take&& take) {
    const bool split = plan_.shards() > 1 && tensor.parameter.split != Split::none;
    if (!split) return bring(0, tensor, tensor.info.elements(), take);
    std::vector<float> whole;
    if (transport_.worker() == 0) whole.resize(static_cast<std::size_t>(tensor.info.elements()));
    for (int shard = 0; shard < plan_.shards(); ++shard) {
      const TensorSlice slice(tensor.parameter, tensor_shard(plan_, shard));
      held_.clear();
      bring(shard, tensor, slice.count(),
            [&](std::span<const float> piece) { held_.insert(held_.end(), piece.begin(), piece.end()); });
      if (transport_.worker() == 0) slice.put(held_, whole);
    }
    if (transport_.worker() == 0) take(std::span<const float>(whole));
  }

 private:
  // What a shard holds of the tensor, to worker 0.
  template <class Take>
  void bring(int shard, const StoredTensor& tensor, std::int64_t elements, Take&& take) {
    const bool holds = self_.rank == tensor.rank && self_.shard == shard;
    const int collector = worker_number(plan_, {0, shard, tensor.rank});
    if (!holds && transport_.worker() != 0) return;
    for (std::int64_t first = 0; first < elements; first += piece_floats) {
      const auto piece = std::span(buffer_).first(static_cast<std::size_t>(std::min(piece_floats, elements - first)));
      if (holds) {
        gather(collector, tensor, elements, first, piece);
      } else {
        transport_.receive(collector, tag, std::as_writable_bytes(piece));
      }
      if (transport_.worker() == 0) {
        take(std::span<const float>(piece));
      } else if (transport_.worker() == collector) {
        transport_.send(0, tag, std::as_bytes(piece));
      }
    }
  }

  // The shard in other replicas sends the collector what it alone keeps of the piece.
  void gather(int collector, const StoredTensor& tensor, std::int64_t elements, std::int64_t first,
              std::span<float> piece) {
    const std::size_t position = find(executor_, tensor);
    std::vector<Executor::Share> shares = executor_.shares(position, tensor.state);
    if (shares.empty()) shares = {{0, 0, elements}};
    const bool collects = transport_.worker() == collector;
    for (const Executor::Share& share : shares) {
      const std::int64_t begin = std::max(first, share.first), end = std::min(first + std::ssize(piece), share.last);
      if (begin >= end) continue;
      const auto part = piece.subspan(static_cast<std::size_t>(begin - first), static_cast<std::size_t>(end - begin));
      const int keeper = worker_number(plan_, {share.replica, self_.shard, self_.rank});
      if (keeper == transport_.worker()) executor_.read(position, tensor.state, begin, part);
      if (keeper == transport_.worker() && !collects) transport_.send(collector, tag, std::as_bytes(part));
      if (keeper != transport_.worker() && collects) transport_.receive(keeper, tag, std::as_writable_bytes(part));
    }
  }

  const Plan& plan_;
  const Executor& executor_;
  Transport& transport_;
  WorkerPlace self_;
  std::vector<float> buffer_, held_;
};

template <class Integer>
Integer number(const SafetensorsReader& reader, const std::string& key) {
  const auto found = reader.metadata().find(key);
  Integer value{};
  if (found != reader.metadata().end()) {
    const std::string& text = found->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size() && !text.empty()) return value;
  }
  throw bad_input("{}: metadata.{}: expected a number, got {}", reader.file(), key,
                  found == reader.metadata().end() ? "nothing" : "\"" + printable(found->second) + "\"");
}

void expect(const SafetensorsReader& reader, const std::string& key, const std::string& expected,
            std::string_view meaning) {
  const auto found = reader.metadata().find(key);
  if (found != reader.metadata().end() && found->second == expected) return;
  throw bad_input("{}: metadata.{}: expected {}\"{}\", got {}", reader.file(), key, meaning, expected,
                  found == reader.metadata().end() ? "nothing" : "\"" + printable(found->second) + "\"");
}

std::optional<std::int64_t> step_of(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  const std::string_view start = "step-", end = suffix;
  if (!name.starts_with(start) || !name.ends_with(end) || name.size() <= start.size() + end.size()) return {};
  std::int64_t step = 0;
  const char* const last = name.data() + name.size() - end.size();
  const auto result = std::from_chars(name.data() + start.size(), last, step);
  if (result.ec != std::errc() || result.ptr != last) return {};
  return step;
}

}  // namespace

std::filesystem::path checkpoint_path(const std::filesystem::path& directory, std::int64_t step) {
  return directory / fmt::format("step-{:08}{}", step, suffix);
}

std::filesystem::path find_checkpoint(const std::filesystem::path& file_or_directory) {
  std::error_code error;
  if (!std::filesystem::is_directory(file_or_directory, error)) return file_or_directory;
  std::optional<std::int64_t> newest;
  for (const auto& entry : std::filesystem::directory_iterator(file_or_directory, error)) {
    newest = std::max(newest, step_of(entry.path()));
  }
  if (!newest) {
    throw bad_input("{}: expected checkpoints such as step-00000010{}, found none", file_or_directory.string(), suffix);
  }
  return checkpoint_path(file_or_directory, *newest);
}

CheckpointInfo read_checkpoint_info(const std::filesystem::path& path, const Plan& plan) {
  const SafetensorsReader reader(path);
  expect(reader, "format", format, "");
  expect(reader, "network", network_digest(plan), "the digest of the plan's network, ");
  expect(reader, "optimizer", std::string(name(plan.optimizer)), "the plan's optimizer, ");
  return {number<std::int64_t>(reader, "step"), number<std::uint64_t>(reader, "seed")};
}

void load_checkpoint(const std::filesystem::path& path, const Plan& plan, Executor& executor) {
  const SafetensorsReader reader(path);
  const std::vector<std::string> states = state_names(plan.optimizer);
  std::vector<float> values;
  const auto& held = executor.parameters();
  for (std::size_t i = 0; i < held.size(); ++i) {
    const Parameter& p = held[i].parameter;
    values.resize(static_cast<std::size_t>(p.count()));
    for (int state = -1; state < static_cast<int>(states.size()); ++state) {
      const std::string prefix = state < 0 ? "" : states[static_cast<std::size_t>(state)] + ".";
      reader.read(prefix + p.name, p.shape, values);
      write_slice(executor, i, state, values);
    }
  }
}

void load_weights(const HuggingFaceWeights& weights, Executor& executor) {
  std::vector<float> values;
  const auto& held = executor.parameters();
  for (std::size_t i = 0; i < held.size(); ++i) {
    values.resize(static_cast<std::size_t>(held[i].parameter.count()));
    weights.read(held[i].parameter, values);
    write_slice(executor, i, -1, values);
  }
}

void save_checkpoint(const std::filesystem::path& path, const Plan& plan, const CheckpointInfo& info,
                     const Executor& executor, Transport& transport) {
  const std::vector<StoredTensor> tensors = tensors_of(plan);
  std::optional<SafetensorsWriter> writer;
  if (transport.worker() == 0) {
    std::error_code ignored;  // the writer complains
    std::filesystem::create_directories(path.parent_path(), ignored);
    std::vector<TensorInfo> infos;
    infos.reserve(tensors.size());
    for (const StoredTensor& tensor : tensors) infos.push_back(tensor.info);
    writer.emplace(path, infos,
                   TensorMetadata{{"format", format},
                                  {"step", std::to_string(info.step)},
                                  {"seed", std::to_string(info.seed)},
                                  {"network", network_digest(plan)},
                                  {"optimizer", std::string(name(plan.optimizer))}});
  }
  Collection collection(plan, executor, transport);
  for (const StoredTensor& tensor : tensors) {
    collection.collect(tensor, [&](std::span<const float> piece) { writer->append(piece); });
  }
  if (writer) writer->commit();
}

}  // namespace stagecraft
