// What every fuzz target does: feed a parser, accept its Errors, let anything else (a crash, a hang, a leak, another
// exception) be found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "models/error.hpp"

namespace stagecraft {

template <class Parser>
int fuzz(const std::uint8_t* data, std::size_t size, Parser&& parse) {
  try {
    parse(std::string_view(reinterpret_cast<const char*>(data), size));
  } catch (const Error&) {
  }
  return 0;
}

}  // namespace stagecraft
