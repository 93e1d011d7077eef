#include "cli/signals.hpp"

#include <signal.h>

namespace stagecraft {
namespace {

// Signal handlers can reach nothing but globals; lock-free atomics are what they may touch.
Signals flags;
std::atomic<bool> sigterm_ends_waits{false};

void handle(int signal) {
  const bool end = signal == SIGTERM ? sigterm_ends_waits.load() : flags.stop.load();
  if (end && flags.terminate.load()) ::signal(signal, SIG_DFL);
  if (end) flags.terminate = true;
  flags.stop = true;
}

void install() {
  struct sigaction action {};
  action.sa_handler = handle;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

Signals& signals() {
  static const bool installed = (install(), true);
  (void)installed;
  return flags;
}

void terminate_on_sigterm() {
  signals();
  sigterm_ends_waits = true;
}

}  // namespace stagecraft
