#include "body.inc"

namespace oarlock {
extern const Kernels kernels_avx2 = OARLOCK_KERNELS;
}
