// Ctrl-C, turned into flags that long work looks at.
#pragma once

#include <atomic>

namespace stagecraft {

struct Signals {
  std::atomic<bool> stop{false};       // first SIGINT, or SIGTERM: finish the step, write a checkpoint
  std::atomic<bool> terminate{false};  // second SIGINT; SIGTERM when it means that a peer is gone: end every wait
};

// Installs the handlers at the first call. A third SIGINT ends the process as the system does.
Signals& signals();

// Under a launcher SIGTERM means that another process of the launch has died.
void terminate_on_sigterm();

}  // namespace stagecraft
