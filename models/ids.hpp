// Indices as types, so that a stage cannot be passed where a rank is meant.
#pragma once

#include <compare>
#include <cstdint>

namespace stagecraft {

template <class Tag>
struct Index {
  std::int32_t value = 0;
  constexpr auto operator<=>(const Index&) const = default;
};

using StageId = Index<struct StageTag>;            // 0 .. stages-1, in the order of the forward pass
using MicrobatchId = Index<struct MicrobatchTag>;  // 0 .. microbatches-1
using RankId = Index<struct RankTag>;              // 0 .. pipeline ranks-1, within one replica
using DeviceId = Index<struct DeviceTag>;          // position in Cluster::devices

}  // namespace stagecraft
