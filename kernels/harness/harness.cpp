#include "kernels/harness/harness.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace stagecraft::kernels {
namespace {

// Uniform numbers that are the same with every standard library.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  double uniform(double low, double high) {
    return low + (high - low) * (static_cast<double>(engine_() >> 11) * 0x1p-53);
  }
  std::int64_t below(std::int64_t bound) { return static_cast<std::int64_t>(uniform(0.0, static_cast<double>(bound))); }

 private:
  std::mt19937_64 engine_;
};

// Owns the tensors of one call.
template <typename Real>
struct Tensors {
  std::vector<std::vector<Real>> reals;
  std::vector<std::vector<std::int32_t>> indices;

  Arguments<Real> arguments() {
    std::vector<Real*> real_pointers;
    std::vector<const std::int32_t*> index_pointers;
    for (auto& tensor : reals) real_pointers.push_back(tensor.empty() ? nullptr : tensor.data());
    for (auto& tensor : indices) index_pointers.push_back(tensor.empty() ? nullptr : tensor.data());
    return {std::move(real_pointers), std::move(index_pointers)};
  }
};

float single(double value) { return static_cast<float>(value); }

Tensors<double> random_storage(const std::vector<Tensor>& tensors, std::uint64_t seed) {
  Random random(seed);
  Tensors<double> storage;
  for (const Tensor& tensor : tensors) {
    std::vector<double>& reals = storage.reals.emplace_back();
    std::vector<std::int32_t>& indices = storage.indices.emplace_back();
    const auto count = static_cast<std::size_t>(tensor.count);
    if (tensor.role == Role::indices) {
      indices.resize(count);
      for (auto& index : indices) index = static_cast<std::int32_t>(random.uniform(0.0, tensor.high));
    } else if (tensor.role == Role::output || tensor.role == Role::scratch) {
      reals.assign(count, std::numeric_limits<double>::quiet_NaN());
    } else {
      reals.resize(count);
      for (auto& real : reals) real = rounded(random.uniform(tensor.low, tensor.high), tensor.storage);
    }
  }
  return storage;
}

Tensors<float> in_single_precision(const Tensors<double>& storage) {
  Tensors<float> result;
  result.indices = storage.indices;
  for (const auto& tensor : storage.reals) {
    auto& copy = result.reals.emplace_back(tensor.size());
    std::transform(tensor.begin(), tensor.end(), copy.begin(), single);
  }
  return result;
}

double largest(const std::vector<double>& values) {
  double result = 0.0;
  for (double value : values) result = std::isnan(value) ? result : std::max(result, std::abs(value));
  return result;
}

double root_mean_square(const std::vector<double>& values) {
  double squares = 0.0;
  std::size_t count = 0;
  for (double value : values) {
    if (std::isnan(value)) continue;
    squares += value * value;
    ++count;
  }
  return count == 0 ? 0.0 : std::sqrt(squares / static_cast<double>(count));
}

