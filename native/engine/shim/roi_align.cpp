// RoIAlign on a CPU (He et al. 2017). The samples of a cell are merged into weights for its rows and columns of
// pixels, so that each pixel is read once for each cell. The backward pass is divided by channels: its sums
// have one order, whatever the number of threads.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "guard.h"
#include "kernels/kernels.h"

using namespace oarlock;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr auto kLast = at::MemoryFormat::ChannelsLast;
constexpr int64_t kMostLevels = 8;
constexpr float kMostSamples = 1 << 14;
constexpr int64_t kChannels = 64;  // of a piece of the backward pass

struct Pooling {
  int64_t levels, height, width, sampling;
  bool aligned;
  int64_t strides[kMostLevels];
  float areas[kMostLevels];
};

// Pixels that each cell reads along one axis.
struct Axis {
  std::vector<float> weights;  // cells × size
  std::vector<int64_t> first, end;

  void reset(int64_t cells, int64_t size) {
    weights.assign(cells * size, 0.0f);
    first.assign(cells, size);
    end.assign(cells, 0);
  }

  void fill(float low, float high, int64_t cells, int64_t size, const Pooling &p) {
    reset(cells, size);
    float length = high - low;
    if (p.aligned)
      low -= 0.5f;
    else
      length = std::max(length, 1.0f);
    const float cell = length / float(cells);
    const float wanted = p.sampling > 0 ? float(p.sampling) : std::ceil(cell);
    const int64_t samples = int64_t(std::min(std::max(wanted, 0.0f), kMostSamples));
    const float share = 1.0f / float(std::max<int64_t>(samples, 1));
    for (int64_t i = 0; i < cells; ++i)
      for (int64_t s = 0; s < samples; ++s) {
        float at = low + float(i) * cell + (float(s) + 0.5f) * cell / float(samples);
        if (!(at >= -1.0f && at <= float(size))) continue;
        at = std::min(std::max(at, 0.0f), float(size - 1));
        const int64_t lower = int64_t(at), upper = std::min(lower + 1, size - 1);
        const float second = (at - float(lower)) * share;
        weights[i * size + lower] += share - second;
        weights[i * size + upper] += second;
        first[i] = std::min(first[i], lower);
        end[i] = std::max(end[i], upper + 1);
      }
  }
};

struct Region {
  int64_t level = 0, image = 0;
  Axis y, x;

  void of(const float *roi, const Pooling &p, const std::vector<at::Tensor> &maps) {
    float v[5];
    for (int i = 0; i < 5; ++i) v[i] = std::isfinite(roi[i]) ? roi[i] : 0.0f;
    const float area = std::max(v[3] - v[1], 0.0f) * std::max(v[4] - v[2], 0.0f);
    level = 0;
    for (int64_t l = 0; l + 1 < p.levels; ++l) level += area >= p.areas[l];
    const at::Tensor &map = maps[level];
    image = int64_t(std::min(std::max(v[0], 0.0f), float(map.size(0) - 1)));
    const float scale = 1.0f / float(p.strides[level]);
    y.fill(v[2] * scale, v[4] * scale, p.height, map.size(2), p);
    x.fill(v[1] * scale, v[3] * scale, p.width, map.size(3), p);
  }

  // The pixels of cell (i, j) in the map of its level.
  void terms(int64_t i, int64_t j, const at::Tensor &map, std::vector<Term> &out) const {
    const int64_t C = map.size(1), H = map.size(2), W = map.size(3);
    out.clear();
    for (int64_t r = y.first[i]; r < y.end[i]; ++r)
      for (int64_t c = x.first[j]; c < x.end[j]; ++c) {
        const float weight = y.weights[i * H + r] * x.weights[j * W + c];
        if (weight != 0.0f) out.push_back({((image * H + r) * W + c) * C, weight});
      }
  }
};

std::vector<at::Tensor> dense(at::TensorList levels) {
  std::vector<at::Tensor> maps;
  for (const at::Tensor &level : levels) maps.push_back(level.contiguous(kLast));
  return maps;
}

at::Tensor pool(const at::Tensor &rois, const std::vector<at::Tensor> &maps, const Pooling &p) {
  const int64_t count = rois.size(0), C = maps[0].size(1);
  const bool bf16 = maps[0].scalar_type() == at::kBFloat16;
  at::Tensor y = at::empty({count, C, p.height, p.width}, maps[0].options().memory_format(kLast));
  char *out = static_cast<char *>(y.data_ptr());
  const float *boxes = rois.data_ptr<float>();
  const int64_t line = C * (bf16 ? 2 : 4);
  at::parallel_for(0, count, 1, [&](int64_t a, int64_t b) {
    Region region;
    std::vector<Term> terms;
    for (int64_t k = a; k < b; ++k) {
      region.of(boxes + 5 * k, p, maps);
      const at::Tensor &map = maps[region.level];
      for (int64_t i = 0; i < p.height; ++i)
        for (int64_t j = 0; j < p.width; ++j) {
          region.terms(i, j, map, terms);
          kernels().gather_rows(map.data_ptr(), bf16, terms.data(), int64_t(terms.size()), C,
                                out + ((k * p.height + i) * p.width + j) * line);
        }
    }
  });
  return y;
}

