// Squeeze-and-excitation (Hu et al. 2018): the mean over all pixels and the product with a gate of one value for each
// channel of an image, both with own backward passes.
//
// The input of a block has two gradients: dy · gate from the product and a constant from the mean. libtorch writes both
// as maps and adds them. Here the product's backward pass only computes the gate's gradient and leaves dy and the gate
// with the mean's, which always runs after it because the gate comes from the mean, and writes the sum at once.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>
#include <vector>

#include "guard.h"
#include "kernels/kernels.h"

using namespace oarlock;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr auto kLast = at::MemoryFormat::ChannelsLast;
// Pixels of one sum; an image's pieces do not depend on the number of threads.
constexpr int64_t kPixels = 256;

// What the product leaves for the mean's backward pass.
struct Left : torch::CustomClassHolder {
  at::Tensor dy, gate;
};

struct Images {
  int64_t count, pixels, channels;
  bool bf16;

  explicit Images(const at::Tensor &x)
      : count(x.size(0)), pixels(x.size(2) * x.size(3)), channels(x.size(1)),
        bf16(x.scalar_type() == at::kBFloat16) {}
  int64_t pieces() const { return (pixels + kPixels - 1) / kPixels; }
  int64_t bytes() const { return channels * (bf16 ? 2 : 4); }
  // Runs `body(image, piece, rows, offset in bytes)` for all pieces of all images in parallel.
  template <typename Body> void each(Body body) const {
    const int64_t grain = std::max<int64_t>(1, (1 << 15) / (std::min(pixels, kPixels) * channels));
    at::parallel_for(0, count * pieces(), grain, [&](int64_t a, int64_t b) {
      for (int64_t i = a; i < b; ++i) {
        const int64_t image = i / pieces(), piece = i % pieces(), first = piece * kPixels;
        body(image, piece, Rows{std::min(kPixels, pixels - first), channels, bf16},
             (image * pixels + first) * bytes());
      }
    });
  }
};

const char *bytes_of(const at::Tensor &t) { return static_cast<const char *>(t.const_data_ptr()); }
char *bytes_of(at::Tensor &t) { return static_cast<char *>(t.data_ptr()); }

bool own(const at::Tensor &x) {
  const auto type = x.scalar_type();
  return enabled(FAMILY_SE) && x.is_cpu() && x.dim() == 4 && x.numel() > 0 &&
         (type == at::kFloat || type == at::kBFloat16);
}

// N×C sums over an image's pieces, in their order.
at::Tensor together(const Images &m, const at::Tensor &partial) {
  return m.pieces() == 1 ? partial.select(1, 0) : partial.sum(1);
}

at::Tensor zeros(const Images &m) { return at::zeros({m.count, m.pieces(), m.channels}, at::kFloat); }

at::Tensor mean_of(const at::Tensor &x) {
  const Images m(x);
  at::Tensor partial = zeros(m);
  float *sums = partial.data_ptr<float>();
  const char *from = bytes_of(x);
  m.each([&](int64_t image, int64_t piece, Rows rows, int64_t at) {
    kernels().rows_sum(rows, from + at, sums + (image * m.pieces() + piece) * m.channels);
  });
  return together(m, partial).div(double(m.pixels)).to(x.scalar_type()).reshape({m.count, m.channels, 1, 1});
}

// N×C values in fp32.
at::Tensor values(const at::Tensor &gate, const Images &m) {
  return gate.reshape({m.count, m.channels}).to(at::kFloat).contiguous();
}

struct PoolFunction : torch::autograd::Function<PoolFunction> {
  static at::Tensor forward(AutogradContext *ctx, const at::Tensor &input) {
    ctx->saved_data["sizes"] = input.sizes().vec();
    ctx->saved_data["left"] = c10::IValue::make_capsule(c10::make_intrusive<Left>());
    return mean_of(input.contiguous(kLast));
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    const auto left = c10::static_intrusive_pointer_cast<Left>(ctx->saved_data["left"].toCapsule());
    const std::vector<int64_t> sizes = ctx->saved_data["sizes"].toIntVector();
    at::Tensor dx = at::empty(sizes, grads[0].options().memory_format(kLast));
    const Images m(dx);
    const at::Tensor shift = values(grads[0], m).div(double(m.pixels));
    const float *s = shift.const_data_ptr<float>(), *g = nullptr;
    const char *dy = nullptr;
    if (left->dy.defined()) dy = bytes_of(std::as_const(left->dy)), g = left->gate.const_data_ptr<float>();
    char *to = bytes_of(dx);
    m.each([&](int64_t image, int64_t, Rows rows, int64_t at) {
      kernels().rows_scale_grad(rows, dy ? dy + at : nullptr, g ? g + image * m.channels : nullptr,
                                s + image * m.channels, to + at);
    });
    left->dy = left->gate = at::Tensor();
    return {dx};
  }
};

// The place for the product's part in the mean's backward pass, if `pooled` comes from PoolFunction.
c10::intrusive_ptr<Left> place_in(const at::Tensor *pooled) {
  if (!pooled || !pooled->grad_fn()) return nullptr;
  auto *node = dynamic_cast<torch::autograd::CppNode<PoolFunction> *>(pooled->grad_fn().get());
  if (!node) return nullptr;
  return c10::static_intrusive_pointer_cast<Left>(node->ctx_.saved_data["left"].toCapsule());
}

