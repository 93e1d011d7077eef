#include "runtime/token_data.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>

#include "models/error.hpp"
#include "tests/runtime/temporary_folder.hpp"

namespace stagecraft {
namespace {

using std::string;
using testing::HasSubstr;

template <class Integer>
string little_endian(std::initializer_list<Integer> numbers) {
  string bytes;
  for (const Integer number : numbers) bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
  return bytes;
}

string llmc(std::int32_t magic, std::int32_t version, std::int32_t count, const string& tokens) {
  string header = little_endian<std::int32_t>({magic, version, count});
  header.resize(1024, '\0');
  return header + tokens;
}

class TokenDataTest : public testing::Test {
 protected:
  string complaint(const std::vector<std::filesystem::path>& files, std::int64_t vocabulary = 256,
                   std::int64_t sequence = 2) {
    try {
      TokenData data(files, vocabulary, sequence);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::bad_input);
      return error.what();
    }
    return "";
  }
  // Every sample that a hundred draws give, as (inputs, next token).
  static std::set<std::vector<std::int32_t>> samples(const TokenData& data, std::size_t sequence) {
    std::set<std::vector<std::int32_t>> found;
    for (int index = 0; index < 100; ++index) {
      std::vector<std::int32_t> inputs(sequence), targets(sequence);
      data.sample(1, 1, index, inputs, targets);
      inputs.push_back(targets.back());
      EXPECT_TRUE(std::equal(inputs.begin() + 1, inputs.end(), targets.begin()));
      found.insert(inputs);
    }
    return found;
  }
  TemporaryFolder folder_;
};

TEST_F(TokenDataTest, ReadsTextAsBytes) {
  const TokenData data({folder_.file("text.txt", "ab\xff")}, 256, 2);
  EXPECT_EQ(data.tokens(), 3);
  EXPECT_THAT(samples(data, 2), testing::ElementsAre(testing::ElementsAre('a', 'b', 255)));
}

TEST_F(TokenDataTest, ReadsNanoGptTokens) {
  const TokenData data({folder_.file("train.bin", little_endian<std::uint16_t>({1, 50256, 3}))}, 50257, 2);
  EXPECT_THAT(samples(data, 2), testing::ElementsAre(testing::ElementsAre(1, 50256, 3)));
}

TEST_F(TokenDataTest, ReadsLlmcTokens) {
  const string tokens = little_endian<std::uint16_t>({7, 8, 9});
  const TokenData data({folder_.file("train.bin", llmc(20240520, 1, 3, tokens))}, 256, 2);
  EXPECT_THAT(samples(data, 2), testing::ElementsAre(testing::ElementsAre(7, 8, 9)));
}

TEST_F(TokenDataTest, JoinsFilesInOrder) {
  const TokenData data({folder_.file("a.txt", "\1\2"), folder_.file("b.bin", little_endian<std::uint16_t>({3})),
                        folder_.file("c.txt", "\4")},
                       256, 2);
  EXPECT_EQ(data.tokens(), 4);
  EXPECT_THAT(samples(data, 2), testing::ElementsAre(testing::ElementsAre(1, 2, 3), testing::ElementsAre(2, 3, 4)));
}

TEST_F(TokenDataTest, DrawsTheSameSampleForTheSameSeedStepAndIndex) {
  string text(10'000, ' ');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * i / 7);
  const TokenData data({folder_.file("text.txt", text)}, 256, 16);
  const auto draw = [&](std::uint64_t seed, std::int64_t step, std::int64_t index) {
    std::vector<std::int32_t> inputs(16), targets(16);
    data.sample(seed, step, index, inputs, targets);
    return inputs;
  };
  EXPECT_EQ(draw(1, 2, 3), draw(1, 2, 3));
  EXPECT_NE(draw(1, 2, 3), draw(2, 2, 3));
  EXPECT_NE(draw(1, 2, 3), draw(1, 3, 3));
  EXPECT_NE(draw(1, 2, 3), draw(1, 2, 4));
}

TEST_F(TokenDataTest, NamesFileOffsetAndValueOfATokenOutsideTheVocabulary) {
  EXPECT_THAT(complaint({folder_.file("t.bin", little_endian<std::uint16_t>({1, 2, 300, 4}))}),
              HasSubstr("t.bin: token 2 (byte 4): expected below the network's vocabulary of 256, got 300"));
  const string tokens = little_endian<std::uint16_t>({1, 2, 3, 256});
  EXPECT_THAT(complaint({folder_.file("l.bin", llmc(20240520, 1, 4, tokens))}), HasSubstr("token 3 (byte 1030)"));
}

TEST_F(TokenDataTest, RefusesFilesThatAreNotWhole) {
  EXPECT_THAT(complaint({folder_.path() / "missing.txt"}), HasSubstr("missing.txt: cannot be read: No such file"));
  EXPECT_THAT(complaint({folder_.path()}), HasSubstr("expected a regular file"));
  EXPECT_THAT(complaint({folder_.file("e.txt", "")}), HasSubstr("e.txt: expected tokens, the file is empty"));
  EXPECT_THAT(complaint({folder_.file("odd.bin", "abc")}), HasSubstr("odd number of bytes (3)"));
  EXPECT_THAT(complaint({folder_.file("one.bin", "a")}), HasSubstr("odd number of bytes (1)"));
  EXPECT_THAT(complaint({}), HasSubstr("at least one"));
  const string tokens = little_endian<std::uint16_t>({1, 2, 3});
  EXPECT_THAT(complaint({folder_.file("long.bin", llmc(20240520, 1, 4, tokens))}),
              HasSubstr("header announces 4 tokens, 1032 bytes in all, the file has 1030"));
  EXPECT_THAT(complaint({folder_.file("v.bin", llmc(20240520, 2, 3, tokens))}), HasSubstr("version (byte 4)"));
  EXPECT_THAT(complaint({folder_.file("n.bin", llmc(20240520, 1, -3, tokens))}), HasSubstr("token count (byte 8)"));
  EXPECT_THAT(complaint({folder_.file("cut.bin", llmc(20240520, 1, 3, tokens).substr(0, 100))}),
              HasSubstr("expected a header of 1024 bytes, the file has 100"));
}

TEST_F(TokenDataTest, RefusesDataTooShortForOneSample) {
  EXPECT_THAT(complaint({folder_.file("s.txt", "abc")}, 256, 3), HasSubstr("expected at least 4 tokens"));
  EXPECT_EQ(complaint({folder_.file("s.txt", "abcd")}, 256, 3), "");
  EXPECT_THAT(complaint({folder_.file("s.txt", "ab"), folder_.file("t.txt", "c")}, 256, 3), HasSubstr("in all files"));
}

TEST_F(TokenDataTest, NoticesAFileThatBecameShorter) {
  const auto path = folder_.file("text.txt", string(5000, 'a'));
  const TokenData data({path}, 256, 4);
  std::filesystem::resize_file(path, 1);
  std::vector<std::int32_t> inputs(4), targets(4);
  EXPECT_THROW(data.sample(1, 1, 1, inputs, targets), Error);
}

}  // namespace
}  // namespace stagecraft
