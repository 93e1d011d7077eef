#include "models/files.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "models/error.hpp"

namespace stagecraft {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Files : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("files_test." + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::size_t count() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  fs::path folder_;
};

template <class Body>
std::string complaint(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST_F(Files, ReadBackWhatWasWrittenAndLeaveNoTemporary) {
  const std::string content("a\0b\n", 4);
  write_file(folder_ / "x", "old");
  write_file(folder_ / "x", content);
  EXPECT_EQ(read_file(folder_ / "x"), content);
  EXPECT_EQ(count(), 1U);
}

TEST_F(Files, RefuseWhatIsNoRegularFileOrTooLarge) {
  EXPECT_THAT(complaint([&] { read_file(folder_); }), HasSubstr("expected a regular file"));
  EXPECT_THAT(complaint([&] { read_file(folder_ / "none"); }), HasSubstr("No such file"));
  EXPECT_THAT(complaint([&] { read_file("/dev/zero"); }), HasSubstr("expected a regular file"));
  write_file(folder_ / "x", "12345");
  EXPECT_THAT(complaint([&] { read_file(folder_ / "x", 4); }), HasSubstr("at most 4 bytes, the file has 5"));
}

TEST_F(Files, KeepTheOldContentWhenWritingFails) {
  fs::create_directory(folder_ / "taken");
  EXPECT_THAT(complaint([&] { write_file(folder_ / "taken", "new"); }), HasSubstr("cannot be written"));
  EXPECT_THAT(complaint([&] { write_file(folder_ / "none" / "x", "new"); }), HasSubstr("cannot be written"));
  EXPECT_EQ(count(), 1U);
}

TEST(Digest, IsFnv1a) {
  EXPECT_EQ(digest(""), "cbf29ce484222325");
  EXPECT_EQ(digest("a"), "af63dc4c8601ec8c");
}

}  // namespace
}  // namespace stagecraft
