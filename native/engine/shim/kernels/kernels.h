// Loops over plain memory, compiled once for each instruction set. These files include no C++ header:
// an inline function compiled for AVX-512 could otherwise be linked into code for every processor.
#pragma once
#include <stdint.h>

namespace oarlock {

struct SgdRates { float lr, momentum, weight_decay; };
struct AdamRates { float lr, beta1, beta2, eps, weight_decay, root_bias2; };

// `copy` (bf16) is null where the forward pass reads the master weights themselves.
struct Kernels {
  void (*sgd)(float *w, uint16_t *copy, const void *g, bool g_bf16, float *v, int64_t n, SgdRates r);
  void (*adam)(float *w, uint16_t *copy, const void *g, bool g_bf16, float *m, float *s, int64_t n, AdamRates r);
};

extern const Kernels kernels_base;
#if defined(__x86_64__)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

// The fastest set this processor has.
const Kernels &kernels();

}  // namespace oarlock
