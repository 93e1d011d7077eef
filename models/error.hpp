// The one exception type: what went wrong, told to the person who can mend it.
//
// Thrown for bad input, I/O and device failures; caught once, in cli/main.cpp, which prints `error: <what>` and exits
// with the kind's code. Layers on the way out prepend context (the file, the rank and action). Expected outcomes of a
// search (a candidate that does not fit) are values, not errors; programmer errors are asserts.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace stagecraft {

// The values are process exit codes.
enum class ErrorKind {
  check_failed = 1,  // a comparison or check that the user asked for did not hold
  bad_input = 2,     // a file, an option, or I/O on it
  infeasible = 3,    // no plan satisfies the constraints; the message says what would
  device = 4,        // a device, transport or peer failed
  internal = 5,      // a bug of ours
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

template <class... Args>
Error bad_input(fmt::format_string<Args...> format, Args&&... args) {
  return {ErrorKind::bad_input, fmt::format(format, std::forward<Args>(args)...)};
}

template <class... Args>
Error infeasible(fmt::format_string<Args...> format, Args&&... args) {
  return {ErrorKind::infeasible, fmt::format(format, std::forward<Args>(args)...)};
}

template <class... Args>
Error device_error(fmt::format_string<Args...> format, Args&&... args) {
  return {ErrorKind::device, fmt::format(format, std::forward<Args>(args)...)};
}

// Runs `body`; an Error that leaves it gains the prefix "context: ".
template <class Body>
auto with_context(std::string_view context, Body&& body) -> decltype(body()) {
  try {
    return std::forward<Body>(body)();
  } catch (const Error& error) {
    throw Error(error.kind(), fmt::format("{}: {}", context, error.what()));
  }
}

}  // namespace stagecraft
