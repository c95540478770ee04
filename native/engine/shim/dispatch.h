// Switches of the kernels.
#pragma once

namespace oarlock {

// Reads OARLOCK_DISABLE_KERNELS; throws std::runtime_error for a name that no kernel has.
void read_switches();

}  // namespace oarlock
