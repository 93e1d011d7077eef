// Weights in Hugging Face's files: safetensors with the tensor names of its GPT-2 and Llama classes (Mistral and Qwen2
// are named as Llama), in one file or in shards with an index, beside a config.json.
//
// Its GPT-2 keeps linear weights as (inputs, outputs), transposed to ours and to Llama's; its Llama has query, key and
// value, and gate and up, as tensors of their own where ours are one.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/network/network.hpp"
#include "runtime/parameters.hpp"
#include "runtime/safetensors.hpp"

namespace stagecraft {

// One tensor of theirs. A parameter of ours is one or several of them, their rows one below the other.
struct HuggingFaceTensor {
  std::string name;  // "h.0.attn.c_attn.weight", without the "transformer." that GPT2LMHeadModel puts before
  std::vector<std::int64_t> shape;  // as stored
  bool transposed = false;
};

// Throws bad_input for networks that these classes do not describe: regression heads, latent attention,
// mixtures of experts.
void check_hugging_face_names(const Transformer& transformer);
// REQUIRES: a parameter of a network that passed check_hugging_face_names().
std::vector<HuggingFaceTensor> hugging_face_tensors(const Transformer& transformer, const Parameter& parameter);

class HuggingFaceWeights {
 public:
  // `path`: a .safetensors file, a model.safetensors.index.json, or a folder with either. Throws bad_input: as
  // SafetensorsReader, an index that names files that are not there, tensors that the network needs and the files lack
  // or have in another shape.
  HuggingFaceWeights(const std::filesystem::path& path, const Transformer& transformer);

  // REQUIRES: data holds the parameter.
  void read(const Parameter& parameter, std::span<float> data) const;

 private:
  const SafetensorsReader& reader_of(const std::string& name) const;
  void open_shards(const std::filesystem::path& index);
  void check() const;

  std::filesystem::path path_;
  Transformer transformer_;
  std::string prefix_;  // "transformer." or nothing
  std::vector<std::unique_ptr<SafetensorsReader>> shards_;
  std::map<std::string, const SafetensorsReader*> holder_;  // by tensor
};

// Writes the weights of a checkpoint of ours (checkpoint.hpp) as FOLDER/model.safetensors and FOLDER/config.json, which
// from_pretrained() of Hugging Face loads. Throws bad_input; each file appears when it is whole.
void export_to_hugging_face(const std::filesystem::path& checkpoint, const Transformer& transformer,
                            const std::filesystem::path& folder);

}  // namespace stagecraft
