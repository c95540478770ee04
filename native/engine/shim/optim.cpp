// Optimizer steps on one parameter: read the gradient in its compute type, update the fp32 master
// weight and its state, write the copy the next forward pass uses; one pass over memory.
#include <ATen/Parallel.h>

#include <cmath>

#include "guard.h"
#include "kernels/kernels.h"

using namespace oarlock;

namespace {

constexpr int64_t kGrain = 1 << 15;

// Gradients may come in another memory order than the parameter; the loops need one order.
at::Tensor aligned(const at::Tensor &grad, const at::Tensor &like) {
  if (grad.strides() == like.strides()) return grad;
  at::Tensor out = at::empty_strided(like.sizes(), like.strides(), grad.options());
  out.copy_(grad);
  return out;
}

// bf16 copy of the weights, or null where there is none.
uint16_t *copy_of(at::Tensor &master, at::Tensor &compute) {
  if (compute.data_ptr() == master.data_ptr()) return nullptr;
  TORCH_CHECK(compute.scalar_type() == at::kBFloat16, "optimizer step: the copy must be bf16");
  return static_cast<uint16_t *>(compute.data_ptr());
}

struct Gradient {
  at::Tensor owner;
  const char *data;
  bool bf16;

  Gradient(const at::Tensor &grad, const at::Tensor &like) : owner(aligned(grad, like)) {
    bf16 = owner.scalar_type() == at::kBFloat16;
    TORCH_CHECK(bf16 || owner.scalar_type() == at::kFloat, "optimizer step: unexpected type of gradient");
    data = static_cast<const char *>(owner.data_ptr());
  }
  const void *at(int64_t i) const { return data + i * (bf16 ? 2 : 4); }
};

}  // namespace

extern "C" ok_status ok_sgd_step(ok_tensor master, ok_tensor compute, ok_tensor grad, ok_tensor momentum, double lr,
                                 double momentum_factor, double weight_decay) {
  return guarded([&] {
    if (!tensor(grad).defined()) return;  // a weight the loss does not depend on
    at::NoGradGuard guard;
    at::Tensor &w = tensor(master), &c = tensor(compute), &m = tensor(momentum);
    if (!w.is_cpu()) {
      at::Tensor d = tensor(grad).to(at::kFloat);
      if (weight_decay != 0) d = d.add(w, weight_decay);
      m.mul_(momentum_factor).add_(d);
      w.sub_(m, lr);
      if (c.data_ptr() != w.data_ptr()) c.copy_(w);
      return;
    }
    const Gradient g(tensor(grad), w);
    float *pw = w.data_ptr<float>(), *pv = m.data_ptr<float>();
    uint16_t *pc = copy_of(w, c);
    const SgdRates rates{float(lr), float(momentum_factor), float(weight_decay)};
    at::parallel_for(0, w.numel(), kGrain, [&](int64_t a, int64_t b) {
      kernels().sgd(pw + a, pc ? pc + a : nullptr, g.at(a), g.bf16, pv + a, b - a, rates);
    });
  });
}

extern "C" ok_status ok_adam_step(ok_tensor master, ok_tensor compute, ok_tensor grad, ok_tensor exp_avg,
                                  ok_tensor exp_avg_sq, double lr, double beta1, double beta2, double eps,
                                  double weight_decay, int64_t step) {
  return guarded([&] {
    if (!tensor(grad).defined()) return;  // a weight the loss does not depend on
    at::NoGradGuard guard;
    at::Tensor &w = tensor(master), &c = tensor(compute), &m = tensor(exp_avg), &s = tensor(exp_avg_sq);
    const double bias1 = 1.0 - std::pow(beta1, double(step)), bias2 = 1.0 - std::pow(beta2, double(step));
    if (!w.is_cpu()) {
      at::Tensor d = tensor(grad).to(at::kFloat);
      if (weight_decay != 0) d = d.add(w, weight_decay);
      m.lerp_(d, 1.0 - beta1);
      s.mul_(beta2).addcmul_(d, d, 1.0 - beta2);
      w.addcdiv_(m, s.sqrt().div_(std::sqrt(bias2)).add_(eps), -lr / bias1);
      if (c.data_ptr() != w.data_ptr()) c.copy_(w);
      return;
    }
    const Gradient g(tensor(grad), w);
    float *pw = w.data_ptr<float>(), *pm = m.data_ptr<float>(), *ps = s.data_ptr<float>();
    uint16_t *pc = copy_of(w, c);
    const AdamRates rates{float(lr / bias1), float(beta1),        float(beta2),
                          float(eps),        float(weight_decay), float(std::sqrt(bias2))};
    at::parallel_for(0, w.numel(), kGrain, [&](int64_t a, int64_t b) {
      kernels().adam(pw + a, pc ? pc + a : nullptr, g.at(a), g.bf16, pm + a, ps + a, b - a, rates);
    });
  });
}
