#include "models/units.hpp"

#include <gtest/gtest.h>

namespace stagecraft {
namespace {

TEST(Units, KeepDecimalAndBinaryPrefixesApart) {
  EXPECT_EQ(parse_bytes("80 GiB"), Bytes(80.0 * (1 << 30)));
  EXPECT_EQ(parse_bytes("80 GB"), Bytes(80e9));
  EXPECT_EQ(parse_bytes_per_second("400 Gb/s"), BytesPerSecond(50e9));
  EXPECT_EQ(parse_flops_per_second("989 TFLOP/s"), FlopsPerSecond(989e12));
  EXPECT_EQ(parse_seconds("1.5us"), Seconds(1.5e-6));
}

TEST(Units, RefuseTextWithoutUnitWithWrongUnitOrWithoutSense) {
  for (const char* text :
       {"80", "80 GHz", "-1 GiB", "nan GiB", "inf GiB", "1e400 GiB", "1e308 GiB", "", " 1 GiB", "1  GiB", "1 GiB x"}) {
    EXPECT_FALSE(parse_bytes(text)) << text;
  }
  EXPECT_FALSE(parse_seconds("1 GiB"));
}

TEST(Units, DimensionsMultiplyAndDivide) {
  const Seconds time = Bytes(50e9) / BytesPerSecond(25e9);
  EXPECT_EQ(time, Seconds(2));
  EXPECT_EQ(FlopsPerSecond(3) * Seconds(2), Flops(6));
  EXPECT_EQ(Seconds(6) / Seconds(3), 2.0);
}

TEST(Units, PrintThreeSignificantDigits) {
  EXPECT_EQ(to_string(Seconds(0.0123456)), "12.3 ms");
  EXPECT_EQ(to_string(Bytes(1536.0 * 1024 * 1024)), "1.50 GiB");
  EXPECT_EQ(to_string(BytesPerSecond(900e9)), "900 GB/s");
  EXPECT_EQ(to_string(FlopsPerSecond(989e12)), "989 TFLOP/s");
  EXPECT_EQ(to_string(Seconds(0)), "0 s");
}

TEST(Units, ExactTextParsesBackToTheSameValue) {
  for (const double value : {0.1, 1.0 / 3, 1e-9, 12345678.9, 85899345920.0}) {
    EXPECT_EQ(parse_bytes(to_exact_string(Bytes(value))), Bytes(value));
    EXPECT_EQ(parse_seconds(to_exact_string(Seconds(value))), Seconds(value));
  }
}

}  // namespace
}  // namespace stagecraft
