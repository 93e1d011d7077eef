#include <vector>

#include "runtime/token_data.hpp"
#include "tests/fuzz/file_input.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace stagecraft;
  return fuzz(data, size, [](std::string_view bytes) {
    // The first byte chooses the kind of file.
    if (bytes.empty()) return;
    const FileInput input(bytes.substr(1), bytes.front() % 2 == 0 ? "bin" : "txt");
    const TokenData tokens({input.path()}, 1000, 4);
    std::vector<std::int32_t> inputs(4), targets(4);
    tokens.sample(1, 2, 3, inputs, targets);
  });
}
