// Turns every C++ exception into an ok_status.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

#include "shim.h"

namespace oarlock {

inline ok_status failure(int32_t code, const char *text) {
  const size_t size = std::strlen(text) + 1;
  char *copy = static_cast<char *>(std::malloc(size));
  if (copy) std::memcpy(copy, text, size);
  return {code, copy};
}

template <typename F> ok_status guarded(F &&body) noexcept {
  try {
    body();
    return {OK_DONE, nullptr};
  } catch (const c10::OutOfMemoryError &e) {
    return failure(OK_OUT_OF_MEMORY, e.what_without_backtrace());
  } catch (const c10::AcceleratorError &e) {
    return failure(OK_DEVICE_FAULT, e.what_without_backtrace());
  } catch (const c10::Error &e) {
    return failure(OK_ERROR, e.what_without_backtrace());
  } catch (const std::bad_alloc &e) {
    return failure(OK_OUT_OF_MEMORY, e.what());
  } catch (const std::exception &e) {
    return failure(OK_ERROR, e.what());
  } catch (...) {
    return failure(OK_UNKNOWN, "an exception of unknown type");
  }
}

inline at::Tensor &tensor(ok_tensor t) { return *static_cast<at::Tensor *>(t); }

inline ok_tensor give(at::Tensor t) { return new at::Tensor(std::move(t)); }

// An ok_act with its parameters; with `in_place` the values of `x` may be overwritten (layout.cpp).
at::Tensor activate(at::Tensor x, int32_t act, double a, double b, bool in_place);

}  // namespace oarlock
