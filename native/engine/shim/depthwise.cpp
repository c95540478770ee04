// Depthwise convolutions by own kernels: oneDNN's backward pass takes most of a MobileNet's step, and its forward pass
// in training is not fused with anything either.
#include "depthwise.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace oarlock {
namespace {

constexpr auto kLast = at::MemoryFormat::ChannelsLast;
// Sums over pixels go over a fixed number of pieces, so that results do not depend on the number of threads.
constexpr int64_t kPieces = 32;
// Rows whose input gradient and weight gradient are computed one after the other, while they are in the cache.
constexpr int64_t kBand = 8;

int64_t out_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  const int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

Depthwise shape_of(const at::Tensor &x, int64_t kh, int64_t kw, const ConvNumbers &c) {
  return {x.size(1), x.size(2), x.size(3), out_size(x.size(2), kh, c[0], c[2], c[4]),
          out_size(x.size(3), kw, c[1], c[3], c[5]), kh, kw, c[0], c[1], c[2], c[3], c[4], c[5],
          x.scalar_type() == at::kBFloat16};
}

// Two rows at least: the kernel computes two at a time.
int64_t grain(int64_t width, int64_t channels) {
  return std::max<int64_t>(2, (1 << 15) / std::max<int64_t>(1, width * channels));
}

// The input gradient of a convolution whose steps are all 1 is a convolution of the output gradient.
bool turns_round(const Depthwise &d) {
  return d.stride_height == 1 && d.stride_width == 1 && d.dilation_height == 1 && d.dilation_width == 1 &&
         d.padding_height < d.kernel_height && d.padding_width < d.kernel_width;
}

Depthwise turned(const Depthwise &d) {
  Depthwise t = d;
  std::swap(t.height, t.out_height);
  std::swap(t.width, t.out_width);
  t.padding_height = d.kernel_height - 1 - d.padding_height;
  t.padding_width = d.kernel_width - 1 - d.padding_width;
  return t;
}

}  // namespace

bool own_depthwise(const at::Tensor &x, at::IntArrayRef weight, const ConvNumbers &c) {
  if (!enabled(FAMILY_DEPTHWISE) || !x.is_cpu() || x.dim() != 4 || x.numel() == 0 || weight.size() != 4) return false;
  const auto type = x.scalar_type();
  const int64_t kh = weight[2], kw = weight[3];
  return (type == at::kFloat || type == at::kBFloat16) && c[6] == x.size(1) && c[6] > 1 && weight[0] == c[6] &&
         weight[1] == 1 && kh <= 7 && (kw == 3 || kw == 5 || kw == 7) &&
         out_size(x.size(2), kh, c[0], c[2], c[4]) > 0 && out_size(x.size(3), kw, c[1], c[3], c[5]) > 0;
}

bool own_forward_wins(const at::Tensor &x) {
#if defined(__x86_64__)
  return x.scalar_type() == at::kFloat || &kernels() != &kernels_avx512bf16;
#else
  return true;
#endif
}

at::Tensor depthwise_taps(const at::Tensor &weight) {
  return weight.detach().to(at::kFloat).squeeze(1).permute({1, 2, 0}).contiguous();
}

at::Tensor depthwise_forward(const at::Tensor &input, const at::Tensor &taps, const at::Tensor &bias,
                             const ConvNumbers &c, NormAct act, float slope) {
  const at::Tensor x = input.contiguous(kLast);
  const Depthwise d = shape_of(x, taps.size(0), taps.size(1), c);
  at::Tensor y = at::empty({x.size(0), d.channels, d.out_height, d.out_width}, x.options().memory_format(kLast));
  const float *b = bias.defined() ? bias.const_data_ptr<float>() : nullptr, *w = taps.const_data_ptr<float>();
  const void *from = x.const_data_ptr();
  void *to = y.data_ptr();
  at::parallel_for(0, x.size(0) * d.out_height, grain(d.out_width, d.channels), [&](int64_t begin, int64_t end) {
    kernels().depthwise_forward(d, from, w, b, act, slope, to, begin, end);
  });
  return y;
}

DepthwiseGrads depthwise_backward(const at::Tensor &input, const at::Tensor &weight, const at::Tensor &grad,
                                  const ConvNumbers &c, bool want_input, bool want_weight) {
  const at::Tensor x = input.contiguous(kLast), dy = grad.contiguous(kLast);
  const Depthwise d = shape_of(x, weight.size(2), weight.size(3), c);
  const int64_t taps = d.kernel_height * d.kernel_width;
  const bool turn = want_input && turns_round(d);
  const Depthwise t = turned(d);
  at::Tensor dx, w, partial;
  if (want_input) {
    dx = at::empty_like(x, kLast);
    w = depthwise_taps(weight);
    if (turn) w = w.flip({0, 1}).contiguous();
  }
  const int64_t rows = x.size(0) * d.out_height, in_rows = x.size(0) * d.height;
  const int64_t pieces = std::min(kPieces, rows);
  if (want_weight) partial = at::zeros({pieces, taps, d.channels}, at::kFloat);
  float *sums = want_weight ? partial.data_ptr<float>() : nullptr;
  const float *weights = want_input ? w.const_data_ptr<float>() : nullptr;
  const void *px = x.const_data_ptr(), *pdy = dy.const_data_ptr();
  void *pdx = want_input ? dx.data_ptr() : nullptr;
  at::parallel_for(0, pieces, 1, [&](int64_t a, int64_t b) {
    for (int64_t i = a; i < b; ++i) {
      const int64_t begin = rows * i / pieces, end = rows * (i + 1) / pieces, bands = (end - begin + kBand - 1) / kBand;
      const int64_t in_begin = in_rows * i / pieces, in_count = in_rows * (i + 1) / pieces - in_begin;
      for (int64_t band = 0; band < bands; ++band) {
        const int64_t first = begin + band * kBand;
        if (want_weight)
          kernels().depthwise_grad_weight(d, px, pdy, sums + i * taps * d.channels, first,
                                          std::min(end, first + kBand));
        if (!want_input) continue;
        const int64_t from = in_begin + in_count * band / bands, to = in_begin + in_count * (band + 1) / bands;
        if (turn) kernels().depthwise_forward(t, pdy, weights, nullptr, NORM_NONE, 0, pdx, from, to);
        else kernels().depthwise_grad_input(d, pdy, weights, pdx, from, to);
      }
    }
  });
  at::Tensor dw;
  if (want_weight) dw = partial.sum(0).t().reshape(weight.sizes()).to(weight.scalar_type());
  return {dx, dw};
}

}  // namespace oarlock
