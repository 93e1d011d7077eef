#include <cstdlib>

#include "models/schedule/torch_csv.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace stagecraft;
  return fuzz(data, size, [](std::string_view text) {
    const ComputeSchedule schedule = from_torch_csv(text, "schedule.csv");
    lower(schedule, {true, true});
    // What was accepted must read back as the same, unless a rank is idle: its line would be blank.
    for (const auto& actions : schedule.ranks) {
      if (actions.empty()) return;
    }
    if (from_torch_csv(to_torch_csv(schedule), "written.csv") != schedule) std::abort();
  });
}
