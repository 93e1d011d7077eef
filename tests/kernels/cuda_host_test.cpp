// What of the CUDA operations runs on the host: block numbers, step values, the file of algorithms, messages.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/cuda/attention.hpp"
#include "kernels/cuda/error.hpp"
#include "kernels/cuda/gemm.hpp"
#include "kernels/cuda/gemm_cache.hpp"
#include "kernels/cuda/linear.hpp"
#include "kernels/cuda/optimizer.hpp"

namespace stagecraft::kernels::cuda {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(CudaError, NamesCallAndReason) {
  try {
    check(cudaErrorInvalidValue, "cudaFree(x)");
    FAIL() << "no exception";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "cudaFree(x): invalid argument (cudaErrorInvalidValue)");
  }
}

std::vector<std::int64_t> first_blocks(const std::vector<AdamWTensor>& tensors) {
  std::vector<std::int64_t> blocks;
  for (const AdamWTensor& tensor : tensors) blocks.push_back(tensor.first_block);
  return blocks;
}

std::vector<AdamWTensor> tensors_of(const std::vector<std::int64_t>& counts) {
  std::vector<AdamWTensor> tensors(counts.size());
  for (std::size_t i = 0; i < counts.size(); ++i) tensors[i].count = counts[i];
  return tensors;
}

TEST(AssignBlocks, GivesATensorAsManyBlocksAsItNeeds) {
  std::vector<AdamWTensor> one = tensors_of({1});
  ASSERT_EQ(assign_blocks(one), 1);
  // How many elements a block takes is the kernel's business: find where it needs a second.
  std::int64_t block = 1;
  for (; block < 1 << 20; block *= 2) {
    std::vector<AdamWTensor> larger = tensors_of({block + 1});
    if (assign_blocks(larger) == 2) break;
  }
  std::vector<AdamWTensor> tensors = tensors_of({block, block + 1, 3 * block, 1});
  EXPECT_EQ(assign_blocks(tensors), 1 + 2 + 3 + 1);
  EXPECT_THAT(first_blocks(tensors), ElementsAre(0, 1, 3, 6));
}

TEST(AssignBlocks, GivesAnEmptyTensorNone) {
  std::vector<AdamWTensor> tensors = tensors_of({0, 5, 0, 7, 0});
  EXPECT_EQ(assign_blocks(tensors), 2);
  EXPECT_THAT(first_blocks(tensors), ElementsAre(0, 0, 1, 1, 2));
}

TEST(AdamWStepValues, CorrectBothMoments) {
  const AdamW options{.learning_rate = 1.0F, .beta1 = 0.5F, .beta2 = 0.75F};
  const AdamWStep first = adamw_step_values(options, 1);
  EXPECT_EQ(first.learning_rate, 1.0F);
  EXPECT_EQ(first.corrected_rate, 2.0F);          // 1 / (1 - 1/2)
  EXPECT_EQ(first.root_second_correction, 2.0F);  // 1 / sqrt(1 - 3/4)
  EXPECT_EQ(adamw_step_values(options, 2).corrected_rate, static_cast<float>(1.0 / 0.75));
}

TEST(GemmShape, SaysWhatIsMultiplied) {
  EXPECT_EQ(linear_forward_shape<Bf16>(8, 16, 32, true, Accumulate::yes).text(), "8x32x16 NT bf16>bf16 +bias +c");
  EXPECT_EQ(linear_input_gradient_shape<Bf16>(8, 16, 32, Accumulate::no).text(), "8x16x32 NN bf16>bf16");
  EXPECT_EQ(linear_weight_gradient_shape<Bf16>(8, 16, 32, Accumulate::yes).text(), "32x16x8 TN bf16>fp32 +c");
  EXPECT_EQ(linear_forward_shape<float>(8, 16, 32, false, Accumulate::no, MatrixType::tf32).text(),
            "8x32x16 NT tf32>fp32");
}

TEST(GemmShape, CountsAMultiplicationAndAnAdditionEach) {
  EXPECT_EQ((GemmShape{.rows = 2, .columns = 3, .depth = 5}.flops()), 60.0);
}

TEST(RequireWholeSequences, RefusesASlice) {
  AttentionShape shape{.batch = 1, .time = 8, .heads = 1, .kv_heads = 1, .head_size = 8, .q_stride = 8, .kv_stride = 8};
  EXPECT_NO_THROW(require_whole_sequences(shape));
  shape.kv_time = 8;
  EXPECT_NO_THROW(require_whole_sequences(shape));
  shape.kv_time = 16;
  EXPECT_THROW(require_whole_sequences(shape), Error);
  shape.past = 8;
  EXPECT_THROW(require_whole_sequences(shape), Error);
}

class GemmCacheFile : public testing::Test {
 protected:
  void SetUp() override {
    const auto* const test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) / (std::string("gemm_cache_") + test->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directory(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path path() const { return folder_ / "algorithms.txt"; }
  std::string failure_of_reading(const std::string& text) const {
    std::ofstream(path()) << text;
    try {
      read_gemm_cache(path());
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  std::filesystem::path folder_;
};

const GemmCache example = {
    {gemm_cache_key("NVIDIA H100 80GB HBM3", 130100, "8x32x16 NT bf16>bf16 +bias"),
     {{0x42, 0, 0xffffffffffffffff, 1, 2, 3, 4, 5}, 0.0009765625}},
    {gemm_cache_key("NVIDIA A100", 120800, "8x16x32 NN bf16>bf16"), {{7, 6, 5, 4, 3, 2, 1, 0}, 0.5}}};

TEST_F(GemmCacheFile, ComesBackAsItWasWritten) {
  write_gemm_cache(path(), example);
  EXPECT_EQ(read_gemm_cache(path()), example);
}

TEST_F(GemmCacheFile, IsReplacedWhole) {
  write_gemm_cache(path(), example);
  write_gemm_cache(path(), {});
  EXPECT_TRUE(read_gemm_cache(path()).empty());
  const auto files = std::filesystem::directory_iterator(folder_);
  EXPECT_EQ(std::distance(begin(files), end(files)), 1) << "a temporary file was left";
}

TEST_F(GemmCacheFile, IsEmptyWhereThereIsNone) {
  EXPECT_TRUE(read_gemm_cache(path()).empty());
  EXPECT_TRUE(read_gemm_cache("").empty());
}

TEST_F(GemmCacheFile, RefusesAnotherKindOfFile) {
  EXPECT_THAT(failure_of_reading("{}\n"), HasSubstr("algorithms.txt:1: expected \"# stagecraft matrix"));
}

TEST_F(GemmCacheFile, NamesALineThatIsCutShort) {
  write_gemm_cache(path(), example);
  std::ifstream in(path());
  std::string text{std::istreambuf_iterator<char>(in), {}};
  text.resize(text.size() - 3);
  EXPECT_THAT(failure_of_reading(text), HasSubstr("algorithms.txt:3: expected device"));
}

TEST_F(GemmCacheFile, NamesALineWithSomethingAfterTheAlgorithm) {
  EXPECT_THAT(
      failure_of_reading("# stagecraft matrix product algorithms, version 1\nd\t1\ts\t1\t1\t2\t3\t4\t5\t6\t7\t8\t9\n"),
      HasSubstr("algorithms.txt:2"));
}

TEST_F(GemmCacheFile, SaysWhichFileItCannotWrite) {
  try {
    write_gemm_cache(folder_ / "missing" / "algorithms.txt", example);
    FAIL() << "no exception";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("missing/algorithms.txt: cannot be written"));
  }
}

}  // namespace
}  // namespace stagecraft::kernels::cuda
