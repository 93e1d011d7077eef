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
  std::string parameter;
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
          tensors.push_back({{prefix + p.name, p.shape}, p.name, state, stage.rank.value});
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
    if (!held[i].copy && held[i].parameter.name == tensor.parameter) return i;
  }
  throw Error(ErrorKind::internal, fmt::format("checkpoint: no stage of this rank owns '{}'", tensor.parameter));
}

// Called by the workers of the tensor's rank. Those of other replicas send what they alone keep of it to the first one,
// which calls take(floats) for one piece of the whole after the other.
template <class Take>
void for_each_piece(const Plan& plan, const Executor& executor, Transport& transport, const StoredTensor& tensor,
                    std::span<float> buffer, Take&& take) {
  const std::size_t position = find(executor, tensor);
  const std::int64_t elements = tensor.info.elements();
  std::vector<Executor::Share> shares = executor.shares(position, tensor.state);
  if (shares.empty()) shares = {{0, 0, elements}};
  const bool collects = transport.worker() == tensor.rank;
  for (std::int64_t first = 0; first < elements; first += piece_floats) {
    const auto piece = buffer.first(static_cast<std::size_t>(std::min(piece_floats, elements - first)));
    for (const Executor::Share& share : shares) {
      const std::int64_t begin = std::max(first, share.first), end = std::min(first + std::ssize(piece), share.last);
      if (begin >= end) continue;
      const auto part = piece.subspan(static_cast<std::size_t>(begin - first), static_cast<std::size_t>(end - begin));
      const int keeper = share.replica * plan.ranks() + tensor.rank;
      if (keeper == transport.worker()) executor.read(position, tensor.state, begin, part);
      if (keeper == transport.worker() && !collects) transport.send(tensor.rank, tag, std::as_bytes(part));
      if (keeper != transport.worker() && collects) transport.receive(keeper, tag, std::as_writable_bytes(part));
    }
    if (collects) take(std::span<const float>(piece));
  }
}

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
      executor.write(i, state, 0, values);
    }
  }
}

void load_weights(const HuggingFaceWeights& weights, Executor& executor) {
  std::vector<float> values;
  const auto& held = executor.parameters();
  for (std::size_t i = 0; i < held.size(); ++i) {
    values.resize(static_cast<std::size_t>(held[i].parameter.count()));
    weights.read(held[i].parameter, values);
    executor.write(i, -1, 0, values);
  }
}

void save_checkpoint(const std::filesystem::path& path, const Plan& plan, const CheckpointInfo& info,
                     const Executor& executor, Transport& transport) {
  const std::vector<StoredTensor> tensors = tensors_of(plan);
  std::optional<SafetensorsWriter> writer;
  std::vector<float> piece_buffer(static_cast<std::size_t>(piece_floats));
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
  for (const StoredTensor& tensor : tensors) {
    if (tensor.rank == transport.worker() % plan.ranks()) {
      for_each_piece(plan, executor, transport, tensor, piece_buffer, [&](std::span<const float> piece) {
        if (writer) return writer->append(piece);
        transport.send(0, tag, std::as_bytes(piece));
      });
    } else if (writer) {
      for (std::int64_t left = tensor.info.elements(); left > 0;) {
        const auto piece = std::span(piece_buffer).first(static_cast<std::size_t>(std::min(piece_floats, left)));
        transport.receive(tensor.rank, tag, std::as_writable_bytes(piece));
        writer->append(piece);
        left -= std::ssize(piece);
      }
    }
  }
  if (writer) writer->commit();
}

}  // namespace stagecraft
