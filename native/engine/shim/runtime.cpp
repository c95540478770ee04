// Process and thread settings.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <c10/core/impl/VirtualGuardImpl.h>

#include "dispatch.h"
#include "guard.h"

using namespace oarlock;

extern "C" ok_status ok_init(int32_t threads) {
  return guarded([&] {
    // Denormal numbers cost two orders of magnitude; gradients of dead units are full of them.
    at::globalContext().setFlushDenormal(true);
    if (threads > 0) at::set_num_threads(threads);
    read_switches();
  });
}

extern "C" int32_t ok_threads(void) { return at::get_num_threads(); }

extern "C" const void *ok_libtorch_address(void) { return reinterpret_cast<const void *>(&at::get_num_threads); }

extern "C" ok_status ok_cuda_devices(uint64_t *count) {
  return guarded([&] { *count = at::hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0; });
}

extern "C" ok_status ok_cuda_settings(void) {
  return guarded([&] {
    // Batches have one size: measuring the convolution algorithms once pays.
    at::globalContext().setBenchmarkCuDNN(true);
    at::globalContext().setAllowTF32CuBLAS(true);
    at::globalContext().setAllowTF32CuDNN(true);
  });
}

extern "C" ok_status ok_pinned_bytes(int64_t count, ok_tensor *output) {
  // From libtorch's cache of such memory: taken back only when the copies that read it have ended.
  return guarded([&] { *output = give(at::empty({count}, at::TensorOptions().dtype(at::kByte).pinned_memory(true))); });
}

// The thread's GPU and its stream, for libraries that work beside libtorch.
static c10::Device gpu(int32_t ordinal) {
  return c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(ordinal));
}

extern "C" ok_status ok_cuda_enter(int32_t ordinal, int32_t *previous, void **stream) {
  return guarded([&] {
    const c10::impl::VirtualGuardImpl cuda(c10::DeviceType::CUDA);
    *stream = cuda.getStream(gpu(ordinal)).native_handle();
    *previous = cuda.exchangeDevice(gpu(ordinal)).index();
  });
}

extern "C" ok_status ok_cuda_leave(int32_t previous) {
  return guarded([&] { c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).setDevice(gpu(previous)); });
}

extern "C" ok_status ok_cuda_wait(int32_t ordinal) {
  return guarded([&] {
    const c10::impl::VirtualGuardImpl cuda(c10::DeviceType::CUDA);
    cuda.synchronizeStream(cuda.getStream(gpu(ordinal)));
  });
}
