#include <vector>

#include "runtime/safetensors.hpp"
#include "tests/fuzz/file_input.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace stagecraft;
  return fuzz(data, size, [](std::string_view bytes) {
    const FileInput input(bytes, "safetensors");
    const SafetensorsReader reader(input.path());
    for (const TensorInfo& tensor : reader.tensors()) {
      // What was accepted lies inside the file, so that this cannot be large.
      std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
      reader.read(tensor.name, tensor.shape, values);
    }
  });
}
