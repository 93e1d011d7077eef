#include "runtime/transport.hpp"

namespace stagecraft {
namespace {

const char* name(Lane lane) {
  switch (lane) {
    case Lane::forward:
      return "forward";
    case Lane::backward:
      return "backward";
    case Lane::tied:
      return "tied";
    case Lane::gradient:
      return "gradient";
    case Lane::control:
      return "control";
    case Lane::tensor:
      return "tensor";
  }
  return "unknown";
}

std::string describe(const MessageTag& tag, std::size_t bytes) {
  return fmt::format("{} of stage {}, micro-batch {}, {} bytes", name(tag.lane), tag.stage, tag.microbatch, bytes);
}

}  // namespace

void check_arrival(const MessageTag& expected, std::size_t expected_bytes, const MessageTag& arrived,
                   std::size_t arrived_bytes) {
  if (expected == arrived && expected_bytes == arrived_bytes) return;
  throw Error(ErrorKind::internal, fmt::format("expected the message {}; the next one is {}",
                                               describe(expected, expected_bytes), describe(arrived, arrived_bytes)));
}

Error peer_silent(const char* missing, std::chrono::milliseconds timeout) {
  return device_error("{} within {:.3g} s; has its process died?", missing,
                      std::chrono::duration<double>(timeout).count());
}

}  // namespace stagecraft