double relative_error(double value, double expected, double scale) {
  if (std::isnan(value) && std::isnan(expected)) return 0.0;
  if (value == expected) return 0.0;
  const double error = std::abs(value - expected) / (std::abs(expected) + scale);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

// Keeps the worst element seen so far in `outcome`.
void judge(Outcome& outcome, const std::string& tensor, std::size_t index, double value, double expected, double scale,
           double tolerance) {
  const double error = relative_error(value, expected, scale);
  if (error <= outcome.error) return;
  outcome.error = error;
  if (error <= tolerance) return;
  outcome.passed = false;
  outcome.message = fmt::format("{}[{}] is {:.9g}, expected {:.9g} (error {:.3g}, allowed {:.3g})", tensor, index,
                                value, expected, error, tolerance);
}

double bytes_touched(const Case& test) {
  double bytes = 0.0;
  for (const Tensor& tensor : test.tensors) {
    const double size = 4.0 * static_cast<double>(tensor.count);
    if (tensor.role == Role::in_out) bytes += 2.0 * size;
    if (tensor.role == Role::input || tensor.role == Role::output || tensor.role == Role::indices) bytes += size;
  }
  return bytes;
}

// Runs `body` for about half a second, at least 5 times after one warm-up.
double median_seconds(const std::function<void()>& body) {
  using Clock = std::chrono::steady_clock;
  body();
  std::vector<double> seconds;
  const auto end = Clock::now() + std::chrono::milliseconds(500);
  while (seconds.size() < 5 || (Clock::now() < end && seconds.size() < 10000)) {
    const auto start = Clock::now();
    body();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

}  // namespace

double rounded(double value, Storage storage) {
  if (storage == Storage::fp64) return value;
  const float nearest = single(value);
  if (storage == Storage::fp32 || !std::isfinite(nearest)) return nearest;
  // Bf16 is the upper half of a float: round to nearest, ties to even.
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  bits += 0x7fffU + (bits >> 16 & 1U);
  return std::bit_cast<float>(bits & 0xffff0000U);
}

Outcome check(const Case& test, std::uint64_t seed) {
  Tensors<double> expected = random_storage(test.tensors, seed);
  if (test.prepare) test.prepare(expected.arguments());
  for (std::size_t t = 0; t < test.tensors.size(); ++t) {
    for (double& value : expected.reals[t]) value = rounded(value, test.tensors[t].storage);
  }
  Tensors<float> actual = in_single_precision(expected);

  test.candidate(actual.arguments());
  test.reference(expected.arguments());
  Outcome outcome{true, 0.0, ""};
  for (std::size_t t = 0; t < test.tensors.size(); ++t) {
    if (test.tensors[t].role == Role::scratch) continue;
    const double scale = test.scale == Scale::rms ? root_mean_square(expected.reals[t]) : largest(expected.reals[t]);
    const double tolerance =
        test.tolerance + (test.tensors[t].storage == Storage::bf16 ? unit_roundoff(Storage::bf16) : 0.0);
    for (std::size_t i = 0; i < expected.reals[t].size(); ++i) {
      judge(outcome, test.tensors[t].name, i, static_cast<double>(actual.reals[t][i]), expected.reals[t][i], scale,
            tolerance);
    }
  }
  return outcome;
}

Outcome check_gradient(const GradientCase& test, std::uint64_t seed) {
  constexpr double step = 1e-4;
  constexpr double tolerance = 1e-4;
  constexpr std::int64_t samples = 32;  // of each input

  Tensors<double> inputs = random_storage(test.inputs, seed);
  Tensors<float> values_in_single = in_single_precision(inputs);
  Tensors<float> d_inputs = values_in_single;
  for (auto& tensor : d_inputs.reals) std::fill(tensor.begin(), tensor.end(), 0.0F);
  Random random(seed + 1);
  std::vector<float> dy(static_cast<std::size_t>(test.outputs));
  for (auto& value : dy) value = single(random.uniform(-1.0, 1.0));
  test.gradient(values_in_single.arguments(), dy.data(), d_inputs.arguments());

  std::vector<double> y(dy.size());
  const auto projected = [&] {
    test.forward(inputs.arguments(), y.data());
    double sum = 0.0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * static_cast<double>(dy[i]);
    return sum;
  };
  Outcome outcome{true, 0.0, ""};
  for (std::size_t t = 0; t < test.inputs.size(); ++t) {
    std::vector<double>& values = inputs.reals[t];
    const std::vector<float>& gradient = d_inputs.reals[t];
    const double scale = root_mean_square({gradient.begin(), gradient.end()});
    for (std::int64_t sample = 0; sample < samples && !values.empty(); ++sample) {
      const auto i = static_cast<std::size_t>(random.below(test.inputs[t].count));
      const double value = values[i];
      values[i] = value + step;
      const double above = projected();
      values[i] = value - step;
      const double below = projected();
      values[i] = value;
      judge(outcome, "d_" + test.inputs[t].name, i, static_cast<double>(gradient[i]), (above - below) / (2.0 * step),
            scale, tolerance);
    }
  }
  return outcome;
}

Peaks measure_peaks(const std::function<void(float* c, const float* a, const float* b, std::int64_t n)>& gemm) {
  constexpr std::int64_t n = 1024;
  std::vector<float> a(n * n, 1.0F);
  std::vector<float> b(n * n, 0.5F);
  std::vector<float> c(n * n);
  const double gemm_s = median_seconds([&] { gemm(c.data(), a.data(), b.data(), n); });
  const std::vector<float> from(std::size_t{1} << 24, 1.0F);
  std::vector<float> to(from.size());
  const double bytes = static_cast<double>(from.size() * sizeof(float));
  const double copy_s = median_seconds([&] { std::memcpy(to.data(), from.data(), from.size() * sizeof(float)); });
  return {2.0 * n * n * n / gemm_s, 2.0 * bytes / copy_s};
}

Timing measure(const Case& test, const Peaks& peaks) {
  Tensors<double> inputs = random_storage(test.tensors, 1);
  if (test.prepare) test.prepare(inputs.arguments());
  Tensors<float> storage = in_single_precision(inputs);
  inputs = {};
  // Scratch is no NaN here: arithmetic on leftovers must not change the time.
  for (auto& tensor : storage.reals) {
    for (auto& value : tensor) value = std::isnan(value) ? 0.0F : value;
  }
  const Arguments<float> arguments = storage.arguments();
  const double seconds = median_seconds([&] { test.candidate(arguments); });
  const double bytes = bytes_touched(test);
  const double floor = std::max(test.flops / peaks.flops_per_s, bytes / peaks.bytes_per_s);
  return {seconds, test.flops / seconds, bytes / seconds, floor / seconds};
}

}  // namespace stagecraft::kernels
