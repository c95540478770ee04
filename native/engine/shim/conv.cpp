// Convolutions for inference on a CPU: oneDNN's or, for depthwise ones, own kernels, with the sum and the activation
// inside, and the weight kept in the kernel's own order instead of being reordered at each call.
#include <ATen/core/dispatch/Dispatcher.h>

#include "depthwise.h"
#include "guard.h"

using namespace oarlock;

namespace {

using Ints = at::IntArrayRef;
using Scalars = torch::List<std::optional<at::Scalar>>;

template <typename Signature> auto op(const char *name, const char *overload) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).typed<Signature>();
}

struct Act {
  std::string name = "none";
  Scalars scalars;
  std::optional<std::string> algorithm;

  Act(int32_t act, double slope) {
    switch (act) {
      case -1: return;
      case OK_RELU: name = "relu"; return;
      case OK_RELU6:
        name = "hardtanh";
        scalars.push_back(std::optional<at::Scalar>(0.0));
        scalars.push_back(std::optional<at::Scalar>(6.0));
        return;
      case OK_HARD_SWISH: name = "hardswish"; return;
      case OK_SWISH: name = "swish"; return;
      case OK_SIGMOID: name = "sigmoid"; return;
      case OK_LEAKY_RELU:
        name = "leaky_relu";
        scalars.push_back(std::optional<at::Scalar>(slope));
        return;
    }
    TORCH_CHECK(false, "a convolution cannot apply activation ", act);
  }
};

std::optional<at::Tensor> optional(ok_tensor t) {
  return t ? std::optional<at::Tensor>(tensor(t)) : std::nullopt;
}

ConvNumbers numbers_of(const int64_t *conv) {
  ConvNumbers c;
  std::copy(conv, conv + 7, c.begin());
  return c;
}

// Weights of own kernels are packed as kh×kw×C; oneDNN's have four dimensions.
bool is_own(const at::Tensor &packed) { return packed.dim() == 3; }

at::Tensor own_conv(const at::Tensor &x, const at::Tensor &taps, const std::optional<at::Tensor> &bias,
                    const ConvNumbers &c, const at::Tensor *other, int32_t act, double slope) {
  NormAct inside = NORM_NONE;
  bool done = act < 0;
  if (!other && act >= 0) {
    done = true;
    switch (act) {
      case OK_RELU: inside = NORM_RELU; break;
      case OK_RELU6: inside = NORM_RELU6; break;
      case OK_LEAKY_RELU: inside = NORM_LEAKY; break;
      case OK_HARD_SWISH: inside = NORM_HARD_SWISH; break;
      default: done = false;
    }
  }
  at::Tensor b;
  if (bias) b = bias->to(at::kFloat).contiguous();
  at::Tensor y = depthwise_forward(x, taps, b, c, inside, float(slope));
  if (other) y.add_(*other);
  return done ? y : activate(y, act, slope, 0, true);
}

}  // namespace

extern "C" ok_status ok_conv_pack(ok_tensor input, ok_tensor weight, const int64_t *conv, ok_tensor *output) {
  return guarded([&] {
    at::NoGradGuard guard;
    static auto reorder = op<at::Tensor(const at::Tensor &, Ints, Ints, Ints, int64_t, at::OptionalIntArrayRef)>(
        "mkldnn::_reorder_convolution_weight", "");
    const at::Tensor &x = tensor(input), &w = tensor(weight);
    if (own_depthwise(x, w.sizes(), numbers_of(conv)) && own_forward_wins(x)) {
      *output = give(depthwise_taps(w));
      return;
    }
    const auto sizes = x.sizes();
    *output = give(reorder.call(tensor(weight).detach(), Ints(conv + 2, 2), Ints(conv, 2), Ints(conv + 4, 2), conv[6],
                                at::OptionalIntArrayRef(sizes)));
  });
}

extern "C" ok_status ok_conv_act(ok_tensor input, ok_tensor weight, ok_tensor bias, const int64_t *conv,
                                 ok_tensor other, int32_t act, double slope, ok_tensor *output) {
  return guarded([&] {
    at::NoGradGuard guard;
    static auto unary =
        op<at::Tensor(const at::Tensor &, const at::Tensor &, const std::optional<at::Tensor> &, Ints, Ints, Ints,
                      int64_t, std::string_view, Scalars, std::optional<std::string_view>)>(
            "mkldnn::_convolution_pointwise", "");
    static auto binary =
        op<at::Tensor(const at::Tensor &, const at::Tensor &, const at::Tensor &, const std::optional<at::Tensor> &,
                      Ints, Ints, Ints, int64_t, std::string_view, std::optional<at::Scalar>,
                      std::optional<std::string_view>, Scalars, std::optional<std::string_view>)>(
            "mkldnn::_convolution_pointwise", "binary");
    const Ints stride(conv, 2), padding(conv + 2, 2), dilation(conv + 4, 2);
    const auto b = optional(bias);
    if (is_own(tensor(weight))) {
      *output = give(own_conv(tensor(input), tensor(weight), b, numbers_of(conv), other ? &tensor(other) : nullptr, act,
                              slope));
      return;
    }
    const Act a(act, slope);
    if (!other) {
      *output = give(unary.call(tensor(input), tensor(weight), b, padding, stride, dilation, conv[6], a.name, a.scalars,
                                std::nullopt));
      return;
    }
    const at::Tensor &term = tensor(other);
    if (term.size(1) == 1 || (term.size(2) == 1 && term.size(3) == 1) || conv[6] > 1) {
      // oneDNN's sum inside the convolution refuses maps of a single pixel or channel ("could not create a memory"), and
      // libtorch knows no sum with ReLU for what it computes otherwise in bf16, among them depthwise convolutions.
      at::Tensor y = unary.call(tensor(input), tensor(weight), b, padding, stride, dilation, conv[6], "none", Scalars(),
                                std::nullopt);
      y.add_(term);
      if (act >= 0) y = activate(y, act, slope, 0, true);
      *output = give(y);
      return;
    }
    const std::optional<std::string_view> after =
        act < 0 ? std::nullopt : std::optional<std::string_view>(a.name);
    *output = give(binary.call(tensor(input), tensor(other), tensor(weight), b, padding, stride, dilation, conv[6],
                               "add", std::nullopt, after, a.scalars, std::nullopt));
  });
}
