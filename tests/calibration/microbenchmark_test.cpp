#include "calibration/microbenchmark.hpp"

#include <gtest/gtest.h>

namespace stagecraft {
namespace {

constexpr const char* device = "A100-PCIe-80GB";

const Presets& presets() {
  static const Presets loaded = load_calibration();
  return loaded;
}

const DeviceConstants& constants() {
  for (const DevicePreset& preset : presets().devices) {
    if (preset.type.name == device) return preset.constants;
  }
  throw std::logic_error(device);
}

TEST(Kernels, ThatReachTwiceTheForeseenRateAreForeseenToTakeTwiceAsLong) {
  for (const auto kind : {KernelMeasurement::Kind::attention_forward, KernelMeasurement::Kind::attention_backward}) {
    const bool forward = kind == KernelMeasurement::Kind::attention_forward;
    for (const double rows : {4 * 4096.0, 128 * 4096.0}) {
      const double foreseen =
          forward ? attention_forward_rate(constants(), rows) : attention_backward_rate(constants(), rows);
      const KernelMeasurement kernel{
          .id = "k", .device = device, .kind = kind, .rows = rows, .efficiency = 2 * foreseen};
      EXPECT_DOUBLE_EQ(ratio(kernel, presets()), 2) << forward << ' ' << rows;
    }
  }
}

TEST(Kernels, OfAttentionHaveTheRowsOfAllHeads) {
  const CsvTable table(
      "id,gpu,op,efficiency,batch,seq_len,head_num,m,n,k,n_groups\n"
      "a,A100-PCIe-80GB,sdp_fwd,0.5,2,1024,8,,,,\n"
      "b,A100-PCIe-80GB,sdp_bwd,0.5,2,1024,,,,,\n",
      "kernels.csv");
  const Microbenchmarks read = read_microbenchmarks(table, presets());
  ASSERT_EQ(read.kernels.size(), 1U);
  EXPECT_EQ(read.kernels.front().rows, 2 * 1024 * 8);
  ASSERT_EQ(read.skipped.size(), 1U);
  EXPECT_EQ(read.skipped.front().id, "b");
}

}  // namespace
}  // namespace stagecraft
