// Choice of the kernels' instruction set.
#include "kernels/kernels.h"

namespace oarlock {

#if defined(__x86_64__)
static const Kernels &choose() {
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512) return __builtin_cpu_supports("avx512bf16") ? kernels_avx512bf16 : kernels_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kernels_avx2;
  return kernels_base;
}
#else
static const Kernels &choose() { return kernels_base; }
#endif

const Kernels &kernels() {
  static const Kernels &chosen = choose();
  return chosen;
}

}  // namespace oarlock
