// Training text as tokens, and the batches drawn from it.
//
// Files, told apart by name and first bytes:
//   *.bin that starts with the number 20240520   llm.c: 256 int32 (magic, version 1, token count, zeros), uint16 tokens
//   other *.bin                                  nanoGPT: uint16 tokens, nothing else
//   anything else                                text: every byte is a token, a vocabulary of 256
// Numbers are little-endian. Several files are one stream, in the order given.
//
// A batch depends on (seed, step, sample index) alone: any partition of the network, any number of replicas and any
// transport trains on the same samples.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace stagecraft {

class TokenData {
 public:
  // Opens the files and checks every token. Throws bad_input naming the file (and offset and value): missing, empty,
  // truncated, an odd number of bytes, a token that is not below `vocabulary`, fewer than sequence + 1 tokens in all.
  // REQUIRES: vocabulary > 0, sequence > 0.
  TokenData(const std::vector<std::filesystem::path>& files, std::int64_t vocabulary, std::int64_t sequence);
  ~TokenData();
  TokenData(TokenData&&) noexcept;
  TokenData& operator=(TokenData&&) noexcept;

  std::int64_t tokens() const { return tokens_; }

  // One sample: `sequence` tokens from a random place, and the tokens that follow each. Safe to call from several
  // threads. Throws bad_input when a file changed since it was opened.
  // REQUIRES: each span holds `sequence` elements, or none when it is not wanted.
  void sample(std::uint64_t seed, std::int64_t step, std::int64_t index, std::span<std::int32_t> inputs,
              std::span<std::int32_t> targets) const;

 private:
  struct File;
  void read(std::int64_t first, std::span<std::int32_t> tokens) const;

  std::vector<File> files_;
  std::int64_t vocabulary_ = 0;
  std::int64_t sequence_ = 0;
  std::int64_t tokens_ = 0;
};

}  // namespace stagecraft