variable_list spread(const at::Tensor &rois, const std::vector<at::Tensor> &maps, const at::Tensor &dy,
                     const Pooling &p) {
  const int64_t count = rois.size(0), C = maps[0].size(1);
  const bool bf16 = dy.scalar_type() == at::kBFloat16;
  variable_list grads;
  for (const at::Tensor &map : maps)
    grads.push_back(at::empty(map.sizes(), at::TensorOptions(at::kFloat).memory_format(kLast)).zero_());
  const char *g = static_cast<const char *>(dy.data_ptr());
  const float *boxes = rois.data_ptr<float>();
  const int64_t width = bf16 ? 2 : 4, pieces = (C + kChannels - 1) / kChannels;
  at::parallel_for(0, pieces, 1, [&](int64_t a, int64_t b) {
    const int64_t first = a * kChannels, channels = std::min(C, b * kChannels) - first;
    Region region;
    std::vector<Term> terms;
    for (int64_t k = 0; k < count; ++k) {
      region.of(boxes + 5 * k, p, maps);
      float *out = grads[region.level].data_ptr<float>() + first;
      for (int64_t i = 0; i < p.height; ++i)
        for (int64_t j = 0; j < p.width; ++j) {
          region.terms(i, j, maps[region.level], terms);
          kernels().scatter_rows(out, terms.data(), int64_t(terms.size()), channels,
                                 g + (((k * p.height + i) * p.width + j) * C + first) * width, bf16);
        }
    }
  });
  if (bf16)
    for (at::Tensor &grad : grads) grad = grad.to(at::kBFloat16);
  return grads;
}

struct RoiAlignFunction : torch::autograd::Function<RoiAlignFunction> {
  static at::Tensor forward(AutogradContext *ctx, const at::Tensor &rois, at::TensorList levels, const Pooling &p) {
    const std::vector<at::Tensor> maps = dense(levels);
    variable_list saved = maps;
    saved.push_back(rois);
    ctx->save_for_backward(saved);
    const auto raw = reinterpret_cast<const char *>(&p);
    ctx->saved_data["pooling"] = std::string(raw, raw + sizeof p);
    return pool(rois, maps, p);
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    variable_list maps = ctx->get_saved_variables();
    const at::Tensor rois = maps.back();
    maps.pop_back();
    Pooling p;
    const std::string raw = ctx->saved_data["pooling"].toStringRef();
    std::memcpy(&p, raw.data(), sizeof p);
    variable_list out = {at::Tensor()};
    for (at::Tensor &grad : spread(rois, maps, grads[0].contiguous(kLast), p)) out.push_back(grad);
    out.push_back(at::Tensor());
    return out;
  }
};

}  // namespace

extern "C" ok_status ok_roi_align(ok_tensor rois, const ok_tensor *levels, const int64_t *strides, const float *areas,
                                  int64_t count, int64_t height, int64_t width, int64_t sampling, int32_t aligned,
                                  ok_tensor *output) {
  return guarded([&] {
    TORCH_CHECK(count >= 1 && count <= kMostLevels, "regions need 1 to ", kMostLevels, " maps");
    Pooling p = {count, height, width, sampling, aligned != 0, {}, {}};
    variable_list maps;
    for (int64_t l = 0; l < count; ++l) {
      maps.push_back(tensor(levels[l]));
      p.strides[l] = strides[l];
      if (l + 1 < count) p.areas[l] = areas[l];
      TORCH_CHECK(maps[l].is_cpu() && maps[l].dim() == 4 && maps[l].numel() > 0 &&
                      maps[l].size(1) == maps[0].size(1) && maps[l].scalar_type() == maps[0].scalar_type(),
                  "maps of one type and number of channels");
    }
    const at::Tensor boxes = tensor(rois).detach().to(at::kFloat).contiguous();
    TORCH_CHECK(boxes.is_cpu() && boxes.dim() == 2 && boxes.size(1) == 5, "regions must be Kx5");
    // As a list: the maps of a vector would not be seen as inputs with gradients.
    *output = give(RoiAlignFunction::apply(boxes, at::TensorList(maps), p));
  });
}
