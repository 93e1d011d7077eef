// One harness for every operation on every device: is it right, are its gradients right, how fast is it.
//
// - check: runs an implementation on random inputs, with outputs poisoned by NaN, against the reference in double.
// - check_gradient: compares its gradients with finite differences taken through the reference forward.
// - measure: median time, against the floor that this machine's memory and matrix products set.
// Random inputs depend on the seed only.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace stagecraft::kernels {

enum class Role {
  input,    // uniform in [low, high); must not change
  output,   // NaN before the call
  in_out,   // uniform in [low, high), changed by the call
  scratch,  // NaN before the call, contents ignored afterwards
  indices,  // integers, uniform in [0, high)
};

// How an implementation stores a tensor. Random numbers are rounded to it, so that the reference sees the same.
enum class Storage { fp32, bf16, fp64 };

double rounded(double value, Storage storage);

// The largest relative error of rounding to nearest.
constexpr double unit_roundoff(Storage storage) {
  return storage == Storage::bf16 ? 0x1p-8 : storage == Storage::fp32 ? 0x1p-24 : 0x1p-53;
}

struct Tensor {
  std::string name;
  Role role;
  std::int64_t count;
  double low = -1.0;
  double high = 1.0;
  Storage storage = Storage::fp32;
};

// The tensors of one call, in the order of the case's list.
template <typename Real>
class Arguments {
 public:
  Arguments(std::vector<Real*> reals, std::vector<const std::int32_t*> indices)
      : reals_(std::move(reals)), indices_(std::move(indices)) {}
  // Null for a tensor of indices.
  Real* operator[](std::size_t tensor) const { return reals_[tensor]; }
  // Null for a tensor of numbers.
  const std::int32_t* indices(std::size_t tensor) const { return indices_[tensor]; }

 private:
  std::vector<Real*> reals_;
  std::vector<const std::int32_t*> indices_;
};

// What an error is compared with, beside the element itself.
enum class Scale {
  rms,      // root mean square of the expected tensor
  largest,  // its largest element: where rounding inside the operation makes all elements' errors as large
};

// One entry point at one shape.
struct Case {
  std::string op;    // the file's name under kernels/cpu: "layer_norm"
  std::string name;  // entry point and shape: "layer_norm_forward N=3 C=5"
  std::vector<Tensor> tensors;
  std::function<void(const Arguments<float>&)> candidate;
  std::function<void(const Arguments<double>&)> reference;
  // Makes inputs that depend on other inputs (saved statistics); runs once, before both. May be empty.
  std::function<void(const Arguments<double>&)> prepare = {};
  double flops = 0.0;       // of matrix products; 0 for an operation that memory bounds
  double tolerance = 1e-5;  // largest error allowed, see Outcome
  Scale scale = Scale::rms;
};

// Derivatives of an operation with respect to all its inputs.
struct GradientCase {
  std::string op;
  std::string name;
  std::vector<Tensor> inputs;  // Role::input or Role::indices
  std::int64_t outputs;        // numbers in y
  std::function<void(const Arguments<double>& inputs, double* y)> forward;
  // Adds to, or overwrites, d_inputs, which are zero.
  std::function<void(const Arguments<float>& inputs, const float* dy, const Arguments<float>& d_inputs)> gradient;
};

// The error of an element is |value - expected| / (|expected| + scale of the expected tensor). Beside the case's
// tolerance it may have the one rounding that storing it takes. An element that stays NaN on both sides was written by
// neither and is right.
struct Outcome {
  bool passed;
  double error;         // the largest
  std::string message;  // where, and both values; empty if passed
};

Outcome check(const Case& test, std::uint64_t seed);
Outcome check_gradient(const GradientCase& test, std::uint64_t seed);

struct Timing {
  double median_s;
  double flops_per_s;     // 0 if the case counts none
  double bytes_per_s;     // every input read once, every output written once
  double share_of_floor;  // 1: as fast as memory copies and matrix products of this machine allow
};

// What a machine can do at best; measured once, handed to every measure().
struct Peaks {
  double flops_per_s;  // a square sgemm
  double bytes_per_s;  // read plus written by a copy that does not fit into the caches
};

Peaks measure_peaks(const std::function<void(float* c, const float* a, const float* b, std::int64_t n)>& gemm);
Timing measure(const Case& test, const Peaks& peaks);

}  // namespace stagecraft::kernels
