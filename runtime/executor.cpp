#include "runtime/executor.hpp"

namespace stagecraft {

void write_slice(Executor& executor, std::size_t parameter, int state, std::span<const float> whole) {
  const TensorSlice& slice = executor.parameters()[parameter].slice;
  if (slice.count() == static_cast<std::int64_t>(whole.size())) return executor.write(parameter, state, 0, whole);
  std::vector<float> held(static_cast<std::size_t>(slice.count()));
  slice.take(whole, held);
  executor.write(parameter, state, 0, held);
}

}  // namespace stagecraft
