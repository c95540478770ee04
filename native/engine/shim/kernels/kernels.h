// Loops over plain memory, compiled once for each instruction set. These files include no C++ header:
// an inline function compiled for AVX-512 could otherwise be linked into code for every processor.
#pragma once
#include <stdint.h>

namespace oarlock {

struct SgdRates { float lr, momentum, weight_decay; };
struct AdamRates { float lr, beta1, beta2, eps, weight_decay, root_bias2; };

// Activations that a batch norm can apply in the same pass; `slope` belongs to LEAKY.
enum NormAct : int32_t { NORM_NONE, NORM_RELU, NORM_RELU6, NORM_LEAKY, NORM_HARD_SWISH };

// Rows of `channels` values each (channels-last maps: N·H·W rows), fp32 or bf16. With `recompute` gradients find the
// activation's slope from x · scale + shift instead of reading y: a map less to read.
struct NormRows { int64_t rows, channels; bool bf16; NormAct act; float slope; bool recompute = false; };

// A depthwise convolution of channels-last maps, fp32 or bf16; kernel sides up to 7.
struct Depthwise {
  int64_t channels, height, width, out_height, out_width;
  int64_t kernel_height, kernel_width, stride_height, stride_width, padding_height, padding_width, dilation_height,
      dilation_width;
  bool bf16;
};

// Rows of one image (H·W rows of `channels` values, channels-last), fp32 or bf16.
struct Rows { int64_t rows, channels; bool bf16; };

// A row of channels that begins `at` values from the map's first, and its share.
struct Term { int64_t at; float weight; };

struct Kernels {
  // `copy` (bf16) is null where the forward pass reads the master weights themselves.
  void (*sgd)(float *w, uint16_t *copy, const void *g, bool g_bf16, float *v, int64_t n, SgdRates r);
  void (*adam)(float *w, uint16_t *copy, const void *g, bool g_bf16, float *m, float *s, int64_t n, AdamRates r);
  // The mean over the rows and the sum of squared differences from it, for each channel.
  void (*norm_stats)(NormRows m, const void *x, double *mean, double *square);
  // y = act(x · scale + shift [+ residual])
  void (*norm_apply)(NormRows m, const void *x, const void *residual, void *y, const float *scale, const float *shift);
  // With g = dy · act', adds to `sum` and `product` the sums of g and of g · (x − mean), for each channel.
  void (*norm_grad_stats)(NormRows m, const void *x, const void *y, const void *dy, const float *scale,
                          const float *shift, const float *mean, float *sum, float *product);
  // dx = g · a + x · b + c; `dresidual` = g unless it is null.
  void (*norm_grad_apply)(NormRows m, const void *x, const void *y, const void *dy, const float *scale,
                          const float *shift, const float *a, const float *b, const float *c, void *dx,
                          void *dresidual);
  // Output rows [begin, end) of N·OH, y = act(conv [+ bias]); `w` is taps × channels; kernel width 3, 5 or 7.
  void (*depthwise_forward)(Depthwise d, const void *x, const float *w, const float *bias, NormAct act, float slope,
                            void *y, int64_t begin, int64_t end);
  // The gradient of input rows [begin, end) of N·H; `w` is taps × channels.
  void (*depthwise_grad_input)(Depthwise d, const void *dy, const float *w, void *dx, int64_t begin, int64_t end);
  // Adds to `sums` (taps × channels) what output rows [begin, end) of N·OH give; kernel width 3, 5 or 7.
  void (*depthwise_grad_weight)(Depthwise d, const void *x, const void *dy, float *sums, int64_t begin, int64_t end);
  // Adds to `sum` the sums of x over the rows, for each channel.
  void (*rows_sum)(Rows m, const void *x, float *sum);
  // y = x · gate
  void (*rows_scale)(Rows m, const void *x, const float *gate, void *y);
  // dx = dy · gate + shift; either may be null: no gate (then dy is not read) or no shift.
  void (*rows_scale_grad)(Rows m, const void *dy, const float *gate, const float *shift, void *dx);
  // Adds to `product` the sums of x · dy over the rows; with `dx` also dx = dy · gate.
  void (*rows_gate_grad)(Rows m, const void *x, const void *dy, const float *gate, void *dx, float *product);
  // out = Σ weight · row; `x` and `out` fp32 or bf16.
  void (*gather_rows)(const void *x, bool bf16, const Term *terms, int64_t count, int64_t channels, void *out);
  // Adds weight · g to each row.
  void (*scatter_rows)(float *x, const Term *terms, int64_t count, int64_t channels, const void *g, bool bf16);
  // The products of four rows with `g`, which has the type of `x`.
  void (*dot_rows)(const void *x, bool bf16, const Term *terms, int64_t channels, const void *g, float *dots);
};

extern const Kernels kernels_base;
#if defined(__x86_64__)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
extern const Kernels kernels_avx512bf16;
#endif

// The fastest set this processor has.
const Kernels &kernels();

// Families of kernels that can be switched off; libtorch's own operators do their work then.
enum Family : uint32_t {
  FAMILY_DEPTHWISE = 1,
  FAMILY_POINTWISE = 2,
  FAMILY_NORM = 4,
  FAMILY_SE = 8,
  FAMILY_OPTIM = 16,
};
bool enabled(Family family);

}  // namespace oarlock
