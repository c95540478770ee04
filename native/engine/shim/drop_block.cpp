// DropBlock: square blocks of single channels become zero.
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>

#include "guard.h"

using namespace oarlock;

namespace {

at::Generator seeded(const at::Tensor &x, uint64_t seed) {
  if (x.is_cpu()) return at::detail::createCPUGenerator(seed);
  at::Generator generator = at::globalContext().defaultGenerator(x.device()).clone();
  generator.set_current_seed(seed);
  return generator;
}

// Blocks begin where a centre is drawn so that they lie within the map; the rate of centres is the one that leaves
// `keep` of the values if blocks did not overlap (Ghiasi et al. 2018, equation 1).
at::Tensor mask_of(const at::Tensor &x, int64_t size, double keep, uint64_t seed) {
  const int64_t h = x.size(2), w = x.size(3), bh = std::min(size, h), bw = std::min(size, w);
  const double rate = (1.0 - keep) / double(bh * bw) * double(h) / double(h - bh + 1) * double(w) / double(w - bw + 1);
  at::Tensor hits = at::empty({x.size(0), x.size(1), h - bh + 1, w - bw + 1}, x.options().dtype(at::kFloat));
  hits.bernoulli_(std::min(1.0, rate), seeded(x, seed));
  const at::Tensor blocks = at::max_pool2d(at::constant_pad_nd(hits, {bw - 1, bw - 1, bh - 1, bh - 1}), {bh, bw}, {1, 1});
  const at::Tensor mask = 1 - blocks;
  // The mean stays; a mask without a one leaves nothing to scale.
  return (mask * (double(mask.numel()) / mask.sum().clamp_min(1.0)))
      .to(x.scalar_type(), false, false, at::MemoryFormat::ChannelsLast);
}

}  // namespace

extern "C" ok_status ok_drop_block(ok_tensor input, int64_t size, double keep, uint64_t seed, ok_tensor *output) {
  return guarded([&] {
    const at::Tensor &x = tensor(input);
    if (x.numel() == 0 || keep >= 1.0 || size < 1) {
      *output = give(x);
      return;
    }
    at::Tensor mask;
    {
      at::NoGradGuard guard;
      mask = mask_of(x, size, keep, seed);
    }
    *output = give(x * mask);
  });
}
