#include "kernels/cpu/denormals.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace stagecraft::kernels::cpu {

void flush_denormals_on_this_thread() {
#if defined(__x86_64__)
  constexpr unsigned denormals_are_zero = 1U << 6;
  constexpr unsigned flush_to_zero = 1U << 15;
  _mm_setcsr(_mm_getcsr() | denormals_are_zero | flush_to_zero);
#endif
}

}  // namespace stagecraft::kernels::cpu
