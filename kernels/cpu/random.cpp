#include "kernels/cpu/random.hpp"

#include <cmath>
#include <numbers>

namespace stagecraft::kernels::cpu {
namespace {

// The output function of splitmix64: a bijection of 64 bits in which every input bit flips about half of the output
// bits.
std::uint64_t mix(std::uint64_t z) {
  z += 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

// Where the stream's counter starts. Hashing seed and tensor one after the other keeps near-by pairs apart.
std::uint64_t origin(RandomStream stream) { return mix(mix(stream.seed) ^ stream.tensor); }

constexpr float step = 0x1p-24F;  // between neighbouring values of 24 random bits

}  // namespace

void fill_normal(float* x, std::int64_t count, RandomStream stream, std::int64_t first, float mean, float deviation) {
  const std::uint64_t start = origin(stream) + static_cast<std::uint64_t>(first);
  for (std::int64_t i = 0; i < count; ++i) {
    // Box and Muller 1958, from the upper and the lower 24 bits of one hash; the radius needs (0, 1].
    const std::uint64_t bits = mix(start + static_cast<std::uint64_t>(i));
    const float radius = std::sqrt(-2.0F * std::log(static_cast<float>((bits >> 40) + 1) * step));
    const float angle = 2.0F * std::numbers::pi_v<float> * (static_cast<float>(bits & 0xffffffU) * step);
    x[i] = mean + deviation * (radius * std::cos(angle));
  }
}

void fill_uniform(float* x, std::int64_t count, RandomStream stream, std::int64_t first, float low, float high) {
  const std::uint64_t start = origin(stream) + static_cast<std::uint64_t>(first);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint64_t bits = mix(start + static_cast<std::uint64_t>(i));
    x[i] = low + (high - low) * (static_cast<float>(bits >> 40) * step);
  }
}

}  // namespace stagecraft::kernels::cpu
