// Optimizer steps on one parameter: read the gradient in its compute type, update the fp32 master
// weight and its state, write the copy the next forward pass uses; one pass over memory.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <cmath>

#include "guard.h"

using namespace oarlock;

namespace {

// Gradients may come in another memory order than the parameter; the loops below need one order.
at::Tensor aligned(const at::Tensor &grad, const at::Tensor &like) {
  if (grad.strides() == like.strides()) return grad;
  at::Tensor out = at::empty_strided(like.sizes(), like.strides(), grad.options());
  out.copy_(grad);
  return out;
}

template <typename G, typename C, typename Body>
void each(at::Tensor &master, at::Tensor &compute, const at::Tensor &grad, Body body) {
  float *w = master.data_ptr<float>();
  C *c = compute.data_ptr<C>();
  const G *g = grad.data_ptr<G>();
  const bool copy = static_cast<void *>(w) != static_cast<void *>(c);
  at::parallel_for(0, master.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    if (copy)
      for (int64_t i = begin; i < end; ++i) c[i] = static_cast<C>(w[i] = body(i, w[i], static_cast<float>(g[i])));
    else
      for (int64_t i = begin; i < end; ++i) w[i] = body(i, w[i], static_cast<float>(g[i]));
  });
}

template <typename Body>
void each_typed(at::Tensor &master, at::Tensor &compute, const at::Tensor &grad, Body body) {
  const bool cb = compute.scalar_type() == at::kBFloat16, gb = grad.scalar_type() == at::kBFloat16;
  if (cb && gb) return each<at::BFloat16, at::BFloat16>(master, compute, grad, body);
  if (!cb && !gb) return each<float, float>(master, compute, grad, body);
  TORCH_CHECK(false, "optimizer step: gradient and parameter differ in type");
}

}  // namespace

extern "C" ok_status ok_sgd_step(ok_tensor master, ok_tensor compute, ok_tensor grad, ok_tensor momentum, double lr,
                                 double momentum_factor, double weight_decay, int32_t first) {
  return guarded([&] {
    at::NoGradGuard guard;
    at::Tensor &w = tensor(master), &c = tensor(compute), &m = tensor(momentum);
    at::Tensor g = aligned(tensor(grad), w);
    if (!w.is_cpu()) {
      at::Tensor d = g.to(at::kFloat);
      if (weight_decay != 0) d = d.add(w, weight_decay);
      if (first) m.copy_(d);
      else m.mul_(momentum_factor).add_(d);
      w.sub_(m, lr);
      if (c.data_ptr() != w.data_ptr()) c.copy_(w);
      return;
    }
    float *v = m.data_ptr<float>();
    const float rate = lr, mu = momentum_factor, decay = weight_decay;
    if (first)
      each_typed(w, c, g, [=](int64_t i, float p, float d) { return p - rate * (v[i] = d + decay * p); });
    else
      each_typed(w, c, g, [=](int64_t i, float p, float d) { return p - rate * (v[i] = mu * v[i] + (d + decay * p)); });
  });
}

extern "C" ok_status ok_adam_step(ok_tensor master, ok_tensor compute, ok_tensor grad, ok_tensor exp_avg,
                                  ok_tensor exp_avg_sq, double lr, double beta1, double beta2, double eps,
                                  double weight_decay, int64_t step) {
  return guarded([&] {
    at::NoGradGuard guard;
    at::Tensor &w = tensor(master), &c = tensor(compute), &m = tensor(exp_avg), &s = tensor(exp_avg_sq);
    at::Tensor g = aligned(tensor(grad), w);
    const double c1 = 1.0 - std::pow(beta1, static_cast<double>(step));
    const double c2 = 1.0 - std::pow(beta2, static_cast<double>(step));
    if (!w.is_cpu()) {
      at::Tensor d = g.to(at::kFloat);
      if (weight_decay != 0) d = d.add(w, weight_decay);
      m.lerp_(d, 1.0 - beta1);
      s.mul_(beta2).addcmul_(d, d, 1.0 - beta2);
      w.addcdiv_(m, s.sqrt().div_(std::sqrt(c2)).add_(eps), -lr / c1);
      if (c.data_ptr() != w.data_ptr()) c.copy_(w);
      return;
    }
    float *a = m.data_ptr<float>(), *b = s.data_ptr<float>();
    const float b1 = beta1, b2 = beta2, rate = lr / c1, root = std::sqrt(c2), e = eps, decay = weight_decay;
    each_typed(w, c, g, [=](int64_t i, float p, float d) {
      d += decay * p;
      a[i] += (1.0f - b1) * (d - a[i]);
      b[i] = b2 * b[i] + (1.0f - b2) * d * d;
      return p - rate * a[i] / (std::sqrt(b[i]) / root + e);
    });
  });
}
