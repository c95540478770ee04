// Convolutions for training on a CPU whose backward pass oneDNN computes slowly: depthwise ones get own kernels,
// weight gradients of 1×1 convolutions are matrix products over all pixels. Forward passes stay oneDNN's.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <vector>

#include "guard.h"
#include "kernels/kernels.h"

using namespace oarlock;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr int64_t kPieces = 32;
constexpr auto kLast = at::MemoryFormat::ChannelsLast;

// Stride, padding, dilation (height, width each), groups.
using Numbers = std::array<int64_t, 7>;
using Ints = at::IntArrayRef;

Ints stride(const Numbers &c) { return Ints(c.data(), 2); }
Ints padding(const Numbers &c) { return Ints(c.data() + 2, 2); }
Ints dilation(const Numbers &c) { return Ints(c.data() + 4, 2); }

bool is_depthwise(const at::Tensor &x, const at::Tensor &w, const Numbers &c) {
  const int64_t side = w.size(3);
  return c[6] == x.size(1) && w.size(0) == x.size(1) && c[6] > 1 && w.size(2) <= 7 &&
         (side == 3 || side == 5 || side == 7);
}

// In fp32 oneDNN's own kernel is as fast.
bool is_pointwise(const at::Tensor &w, const Numbers &c) {
  return w.scalar_type() == at::kBFloat16 && c[6] == 1 && w.size(2) == 1 && w.size(3) == 1 && c[2] == 0 && c[3] == 0;
}

Depthwise shape_of(const at::Tensor &x, const at::Tensor &w, const at::Tensor &dy, const Numbers &c) {
  return {x.size(1), x.size(2), x.size(3), dy.size(2), dy.size(3), w.size(2), w.size(3), c[0], c[1],
          c[2],      c[3],      c[4],      c[5],       x.scalar_type() == at::kBFloat16};
}

at::Tensor depthwise_input(const at::Tensor &x, const at::Tensor &w, const at::Tensor &dy, const Depthwise &d) {
  const at::Tensor taps = w.to(at::kFloat).reshape({d.channels, -1}).t().contiguous();
  at::Tensor dx = at::empty_like(x, kLast);
  const int64_t rows = x.size(0) * d.height;
  const int64_t grain = std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(1, d.width * d.channels));
  at::parallel_for(0, rows, grain, [&](int64_t a, int64_t b) {
    kernels().depthwise_grad_input(d, dy.data_ptr(), taps.data_ptr<float>(), dx.data_ptr(), a, b);
  });
  return dx;
}

// The sums go over a fixed number of pieces, so that results do not depend on the number of threads.
at::Tensor depthwise_weight(const at::Tensor &x, const at::Tensor &w, const at::Tensor &dy, const Depthwise &d) {
  const int64_t rows = x.size(0) * d.out_height, taps = d.kernel_height * d.kernel_width;
  const int64_t size = (rows + kPieces - 1) / kPieces, pieces = (rows + size - 1) / size;
  at::Tensor partial = at::zeros({pieces, taps, d.channels}, at::kFloat);
  float *sums = partial.data_ptr<float>();
  at::parallel_for(0, pieces, 1, [&](int64_t a, int64_t b) {
    for (int64_t i = a; i < b; ++i)
      kernels().depthwise_grad_weight(d, x.data_ptr(), dy.data_ptr(), sums + i * taps * d.channels, i * size,
                                      std::min(rows, (i + 1) * size));
  });
  return partial.sum(0).t().reshape(w.sizes()).to(w.scalar_type());
}

// Rows of channels of all pixels; a view where the map is dense and channels-last.
at::Tensor pixels(const at::Tensor &map) { return map.permute({0, 2, 3, 1}).reshape({-1, map.size(1)}); }

at::Tensor pointwise_weight(const at::Tensor &x, const at::Tensor &w, const at::Tensor &dy, const Numbers &c) {
  using at::indexing::Slice;
  at::Tensor seen = x;
  if (c[0] != 1 || c[1] != 1)
    seen = x.index({Slice(), Slice(), Slice(0, at::indexing::None, c[0]), Slice(0, at::indexing::None, c[1])})
               .contiguous(kLast);
  return at::mm(pixels(dy).t(), pixels(seen)).reshape(w.sizes());
}

struct ConvFunction : torch::autograd::Function<ConvFunction> {
  static at::Tensor forward(AutogradContext *ctx, const at::Tensor &x, const at::Tensor &w,
                            const std::optional<at::Tensor> &bias, const Numbers &c) {
    ctx->save_for_backward({x, w});
    ctx->saved_data["conv"] = std::vector<int64_t>(c.begin(), c.end());
    ctx->saved_data["bias"] = bias.has_value();
    return at::conv2d(x, w, bias, stride(c), padding(c), dilation(c), c[6]);
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &w = saved[1];
    const at::Tensor x = saved[0].contiguous(kLast), dy = grads[0].contiguous(kLast);
    const std::vector<int64_t> list = ctx->saved_data["conv"].toIntVector();
    Numbers c;
    std::copy(list.begin(), list.end(), c.begin());
    const bool want_x = ctx->needs_input_grad(0), want_w = ctx->needs_input_grad(1);
    at::Tensor dx, dw, db;
    if (is_depthwise(x, w, c)) {
      const Depthwise d = shape_of(x, w, dy, c);
      if (want_x) dx = depthwise_input(x, w, dy, d);
      if (want_w) dw = depthwise_weight(x, w, dy, d);
    } else {
      if (want_x)
        dx = std::get<0>(at::convolution_backward(dy, x, w, std::nullopt, stride(c), padding(c), dilation(c), false,
                                                  {0, 0}, c[6], {true, false, false}));
      if (want_w) dw = pointwise_weight(x, w, dy, c);
    }
    if (ctx->saved_data["bias"].toBool()) db = dy.sum({0, 2, 3});
    return {dx, dw, db, at::Tensor()};
  }
};

}  // namespace

extern "C" ok_status ok_conv(ok_tensor input, ok_tensor weight, ok_tensor bias, const int64_t *conv, ok_tensor *output) {
  return guarded([&] {
    const at::Tensor &x = tensor(input), &w = tensor(weight);
    Numbers c;
    std::copy(conv, conv + 7, c.begin());
    std::optional<at::Tensor> b;
    if (bias) b = tensor(bias);
    const auto type = x.scalar_type();
    const bool own = at::GradMode::is_enabled() && x.is_cpu() && x.dim() == 4 && x.numel() > 0 &&
                     (type == at::kFloat || type == at::kBFloat16) && w.scalar_type() == type &&
                     (is_depthwise(x, w, c) || is_pointwise(w, c));
    *output = give(own ? ConvFunction::apply(x, w, b, c)
                       : at::conv2d(x, w, b, stride(c), padding(c), dilation(c), c[6]));
  });
}
