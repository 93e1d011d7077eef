// How the element-wise operations become fast: compiled once per instruction set, with an exponential that vectorises.
//
// A function marked STAGECRAFT_VECTORISED is compiled for plain x86-64, AVX2 and AVX-512; the loader picks the best
// that the machine has (GNU ifunc), so the binary runs anywhere. Sanitizers run before ifuncs can, hence the plain
// version there. Helpers called from such a function must be STAGECRAFT_INLINE: only inlined code gets the caller's
// instructions.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#if defined(STAGECRAFT_VECTORISED)  // chosen on the command line, to test one instruction set
#elif defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define STAGECRAFT_VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define STAGECRAFT_VECTORISED
#endif
#define STAGECRAFT_INLINE [[gnu::always_inline]] inline

namespace stagecraft::kernels::cpu {

// exp(x) with a relative error below 2e-7. NaN stays NaN. REQUIRES: |x| <= 87, otherwise the result means nothing.
//
// exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln(2) / 2. ln 2 is subtracted in two parts so that r keeps
// its low bits, and exp(r) is its Taylor polynomial of degree 7 (remainder 5e-9).
STAGECRAFT_INLINE float fast_exp(float x) {
  constexpr float log2_e = 1.44269504F;
  constexpr float ln2_high = 0.693145752F;     // 16 significant bits: n * ln2_high is exact
  constexpr float ln2_low = 1.42860677e-6F;    // ln 2 - ln2_high
  constexpr float round_to_int = 12582912.0F;  // 1.5 * 2^23: adding it leaves no fraction bits
  const float shifted = x * log2_e + round_to_int;
  const float n = shifted - round_to_int;
  const float r = (x - n * ln2_high) - n * ln2_low;
  float p = 1.0F / 5040.0F;
  p = p * r + 1.0F / 720.0F;
  p = p * r + 1.0F / 120.0F;
  p = p * r + 1.0F / 24.0F;
  p = p * r + 1.0F / 6.0F;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  // The low bits of `shifted` are n: moved into the exponent field they add n to the exponent of p.
  const std::uint32_t exponent = std::bit_cast<std::uint32_t>(shifted) << 23;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + exponent);
}

// 1 / (1 + exp(-x)), never below 1e-35: no denormals. NaN gives an unspecified number in (0, 1].
//
// The argument is clamped as an integer (the bits of positive floats are in order). A comparison of floats would make
// the compiler fold the clamped case into a product of its own, in denormals, for every element and then throw it away.
STAGECRAFT_INLINE float fast_sigmoid(float x) {
  constexpr std::uint32_t sign_bit = 0x80000000U;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(-x);
  const std::uint32_t magnitude = std::min(bits & ~sign_bit, std::bit_cast<std::uint32_t>(80.0F));
  return 1.0F / (1.0F + fast_exp(std::bit_cast<float>(magnitude | (bits & sign_bit))));
}

// exp(x) for x <= 0 in a softmax. Terms below e^-64 are exactly 0: they are lost in the sum anyway, and as denormals
// they would slow every later multiplication down. NaN stays NaN.
STAGECRAFT_INLINE float softmax_exp(float x) {
  const float e = fast_exp(x);
  return x < -64.0F ? 0.0F : e;
}

// Replaces row by exp(row - max(row)) and returns the sum; sets maximum.
STAGECRAFT_INLINE float exponentiate_row(float* row, std::int64_t count, float& maximum) {
  float largest = row[0];
#pragma omp simd reduction(max : largest)
  for (std::int64_t i = 0; i < count; ++i) largest = row[i] > largest ? row[i] : largest;
  float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) {
    row[i] = softmax_exp(row[i] - largest);
    sum += row[i];
  }
  maximum = largest;
  return sum;
}

}  // namespace stagecraft::kernels::cpu
