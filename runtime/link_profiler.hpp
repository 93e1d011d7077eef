// Times of messages between two workers, over sizes.
#pragma once

#include <optional>
#include <vector>

#include "models/profile.hpp"
#include "runtime/transport.hpp"

namespace stagecraft {

// Between two threads, on the first two of `cores` (or both on the only one).
LinkProfile profile_channel(const std::vector<int>& cores);

// Between processes 0 and 1; called by all processes, the result is process 0's. Others wait without using their core.
std::optional<LinkProfile> profile_mpi(MpiSession& mpi);

}  // namespace stagecraft
