#include "runtime/network_check.hpp"

#include "models/error.hpp"
#include "models/text.hpp"

namespace stagecraft {

void check_trainable(const Network& network) {
  const std::string name = printable(network.name);
  if (!network.transformer) {
    throw bad_input(
        "network '{}' is a hand-written graph: it can be planned and simulated; training and profiling need "
        "a transformer description",
        name);
  }
  if (network.transformer->experts > 0) {
    throw bad_input("network '{}' is a mixture of experts: it can be planned and simulated, not trained on CPUs", name);
  }
}

}  // namespace stagecraft
