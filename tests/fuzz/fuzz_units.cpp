// Any text is a quantity or none; what is one is not negative and its exact text parses back to the same value.
#include <cmath>
#include <cstdlib>

#include "models/units.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

template <class Quantity, class Parse>
void check(std::optional<Quantity> quantity, Parse parse) {
  if (!quantity) return;
  if (!std::isfinite(quantity->value()) || !(quantity->value() >= 0)) std::abort();
  if (to_string(*quantity).empty()) std::abort();
  if (parse(to_exact_string(*quantity)) != quantity) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace stagecraft;
  return fuzz(data, size, [](std::string_view text) {
    check(parse_seconds(text), parse_seconds);
    check(parse_bytes(text), parse_bytes);
    check(parse_bytes_per_second(text), parse_bytes_per_second);
    check(parse_flops_per_second(text), parse_flops_per_second);
  });
}
