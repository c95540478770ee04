// Choice of the kernels' instruction set.
#include "kernels/kernels.h"

#include <cstdlib>
#include <cstring>

namespace oarlock {

#if defined(__x86_64__)
static const Kernels &choose() {
  int level = 0;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) level = 1;
  if (level == 1 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    level = 2;
  if (level == 2 && __builtin_cpu_supports("avx512bf16")) level = 3;
  const char *names[] = {"base", "avx2", "avx512", "avx512bf16"};
  const Kernels *sets[] = {&kernels_base, &kernels_avx2, &kernels_avx512, &kernels_avx512bf16};
  // A smaller set than the processor has may be asked for, to test it or to rule it out.
  if (const char *most = std::getenv("OARLOCK_KERNELS"))
    for (int i = 0; i < level; ++i)
      if (!std::strcmp(most, names[i])) level = i;
  return *sets[level];
}
#else
static const Kernels &choose() { return kernels_base; }
#endif

const Kernels &kernels() {
  static const Kernels &chosen = choose();
  return chosen;
}

}  // namespace oarlock
