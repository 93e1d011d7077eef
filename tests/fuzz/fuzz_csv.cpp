// Any text is read as a table or refused with an Error; what is read as measurements of training steps is predicted,
// and every prediction is a number.
#include <cmath>
#include <cstdlib>

#include "calibration/microbenchmark.hpp"
#include "calibration/replay.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace stagecraft;
  static const Presets presets = load_calibration();
  return fuzz(data, size, [](std::string_view text) {
    const CsvTable table(text, "rows.csv");
    read_microbenchmarks(table, presets);
    const MeasurementTable rows = read_measurements(table, presets);
    const SourceScore score = replay(rows);
    for (const Replayed& row : score.rows) {
      if (!std::isfinite(row.estimate.time.value()) || !(row.estimate.time.value() > 0)) std::abort();
    }
  });
}
