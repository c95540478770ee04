// Fail-points: each throws in the way its number says, to prove that no exception leaves this library.
#include <stdexcept>

#include "guard.h"

using namespace oarlock;

extern "C" ok_status ok_fail(int32_t kind) {
  return guarded([&] {
    switch (kind) {
      case 0: throw 42;
      case 1: throw std::bad_alloc();
      case 2: TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory");
      case 3: throw std::runtime_error("a runtime error");
      case 4: TORCH_CHECK(false, "a failed check");
      case 5: at::zeros({2, 3}).add(at::zeros({4, 5}));
    }
  });
}
