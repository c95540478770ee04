// Optimizer steps on all parameters at once: read the gradients in their compute type, update the fp32 master weights
// and their state, write the copies the next forward pass uses; one pass over memory. Parameters that lie one behind
// the other in one buffer are walked as such.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

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

// One parameter's memory; `end` counts the values up to its end, those of earlier parameters included.
struct Span {
  int64_t begin, end;
  float *weight;
  uint16_t *copy;
  at::Tensor owner;
  const char *grad;
  bool bf16;
  float *state[2];

  const void *grad_at(int64_t i) const { return grad + i * (bf16 ? 2 : 4); }
};

class Spans {
 public:
  void add(const ok_step &p) {
    at::Tensor &w = tensor(p.master);
    Span s;
    s.begin = total();
    s.end = s.begin + w.numel();
    s.weight = w.data_ptr<float>();
    s.copy = copy_of(w, tensor(p.compute));
    s.owner = aligned(tensor(p.grad), w);
    s.bf16 = s.owner.scalar_type() == at::kBFloat16;
    TORCH_CHECK(s.bf16 || s.owner.scalar_type() == at::kFloat, "optimizer step: unexpected type of gradient");
    s.grad = static_cast<const char *>(s.owner.data_ptr());
    for (int i = 0; i < 2; ++i) s.state[i] = p.state[i] ? tensor(p.state[i]).data_ptr<float>() : nullptr;
    spans_.push_back(std::move(s));
  }

  // Runs `body(span, first, count)` over all values in parallel.
  template <typename Body> void each(Body body) const {
    at::parallel_for(0, total(), kGrain, [&](int64_t a, int64_t b) {
      auto span = std::upper_bound(spans_.begin(), spans_.end(), a, [](int64_t at, const Span &s) { return at < s.end; });
      for (; span != spans_.end() && span->begin < b; ++span) {
        const int64_t first = std::max(a, span->begin), last = std::min(b, span->end);
        if (first < last) body(*span, first - span->begin, last - first);
      }
    });
  }

 private:
  int64_t total() const { return spans_.empty() ? 0 : spans_.back().end; }
  std::vector<Span> spans_;
};

// Runs `own` over the CPU parameters' memory and `plain` on each other parameter; those without gradient are left out:
// the loss does not depend on them.
template <typename Own, typename Plain>
void step(const ok_step *params, int64_t count, Own own, Plain plain) {
  at::NoGradGuard guard;
  Spans spans;
  for (int64_t i = 0; i < count; ++i) {
    const ok_step &p = params[i];
    if (!tensor(p.grad).defined()) continue;
    at::Tensor &w = tensor(p.master), &c = tensor(p.compute);
    if (w.is_cpu() && enabled(FAMILY_OPTIM)) {
      spans.add(p);
      continue;
    }
    plain(w, tensor(p.grad).to(at::kFloat), p);
    if (c.data_ptr() != w.data_ptr()) c.copy_(w);
  }
  spans.each(own);
}

}  // namespace

extern "C" ok_status ok_sgd_step(const ok_step *params, int64_t count, double lr, double momentum_factor,
                                 double weight_decay) {
  return guarded([&] {
    const SgdRates rates{float(lr), float(momentum_factor), float(weight_decay)};
    step(
        params, count,
        [&](const Span &s, int64_t i, int64_t n) {
          kernels().sgd(s.weight + i, s.copy ? s.copy + i : nullptr, s.grad_at(i), s.bf16, s.state[0] + i, n, rates);
        },
        [&](at::Tensor &w, at::Tensor d, const ok_step &p) {
          at::Tensor &m = tensor(p.state[0]);
          if (weight_decay != 0) d = d.add(w, weight_decay);
          m.mul_(momentum_factor).add_(d);
          w.sub_(m, lr);
        });
  });
}

extern "C" ok_status ok_adam_step(const ok_step *params, int64_t count, double lr, double beta1, double beta2,
                                  double eps, double weight_decay, int64_t number) {
  return guarded([&] {
    const double bias1 = 1.0 - std::pow(beta1, double(number)), bias2 = 1.0 - std::pow(beta2, double(number));
    const AdamRates rates{float(lr / bias1), float(beta1),        float(beta2),
                          float(eps),        float(weight_decay), float(std::sqrt(bias2))};
    step(
        params, count,
        [&](const Span &s, int64_t i, int64_t n) {
          kernels().adam(s.weight + i, s.copy ? s.copy + i : nullptr, s.grad_at(i), s.bf16, s.state[0] + i,
                         s.state[1] + i, n, rates);
        },
        [&](at::Tensor &w, at::Tensor d, const ok_step &p) {
          at::Tensor &m = tensor(p.state[0]), &s = tensor(p.state[1]);
          if (weight_decay != 0) d = d.add(w, weight_decay);
          m.lerp_(d, 1.0 - beta1);
          s.mul_(beta2).addcmul_(d, d, 1.0 - beta2);
          w.addcdiv_(m, s.sqrt().div_(std::sqrt(bias2)).add_(eps), -lr / bias1);
        });
  });
}
