// Convolutions for training on a CPU that oneDNN computes slowly: depthwise ones get own kernels, weight gradients of
// 1×1 convolutions are matrix products over all pixels.
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "depthwise.h"
#include "guard.h"

using namespace oarlock;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr auto kLast = at::MemoryFormat::ChannelsLast;

using Numbers = ConvNumbers;
using Ints = at::IntArrayRef;

Ints stride(const Numbers &c) { return Ints(c.data(), 2); }
Ints padding(const Numbers &c) { return Ints(c.data() + 2, 2); }
Ints dilation(const Numbers &c) { return Ints(c.data() + 4, 2); }

// In fp32 oneDNN's own kernel is as fast.
bool is_pointwise(const at::Tensor &w, const Numbers &c) {
  return enabled(FAMILY_POINTWISE) && w.scalar_type() == at::kBFloat16 && c[6] == 1 && w.size(2) == 1 && w.size(3) == 1 && c[2] == 0 && c[3] == 0;
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

at::Tensor own_forward(const at::Tensor &x, const at::Tensor &w, const std::optional<at::Tensor> &bias,
                       const Numbers &c) {
  at::Tensor b;
  if (bias) b = bias->detach().to(at::kFloat).contiguous();
  return depthwise_forward(x, depthwise_taps(w), b, c, NORM_NONE, 0);
}

struct ConvFunction : torch::autograd::Function<ConvFunction> {
  static at::Tensor forward(AutogradContext *ctx, const at::Tensor &x, const at::Tensor &w,
                            const std::optional<at::Tensor> &bias, const Numbers &c) {
    ctx->save_for_backward({x, w});
    ctx->saved_data["conv"] = std::vector<int64_t>(c.begin(), c.end());
    ctx->saved_data["bias"] = bias.has_value();
    const bool depthwise = own_depthwise(x, w.sizes(), c);
    ctx->saved_data["depthwise"] = depthwise;
    if (depthwise && own_forward_wins(x)) return own_forward(x, w, bias, c);
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
    if (ctx->saved_data["depthwise"].toBool()) {
      const DepthwiseGrads grads = depthwise_backward(x, w, dy, c, want_x, want_w);
      dx = grads.input;
      dw = grads.weight;
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
    const bool fits = x.is_cpu() && x.dim() == 4 && x.numel() > 0 && w.dim() == 4 && w.scalar_type() == type &&
                      (type == at::kFloat || type == at::kBFloat16);
    const bool depthwise = fits && own_depthwise(x, w.sizes(), c);
    if (at::GradMode::is_enabled() && (depthwise || (fits && is_pointwise(w, c))))
      *output = give(ConvFunction::apply(x, w, b, c));
    else
      *output = give(depthwise && own_forward_wins(x) ? own_forward(x, w, b, c) : at::conv2d(x, w, b, stride(c), padding(c), dilation(c), c[6]));
  });
}