struct GateAct {
  int64_t act;
  double a, b;

  at::Tensor apply(const at::Tensor &z) const {
    if (act == OK_SIGMOID) return z.sigmoid();
    return act == OK_HARD_SIGMOID ? z.mul(a).add_(b).clamp_(0, 1) : z;
  }
  at::Tensor grad(const at::Tensor &z, const at::Tensor &gate, const at::Tensor &dgate) const {
    if (act == OK_SIGMOID) return dgate * gate * (1 - gate);
    if (act != OK_HARD_SIGMOID) return dgate;
    const at::Tensor line = z.mul(a).add_(b);
    return at::where(line.ge(0).logical_and_(line.le(1)), dgate * a, 0.0);
  }
};

at::Tensor scaled(const at::Tensor &x, const at::Tensor &gate) {
  const Images m(x);
  at::Tensor y = at::empty_like(x, kLast);
  const float *g = gate.const_data_ptr<float>();
  const char *from = bytes_of(x);
  char *to = bytes_of(y);
  m.each([&](int64_t image, int64_t, Rows rows, int64_t at) {
    kernels().rows_scale(rows, from + at, g + image * m.channels, to + at);
  });
  return y;
}

struct ExciteFunction : torch::autograd::Function<ExciteFunction> {
  static at::Tensor forward(AutogradContext *ctx, const at::Tensor &input, const at::Tensor &gate,
                            c10::intrusive_ptr<Left> left, int64_t act, double a, double b) {
    const at::Tensor x = input.contiguous(kLast), z = values(gate, Images(x)), g = GateAct{act, a, b}.apply(z);
    ctx->save_for_backward({x, z, g});
    ctx->saved_data["act"] = act;
    ctx->saved_data["a"] = a;
    ctx->saved_data["b"] = b;
    ctx->saved_data["type"] = gate.scalar_type();
    if (left) ctx->saved_data["left"] = c10::IValue::make_capsule(left);
    return scaled(x, g);
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &z = saved[1], &gate = saved[2], dy = grads[0].contiguous(kLast);
    const Images m(x);
    const bool wants_gate = ctx->needs_input_grad(1);
    const bool later = wants_gate && ctx->saved_data.count("left") > 0;
    at::Tensor dx, partial = zeros(m);
    if (!later && ctx->needs_input_grad(0)) dx = at::empty_like(x, kLast);
    float *sums = partial.data_ptr<float>();
    const float *g = gate.const_data_ptr<float>();
    const char *px = bytes_of(x), *pdy = bytes_of(dy);
    char *pdx = dx.defined() ? bytes_of(dx) : nullptr;
    m.each([&](int64_t image, int64_t piece, Rows rows, int64_t at) {
      kernels().rows_gate_grad(rows, px + at, pdy + at, g + image * m.channels, pdx ? pdx + at : nullptr,
                               sums + (image * m.pieces() + piece) * m.channels);
    });
    if (later) {
      const auto left = c10::static_intrusive_pointer_cast<Left>(ctx->saved_data["left"].toCapsule());
      left->dy = dy;
      left->gate = gate;
    }
    const GateAct act{ctx->saved_data["act"].toInt(), ctx->saved_data["a"].toDouble(), ctx->saved_data["b"].toDouble()};
    at::Tensor dgate;
    if (wants_gate)
      dgate = act.grad(z, gate, together(m, partial))
                  .to(ctx->saved_data["type"].toScalarType())
                  .reshape({m.count, m.channels, 1, 1});
    const at::Tensor none;
    return {dx, dgate, none, none, none, none};
  }
};

}  // namespace

extern "C" ok_status ok_global_pool(ok_tensor input, ok_tensor *output) {
  return guarded([&] {
    const at::Tensor &x = tensor(input);
    if (!own(x)) *output = give(at::adaptive_avg_pool2d(x, {1, 1}));
    else if (at::GradMode::is_enabled() && x.requires_grad()) *output = give(PoolFunction::apply(x));
    else *output = give(mean_of(x.contiguous(kLast)));
  });
}

extern "C" ok_status ok_excite(ok_tensor input, ok_tensor gate, ok_tensor pooled, int32_t act, double a, double b,
                               ok_tensor *output) {
  return guarded([&] {
    const at::Tensor &x = tensor(input), &z = tensor(gate);
    TORCH_CHECK(act == -1 || act == OK_SIGMOID || act == OK_HARD_SIGMOID, "a gate cannot apply activation ", act);
    const bool fits = own(x) && z.dim() == 4 && z.scalar_type() == x.scalar_type() && z.size(0) == x.size(0) &&
                      z.size(1) == x.size(1) && z.size(2) == 1 && z.size(3) == 1;
    if (!fits) {
      *output = give(at::mul(x, act < 0 ? z : activate(z, act, a, b, false)));
      return;
    }
    if (at::GradMode::is_enabled() && (x.requires_grad() || z.requires_grad())) {
      *output = give(ExciteFunction::apply(x, z, place_in(pooled ? &tensor(pooled) : nullptr), int64_t(act), a, b));
    } else {
      const at::Tensor map = x.contiguous(kLast);
      *output = give(scaled(map, GateAct{act, a, b}.apply(values(z, Images(map)))));
    }
  });
}
