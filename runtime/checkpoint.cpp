#include "runtime/checkpoint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
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
constexpr std::size_t piece_floats = 1 << 18;  // in which tensors travel

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
  const auto names = cpu::state_names(plan.optimizer);
  std::vector<StoredTensor> tensors;
  for (int state = -1; state < static_cast<int>(names.size()); ++state) {
    const std::string prefix = state < 0 ? "" : names[static_cast<std::size_t>(state)] + ".";
    for (const PlanStage& stage : plan.stages) {
      for (std::int64_t layer = stage.layers.first; layer < stage.layers.last; ++layer) {
        for (const cpu::Parameter& p : cpu::layer_parameters(transformer, layer)) {
          tensors.push_back({{prefix + p.name, p.shape}, p.name, state, stage.rank.value});
        }
      }
    }
  }
  return tensors;
}

std::span<const float> find(std::span<cpu::Stage* const> stages, const StoredTensor& tensor) {
  for (const cpu::Stage* stage : stages) {
    const cpu::ParameterStore& parameters = stage->parameters();
    for (const auto& entry : parameters.entries()) {
      if (entry.copy || entry.parameter.name != tensor.parameter) continue;
      return tensor.state < 0 ? parameters.values(entry) : parameters.state(tensor.state, entry);
    }
  }
  throw Error(ErrorKind::internal, fmt::format("checkpoint: no stage of this rank owns '{}'", tensor.parameter));
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

void load_checkpoint(const std::filesystem::path& path, std::span<cpu::Stage* const> stages) {
  const SafetensorsReader reader(path);
  for (cpu::Stage* stage : stages) {
    cpu::ParameterStore& parameters = stage->parameters();
    for (const auto& entry : parameters.entries()) {
      const cpu::Parameter& p = entry.parameter;
      reader.read(p.name, p.shape, parameters.values(entry));
      for (int i = 0; i < parameters.states(); ++i) {
        reader.read(parameters.state_name(i) + "." + p.name, p.shape, parameters.state(i, entry));
      }
    }
  }
}

void load_weights(const HuggingFaceWeights& weights, std::span<cpu::Stage* const> stages) {
  for (cpu::Stage* stage : stages) {
    cpu::ParameterStore& parameters = stage->parameters();
    for (const auto& entry : parameters.entries()) weights.read(entry.parameter, parameters.values(entry));
  }
}

void save_checkpoint(const std::filesystem::path& path, const Plan& plan, const CheckpointInfo& info,
                     std::span<cpu::Stage* const> stages, Transport& transport) {
  const std::vector<StoredTensor> tensors = tensors_of(plan);
  const MessageTag tag{Lane::control, 0, -1};
  std::optional<SafetensorsWriter> writer;
  std::vector<float> arrived;
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
    arrived.resize(piece_floats);
  }
  for (const StoredTensor& tensor : tensors) {
    if (tensor.rank == transport.worker() && writer) {
      writer->append(find(stages, tensor));
    } else if (tensor.rank == transport.worker()) {
      for (auto rest = find(stages, tensor); !rest.empty(); rest = rest.subspan(std::min(piece_floats, rest.size()))) {
        transport.send(0, tag, std::as_bytes(rest.first(std::min(piece_floats, rest.size()))));
      }
    } else if (writer) {
      for (auto left = static_cast<std::size_t>(tensor.info.elements()); left > 0;) {
        const auto piece = std::span(arrived).first(std::min(piece_floats, left));
        transport.receive(tensor.rank, tag, std::as_writable_bytes(piece));
        writer->append(piece);
        left -= piece.size();
      }
    }
  }
  if (writer) writer->commit();
}

}  // namespace stagecraft
