#include "body.inc"

namespace oarlock {
extern const Kernels kernels_base = OARLOCK_KERNELS;
}
