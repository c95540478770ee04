// Choice of the kernels' instruction set.
#include "kernels/kernels.h"

namespace oarlock {
const Kernels &kernels() {
#if defined(__x86_64__)
  static const Kernels &chosen = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                                         __builtin_cpu_supports("avx512dq")
                                     ? kernels_avx512
                                 : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? kernels_avx2
                                                                                                   : kernels_base;
  return chosen;
#else
  return kernels_base;
#endif
}
}  // namespace oarlock
