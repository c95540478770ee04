// Memory order, image normalisation, dropout, activations.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include "guard.h"

using namespace oarlock;

extern "C" ok_status ok_to_channels_last(ok_tensor input, ok_tensor *output) {
  return guarded([&] { *output = give(tensor(input).contiguous(at::MemoryFormat::ChannelsLast)); });
}

extern "C" ok_status ok_select_channels(ok_tensor input, const int64_t *channels, int64_t count, ok_tensor *output) {
  return guarded([&] {
    at::NoGradGuard guard;
    const at::Tensor &x = tensor(input);
    const int64_t before = x.size(1);
    for (int64_t i = 0; i < count; ++i) TORCH_CHECK(channels[i] >= 0 && channels[i] < before, "no channel ", channels[i]);
    if (!x.is_cpu() || x.scalar_type() != at::kFloat || x.dim() != 4 || !x.is_contiguous(at::MemoryFormat::ChannelsLast)) {
      const at::Tensor index = at::from_blob(const_cast<int64_t *>(channels), {count}, at::kLong).clone().to(x.device());
      const at::Tensor out = x.index_select(1, index);
      *output = give(out.dim() == 4 ? out.contiguous(at::MemoryFormat::ChannelsLast) : out);
      return;
    }
    // index_select goes channel by channel, which reads the whole map once for each.
    at::Tensor out = at::empty({x.size(0), count, x.size(2), x.size(3)}, x.options().memory_format(at::MemoryFormat::ChannelsLast));
    const float *from = x.const_data_ptr<float>();
    float *to = out.data_ptr<float>();
    at::parallel_for(0, x.size(0) * x.size(2) * x.size(3), (1 << 15) / (count + 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t pixel = begin; pixel < end; ++pixel)
        for (int64_t i = 0; i < count; ++i) to[pixel * count + i] = from[pixel * before + channels[i]];
    });
    *output = give(out);
  });
}

namespace {
template <typename T>
void normalize(const uint8_t *pixels, int64_t count, const float *mean, const float *std, T *out) {
  // A pixel has 256 values in 3 channels: look the results up.
  T table[3][256];
  for (int c = 0; c < 3; ++c)
    for (int v = 0; v < 256; ++v) table[c][v] = static_cast<T>((static_cast<float>(v) / 255.0f - mean[c]) / std[c]);
  at::parallel_for(0, count, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int c = 0; c < 3; ++c) out[3 * i + c] = table[c][pixels[3 * i + c]];
  });
}
}  // namespace

extern "C" ok_status ok_normalize(const uint8_t *pixels, int64_t n, int64_t h, int64_t w, const float *mean,
                                  const float *std, int32_t bf16, ok_tensor *output) {
  return guarded([&] {
    auto options = at::TensorOptions(bf16 ? at::kBFloat16 : at::kFloat).memory_format(at::MemoryFormat::ChannelsLast);
    at::Tensor out = at::empty({n, 3, h, w}, options);
    if (bf16)
      normalize(pixels, n * h * w, mean, std, out.data_ptr<at::BFloat16>());
    else
      normalize(pixels, n * h * w, mean, std, out.data_ptr<float>());
    *output = give(out);
  });
}

extern "C" ok_status ok_dropout(ok_tensor input, double p, uint64_t seed, ok_tensor *output) {
  return guarded([&] {
    const at::Tensor &x = tensor(input);
    at::Generator generator;
    if (x.is_cpu()) {
      generator = at::detail::createCPUGenerator(seed);
    } else {
      generator = at::globalContext().defaultGenerator(x.device()).clone();
      generator.set_current_seed(seed);
    }
    at::Tensor mask;
    {
      at::NoGradGuard guard;
      mask = at::empty_like(x).bernoulli_(1.0 - p, generator).div_(1.0 - p);
    }
    *output = give(x * mask);
  });
}

at::Tensor oarlock::activate(at::Tensor x, int32_t act, double a, double b, bool in_place) {
  switch (act) {
    case OK_RELU: return in_place ? x.relu_() : x.relu();
    case OK_RELU6: return in_place ? at::hardtanh_(x, 0, 6) : at::hardtanh(x, 0, 6);
    case OK_HARD_SWISH: return at::hardswish(x);
    case OK_HARD_SIGMOID: return x.mul(a).add_(b).clamp_(0, 1);
    case OK_SWISH: return at::silu(x);
    case OK_SIGMOID: return x.sigmoid();
    case OK_LEAKY_RELU: return in_place ? at::leaky_relu_(x, a) : at::leaky_relu(x, a);
    case OK_MISH: return at::mish(x);
  }
  TORCH_CHECK(false, "unknown activation ", act);
}

extern "C" ok_status ok_activation(ok_tensor input, int32_t act, double a, double b, int32_t in_place,
                                   ok_tensor *output) {
  return guarded([&] { *output = give(activate(tensor(input), act, a, b, in_place)); });
}
