// Process and thread settings.
#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "guard.h"

using namespace oarlock;

extern "C" ok_status ok_init(int32_t threads) {
  return guarded([&] {
    // Denormal numbers cost two orders of magnitude; gradients of dead units are full of them.
    at::globalContext().setFlushDenormal(true);
    if (threads > 0) at::set_num_threads(threads);
  });
}

extern "C" int32_t ok_threads(void) { return at::get_num_threads(); }
