// What the cases of CPU operations share. A function a family adds the cases of all entry points at one shape: `f` is a
// call in single precision, `d` in double; the numbers in brackets index the list of tensors above them. Private to
// kernels/harness.
#pragma once

#include <fmt/format.h>

#include <algorithm>

#include "kernels/harness/cases.hpp"

namespace stagecraft::kernels {

using Index = std::int64_t;
using F = const Arguments<float>&;
using D = const Arguments<double>&;
using Cases = std::vector<Case>;

inline constexpr float epsilon = 1e-5F;

// The reference adds; an operation that overwrites is compared with adding to zero.
template <typename Value>
void zero(Value* x, Index count) {
  std::fill_n(x, count, Value{0});
}

// norm_cases.cpp
void add_layer_norm(Cases& cases, Index rows, Index channels);
void add_rms_norm(Cases& cases, Index rows, Index channels);

}  // namespace stagecraft::kernels
