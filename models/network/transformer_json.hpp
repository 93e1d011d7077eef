// Reading transformer descriptions: what our own format and the Hugging Face configurations share.
#pragma once

#include <span>
#include <string_view>
#include <utility>

#include "models/json_reader.hpp"
#include "models/network/network.hpp"

namespace stagecraft {

// What a format calls the dimensions. Empty: the format has no such field.
struct DimensionNames {
  std::string_view layers, hidden, heads, kv_heads, head_size, ffn, vocabulary, max_sequence;
  std::string_view experts, experts_per_token, tied_head, norm_epsilon, rope_theta;
  std::string_view shared_experts, dense_layers, dense_ffn;
};
// The same of latent attention.
struct LatentNames {
  std::string_view query_rank, kv_rank, nope_head_size, rope_head_size, value_head_size;
};

// A transformer with the architecture of a family of transformer_families() and no dimensions yet.
Transformer architecture_of(std::string_view family);
std::span<const std::pair<std::string_view, std::string_view>> transformer_families();  // name -> name

// Fills in the dimensions of `transformer`, whose architecture is known. A field that is absent keeps its value there;
// if that is zero, it is derived (kv_heads = heads, head_size = hidden / heads, and for GELU ffn = 4 * hidden) or
// missed. With latent attention, read before, head_size is the sum of its two parts and kv_heads = heads. Throws
// bad_input at the field that is wrong or does not fit the others, and when build_graph's figures would overflow.
void read_dimensions(JsonObject& object, const DimensionNames& names, Transformer& transformer);

// All fields are required; a query_rank of null is 0. Throws bad_input.
LatentAttention read_latent_attention(JsonObject& object, const LatentNames& names);

// The object "transformer" of our own format.
Transformer transformer_from_json(const JsonValue& value);
Json to_json(const Transformer& transformer);

// A Hugging Face config.json, told by its "model_type". Fields that do not bear on the description are passed over.
Transformer transformer_from_hugging_face(const JsonValue& value);
// The config.json that it would be read from. Throws bad_input for a description that its family's class cannot state:
// regression heads, a gpt2 with another norm.
Json to_hugging_face(const Transformer& transformer);

// Parameters of the network, counted in floating point so that no dimension overflows it.
double approximate_parameters(const Transformer& transformer);

}  // namespace stagecraft
