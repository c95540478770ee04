#include "body.inc"

namespace oarlock {
extern const Kernels kernels_avx512 = OARLOCK_KERNELS;
}
