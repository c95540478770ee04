// C interface to what libtorch offers and the tch crate does not. Tensors are `at::Tensor*`, as in tch.
//
// Every entry point that can fail returns a status: 0 when done, else a code of `ok_code`, with the
// text in `message` (allocated with malloc, freed by the caller). No exception leaves this library.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum ok_code { OK_DONE = 0, OK_OUT_OF_MEMORY = 1, OK_DEVICE_FAULT = 2, OK_ERROR = 3, OK_UNKNOWN = 4 };

typedef struct {
  int32_t code;
  char *message;
} ok_status;

typedef void *ok_tensor;

// Two environment variables choose among the own CPU kernels (kernels/, dispatch.cpp), read by ok_init and at their
// first use:
//   OARLOCK_KERNELS=base|avx2|avx512|avx512bf16   at most this instruction set
//   OARLOCK_DISABLE_KERNELS=depthwise,norm,…      these families give way to libtorch's own operators:
//     depthwise   depthwise convolutions, forward and backward (depthwise.cpp, conv_grad.cpp, conv.cpp)
//     pointwise   weight gradients of 1×1 convolutions in bf16 (conv_grad.cpp)
//     norm        batch norm + sum + activation (norm.cpp)
//     se          pooling and gates of squeeze-and-excitation (squeeze_excite.cpp)
//     optim       optimizer steps (optim.cpp)
// Results differ within rounding: sums are added in another order.

// dispatch.cpp
ok_status ok_kernels_use(uint32_t families, uint32_t *before);  // bits of Family in kernels.h
const char *ok_kernels_name(void);                              // the instruction set

// runtime.cpp
ok_status ok_init(int32_t threads);
int32_t ok_threads(void);
const void *ok_libtorch_address(void);         // of any function of libtorch
ok_status ok_cuda_devices(uint64_t *count);    // after libtorch_cuda is loaded
ok_status ok_cuda_settings(void);
ok_status ok_pinned_bytes(int64_t count, ok_tensor *output);  // page-locked, once libtorch_cuda is loaded
// Makes a GPU the thread's current one; gives the one before and libtorch's current stream (`cudaStream_t`) on it.
ok_status ok_cuda_enter(int32_t ordinal, int32_t *previous, void **stream);
ok_status ok_cuda_leave(int32_t previous);
ok_status ok_cuda_wait(int32_t ordinal);  // until that stream has done all it was given

// alloc.cpp: memory of CPU tensors. `available` says how many bytes the machine can still give.
ok_status ok_memory_init(uint64_t (*available)(void));
void ok_memory_limit(uint64_t bytes);  // 0 = none
void ok_memory_trim(void);             // gives kept memory back to the system
void ok_memory_stats(uint64_t *used, uint64_t *peak, uint64_t *kept);  // bytes; the peak begins anew

// layout.cpp
ok_status ok_to_channels_last(ok_tensor input, ok_tensor *output);
// N×C… → N×count…; 4-dimensional results have the channels innermost
ok_status ok_select_channels(ok_tensor input, const int64_t *channels, int64_t count, ok_tensor *output);
ok_status ok_normalize(const uint8_t *pixels, int64_t n, int64_t h, int64_t w, const float *mean, const float *std,
                       int32_t bf16, ok_tensor *output);
ok_status ok_dropout(ok_tensor input, double p, uint64_t seed, ok_tensor *output);

// roi_align.cpp: pools the regions `rois` (K×5) from `count` maps; `areas` has count − 1 values (level_areas).
ok_status ok_roi_align(ok_tensor rois, const ok_tensor *levels, const int64_t *strides, const float *areas,
                       int64_t count, int64_t height, int64_t width, int64_t sampling, int32_t aligned,
                       ok_tensor *output);

// deform.cpp: a deformable convolution with its gradients; `conv` as for ok_conv without groups; `bias` may be null.
ok_status ok_deform_conv(ok_tensor input, ok_tensor offset, ok_tensor factor, ok_tensor weight, ok_tensor bias,
                         const int64_t *conv, ok_tensor *output);

// drop_block.cpp
ok_status ok_drop_block(ok_tensor input, int64_t size, double keep, uint64_t seed, ok_tensor *output);

// Activation functions; `in_place` may overwrite the input.
enum ok_act { OK_RELU, OK_RELU6, OK_HARD_SWISH, OK_HARD_SIGMOID, OK_SWISH, OK_SIGMOID, OK_LEAKY_RELU, OK_MISH };
ok_status ok_activation(ok_tensor input, int32_t act, double a, double b, int32_t in_place, ok_tensor *output);

// norm.cpp: batch norm, plus `residual` unless it is null, then `act` (NormAct of kernels.h).
ok_status ok_norm_act(ok_tensor input, ok_tensor gamma, ok_tensor beta, ok_tensor running_mean, ok_tensor running_var,
                      ok_tensor residual, int32_t train, double momentum, double eps, int32_t act, double slope,
                      ok_tensor *output);

// squeeze_excite.cpp: mean over all pixels, N×C×1×1.
ok_status ok_global_pool(ok_tensor input, ok_tensor *output);
// input · act(gate), the gate N×C×1×1 or any shape that broadcasts; `act` is OK_HARD_SIGMOID, OK_SIGMOID or -1.
// `pooled` may be null; else it is what ok_global_pool made of the same input and the gate was computed from: their
// gradients of the input are then written in one pass.
ok_status ok_excite(ok_tensor input, ok_tensor gate, ok_tensor pooled, int32_t act, double a, double b,
                    ok_tensor *output);

// conv_grad.cpp: a convolution with its gradients; `conv` is stride, padding, dilation (height, width each), groups;
// `bias` may be null.
ok_status ok_conv(ok_tensor input, ok_tensor weight, ok_tensor bias, const int64_t *conv, ok_tensor *output);

// conv.cpp: convolutions for inference on a CPU; depthwise ones by own kernels (depthwise.cpp). `conv` as above;
// `act` is an ok_act or -1; `bias` and `other` may be null.
ok_status ok_conv_pack(ok_tensor input, ok_tensor weight, const int64_t *conv, ok_tensor *output);
ok_status ok_conv_act(ok_tensor input, ok_tensor weight, ok_tensor bias, const int64_t *conv, ok_tensor other,
                      int32_t act, double slope, ok_tensor *output);

// optim.cpp: one step of all parameters. `state` holds the momentum (SGD), or the means of gradients and of their
// squares (Adam); a null entry is none. Gradients may be undefined.
typedef struct {
  ok_tensor master, compute, grad, state[2];
} ok_step;
ok_status ok_sgd_step(const ok_step *params, int64_t count, double lr, double momentum_factor, double weight_decay);
ok_status ok_adam_step(const ok_step *params, int64_t count, double lr, double beta1, double beta2, double eps,
                       double weight_decay, int64_t number);

// gradients.cpp: of `count` inputs, for the gradient `grad` of `output`; the graph stays.
ok_status ok_gradients(ok_tensor output, ok_tensor grad, const ok_tensor *inputs, int64_t count, ok_tensor *grads);

// fail.cpp
ok_status ok_fail(int32_t kind);

#ifdef __cplusplus
}
#endif
