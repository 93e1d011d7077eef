#include "runtime/safetensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "models/error.hpp"
#include "models/files.hpp"
#include "tests/runtime/temporary_folder.hpp"

namespace stagecraft {
namespace {

using std::string;
using testing::HasSubstr;

string with_header(const string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  return string(reinterpret_cast<const char*>(&length), 8) + header + string(data_bytes, '\0');
}

class SafetensorsTest : public testing::Test {
 protected:
  string complaint(const string& content) {
    const auto path = folder_.file("c.safetensors", content);
    try {
      SafetensorsReader reader(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::bad_input);
      EXPECT_THAT(error.what(), HasSubstr("c.safetensors: "));
      return error.what();
    }
    return "";
  }
  void write_example(const std::filesystem::path& path) {
    SafetensorsWriter writer(path, {{"a", {2, 2}}, {"b", {1}}}, {{"step", "7"}});
    writer.append(std::array{1.0F, 2.0F, 3.0F});
    writer.append(std::array{4.0F, 5.0F});
    writer.commit();
  }
  TemporaryFolder folder_;
};

TEST_F(SafetensorsTest, ReadsHalvesAsFloats) {
  const string header = R"({"b":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]},)"
                        R"("h":{"dtype":"F16","shape":[6],"data_offsets":[6,18]},)"
                        R"("i":{"dtype":"I64","shape":[1],"data_offsets":[18,26]}})";
  string file = with_header(header, 26);
  const std::array<std::uint16_t, 9> halves{0x3f80, 0xc040, 0x7f80, 0x3c00, 0xc200, 0x7c00, 0x0001, 0x7bff, 0x8000};
  std::memcpy(file.data() + file.size() - 26, halves.data(), sizeof halves);
  const SafetensorsReader reader(folder_.file("halves.safetensors", file));
  std::array<float, 3> b{};
  reader.read("b", std::array<std::int64_t, 1>{3}, b);
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_THAT(b, testing::ElementsAre(1, -3, infinity));
  std::array<float, 6> h{};
  reader.read("h", std::array<std::int64_t, 1>{6}, h);
  EXPECT_THAT(h, testing::ElementsAre(1, -3, infinity, std::ldexp(1.0F, -24), 65504, 0));
  EXPECT_TRUE(std::signbit(h[5]));
  std::array<float, 1> i{};
  try {
    reader.read("i", std::array<std::int64_t, 1>{1}, i);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("i.dtype: expected F32, BF16 or F16, got I64"));
  }
}

TEST_F(SafetensorsTest, ReadsWhatItWrote) {
  const auto path = folder_.path() / "x.safetensors";
  write_example(path);
  const SafetensorsReader reader(path);
  EXPECT_EQ(reader.metadata().at("step"), "7");
  ASSERT_EQ(reader.tensors().size(), 2U);
  EXPECT_EQ(reader.tensors()[0].name, "a");
  std::array<float, 4> a{};
  std::array<float, 1> b{};
  reader.read("a", std::array<std::int64_t, 2>{2, 2}, a);
  reader.read("b", std::array<std::int64_t, 1>{1}, b);
  EXPECT_THAT(a, testing::ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(b, testing::ElementsAre(5));
}

TEST_F(SafetensorsTest, WritesTheDocumentedBytes) {
  const auto path = folder_.path() / "x.safetensors";
  write_example(path);
  const string content = read_file(path);
  const string header = R"({"__metadata__":{"step":"7"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                        R"("b":{"dtype":"F32","shape":[1],"data_offsets":[16,20]}})";
  EXPECT_EQ(content.substr(8, header.size()), header);
  EXPECT_EQ((content.size() - 20) % 8, 0U);
}

TEST_F(SafetensorsTest, LeavesNothingBehindWithoutCommit) {
  const auto path = folder_.path() / "x.safetensors";
  { SafetensorsWriter writer(path, {{"a", {1}}}, {}); }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
  EXPECT_THROW(SafetensorsWriter(folder_.path() / "no" / "x", {}, {}), Error);
}

TEST_F(SafetensorsTest, NamesAMissingTensorAndAWrongShape) {
  const auto path = folder_.path() / "x.safetensors";
  write_example(path);
  const SafetensorsReader reader(path);
  std::array<float, 4> a{};
  const auto message = [&](const string& name, std::vector<std::int64_t> shape) -> string {
    try {
      reader.read(name, shape, a);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(message("c", {2, 2}), HasSubstr("no tensor 'c'"));
  EXPECT_THAT(message("a", {4}), HasSubstr("a.shape: expected [4], got [2, 2]"));
}

TEST_F(SafetensorsTest, RefusesHeadersThatLie) {
  EXPECT_THAT(complaint("abc"), HasSubstr("truncated"));
  EXPECT_THAT(complaint(string(8, '\xff')), HasSubstr("header of at most 0 bytes"));
  EXPECT_THAT(complaint(with_header("{}", 0)), "");
  EXPECT_THAT(complaint(with_header("{", 0)), HasSubstr("line 1"));
  EXPECT_THAT(complaint(with_header("[]", 0)), HasSubstr("expected"));
  EXPECT_THAT(complaint(with_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4)),
              HasSubstr("announces 8 bytes of data, the file has 4"));
  EXPECT_THAT(complaint(with_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 5)),
              HasSubstr("too long"));
  EXPECT_THAT(complaint(with_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4)),
              HasSubstr("a.data_offsets: expected 8 bytes for shape [2], got [0, 4]"));
  EXPECT_THAT(complaint(with_header(R"({"a":{"dtype":"C64","shape":[2],"data_offsets":[0,4]}})", 4)),
              HasSubstr("a.dtype: expected a type such as \"F32\" or \"BF16\", got \"C64\""));
  EXPECT_THAT(complaint(with_header(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4)),
              HasSubstr("a.shape[0]"));
  EXPECT_THAT(complaint(with_header(
                  R"({"a":{"dtype":"F32","shape":[72057594037927936,72057594037927936],"data_offsets":[0,4]}})", 4)),
              HasSubstr("2^56"));
  EXPECT_THAT(complaint(with_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4)),
              HasSubstr("x"));
}

TEST_F(SafetensorsTest, RefusesTensorsThatOverlapOrLeaveGaps) {
  const auto two = [](int begin) {
    return R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[)" +
           std::to_string(begin) + "," + std::to_string(begin + 4) + "]}}";
  };
  EXPECT_EQ(complaint(with_header(two(8), 12)), "");
  EXPECT_THAT(complaint(with_header(two(4), 12)), HasSubstr("b.data_offsets: overlaps"));
  EXPECT_THAT(complaint(with_header(two(12), 16)), HasSubstr("b.data_offsets: leaves a gap after"));
}

}  // namespace
}  // namespace stagecraft
