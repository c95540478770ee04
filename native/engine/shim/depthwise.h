// Depthwise convolutions of 4-dimensional CPU maps by own kernels.
#pragma once
#include <ATen/ATen.h>

#include <array>

#include "kernels/kernels.h"

namespace oarlock {

// Stride, padding, dilation (height, width each), groups.
using ConvNumbers = std::array<int64_t, 7>;

// Whether the kernels can compute it and are in use: fp32 or bf16, one filter for each channel, kernel width 3, 5 or 7
// and height up to 7, an output of at least one pixel.
bool own_depthwise(const at::Tensor &x, at::IntArrayRef weight, const ConvNumbers &conv);

// Whether the own forward pass is as fast as oneDNN's: not in bf16 on processors that compute with it (measured on one
// with AVX512-BF16: 0.8 to 1.0 of oneDNN's speed; in fp32 1.0 to 1.2).
bool own_forward_wins(const at::Tensor &x);

// A weight C×1×kh×kw as the kernels read it: kh×kw×C, fp32.
at::Tensor depthwise_taps(const at::Tensor &weight);

// act(conv + bias), channels-last; `taps` of depthwise_taps, `bias` fp32 or undefined. Gradients are not recorded.
at::Tensor depthwise_forward(const at::Tensor &x, const at::Tensor &taps, const at::Tensor &bias,
                             const ConvNumbers &conv, NormAct act, float slope);

// Gradients of input and weight for the output's gradient `dy`; those not wanted stay undefined.
struct DepthwiseGrads { at::Tensor input, weight; };
DepthwiseGrads depthwise_backward(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &dy,
                                  const ConvNumbers &conv, bool want_input, bool want_weight);

}  // namespace oarlock
