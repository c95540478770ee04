// Deformable convolution with modulation on a CPU (Zhu et al. 2019): sampled taps, times their factors, as rows
// of a matrix that is multiplied with the weight, image by image. The gradient of the map is divided by channels, so
// that its sums have one order, whatever the number of threads.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "guard.h"
#include "kernels/kernels.h"

using namespace oarlock;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr auto kLast = at::MemoryFormat::ChannelsLast;
constexpr int64_t kChannels = 64;  // of a piece of the map's gradient

// Stride, padding, dilation (height, width each).
using Numbers = std::array<int64_t, 6>;

struct Shape {
  int64_t channels, height, width, kernel_width, taps, out_height, out_width;
  Numbers conv;
  int64_t pixels() const { return out_height * out_width; }
};

Shape shape_of(const at::Tensor &x, const at::Tensor &factor, const at::Tensor &weight, const Numbers &conv) {
  return {x.size(1),      x.size(2),      x.size(3), weight.size(3), weight.size(2) * weight.size(3),
          factor.size(2), factor.size(3), conv};
}

// The pixels around a sample that lie on the map, their shares, and how these change as it moves down and right.
// Pixels outside count as 0; the rest of the four are any pixels of the map.
struct Sample {
  int64_t count;
  Term terms[4];
  float down[4], right[4];
};

void sample_at(const Shape &s, const float *offset, int64_t pixel, int64_t tap, Sample &out) {
  out.count = 0;
  const Numbers &c = s.conv;
  const int64_t row = pixel / s.out_width, column = pixel % s.out_width;
  const float y = float(row * c[0] - c[2] + tap / s.kernel_width * c[4]) + offset[2 * tap];
  const float x = float(column * c[1] - c[3] + tap % s.kernel_width * c[5]) + offset[2 * tap + 1];
  if (!(y > -1.0f && x > -1.0f && y < float(s.height) && x < float(s.width))) return;
  const int64_t top = int64_t(std::floor(y)), left = int64_t(std::floor(x));
  const float fy = y - float(top), fx = x - float(left);
  for (int k = 0; k < 4; ++k) {
    const int64_t r = top + k / 2, q = left + k % 2;
    if (r < 0 || q < 0 || r >= s.height || q >= s.width) continue;
    const float wy = k / 2 ? fy : 1.0f - fy, wx = k % 2 ? fx : 1.0f - fx;
    out.terms[out.count] = {(r * s.width + q) * s.channels, wy * wx};
    out.down[out.count] = k / 2 ? wx : -wx;
    out.right[out.count++] = k % 2 ? wy : -wy;
  }
}

int64_t grain(const Shape &s) { return std::max<int64_t>(1, (1 << 15) / (s.taps * s.channels + 1)); }

// What an image gives: pixels × (taps · channels).
void columns_of(const Shape &s, const char *x, bool bf16, const float *offset, const float *factor, char *columns) {
  const int64_t line = s.channels * (bf16 ? 2 : 4);
  at::parallel_for(0, s.pixels(), grain(s), [&](int64_t a, int64_t b) {
    Sample sample{};
    for (int64_t i = a; i < b; ++i)
      for (int64_t t = 0; t < s.taps; ++t) {
        char *out = columns + (i * s.taps + t) * line;
        const float by = factor[i * s.taps + t];
        sample_at(s, offset + i * 2 * s.taps, i, t, sample);
        for (Term &term : sample.terms) term.weight *= by;
        kernels().gather_rows(x, bf16, sample.terms, sample.count, s.channels, out);
      }
  });
}

// Gradients of offsets and factors of an image.
void place_grads(const Shape &s, const char *x, bool bf16, const float *offset, const float *factor,
                 const char *dcolumns, float *doffset, float *dfactor) {
  const int64_t line = s.channels * (bf16 ? 2 : 4);
  at::parallel_for(0, s.pixels(), grain(s), [&](int64_t a, int64_t b) {
    Sample sample{};
    for (int64_t i = a; i < b; ++i)
      for (int64_t t = 0; t < s.taps; ++t) {
        float dots[4], value = 0.0f, down = 0.0f, right = 0.0f;
        sample_at(s, offset + i * 2 * s.taps, i, t, sample);
        if (sample.count)
          kernels().dot_rows(x, bf16, sample.terms, s.channels, dcolumns + (i * s.taps + t) * line, dots);
        for (int64_t k = 0; k < sample.count; ++k) {
          value += sample.terms[k].weight * dots[k];
          down += sample.down[k] * dots[k];
          right += sample.right[k] * dots[k];
        }
        const float by = factor[i * s.taps + t];
        dfactor[i * s.taps + t] = value;
        doffset[i * 2 * s.taps + 2 * t] = by * down;
        doffset[i * 2 * s.taps + 2 * t + 1] = by * right;
      }
  });
}

// Gradient of an image.
void map_grad(const Shape &s, bool bf16, const float *offset, const float *factor, const char *dcolumns, float *dx) {
  const int64_t width = bf16 ? 2 : 4, pieces = (s.channels + kChannels - 1) / kChannels;
  at::parallel_for(0, pieces, 1, [&](int64_t a, int64_t b) {
    const int64_t first = a * kChannels, channels = std::min(s.channels, b * kChannels) - first;
    Sample sample{};
    for (int64_t i = 0; i < s.pixels(); ++i)
      for (int64_t t = 0; t < s.taps; ++t) {
        sample_at(s, offset + i * 2 * s.taps, i, t, sample);
        for (Term &term : sample.terms) term.weight *= factor[i * s.taps + t];
        const char *g = dcolumns + ((i * s.taps + t) * s.channels + first) * width;
        kernels().scatter_rows(dx + first, sample.terms, sample.count, channels, g, bf16);
      }
  });
}

// Rows of all pixels, views of channels-last maps.
at::Tensor rows(const at::Tensor &map) { return map.permute({0, 2, 3, 1}).reshape({map.size(0), -1, map.size(1)}); }

at::Tensor floats(const at::Tensor &map) { return map.to(at::kFloat).contiguous(kLast); }

// out × (taps · channels), the order of the columns.
at::Tensor matrix(const at::Tensor &weight) { return weight.permute({0, 2, 3, 1}).reshape({weight.size(0), -1}); }

struct DeformFunction : torch::autograd::Function<DeformFunction> {
  static at::Tensor forward(AutogradContext *ctx, const at::Tensor &input, const at::Tensor &offset,
                            const at::Tensor &factor, const at::Tensor &weight, const std::optional<at::Tensor> &bias,
                            const Numbers &conv) {
    const at::Tensor x = input.contiguous(kLast), o = floats(offset), f = floats(factor);
    ctx->save_for_backward({x, o, f, weight});
    ctx->saved_data["conv"] = std::vector<int64_t>(conv.begin(), conv.end());
    ctx->saved_data["bias"] = bias.has_value();
    ctx->saved_data["type"] = offset.scalar_type() == at::kBFloat16;
    const Shape s = shape_of(x, f, weight, conv);
    const bool bf16 = x.scalar_type() == at::kBFloat16;
    const at::Tensor w = matrix(weight).t();
    at::Tensor columns = at::empty({s.pixels(), s.taps * s.channels}, x.options());
    at::Tensor y = at::empty({x.size(0), weight.size(0), s.out_height, s.out_width}, x.options().memory_format(kLast));
    at::Tensor out = rows(y);
    for (int64_t n = 0; n < x.size(0); ++n) {
      columns_of(s, static_cast<const char *>(x.select(0, n).data_ptr()), bf16, o.select(0, n).data_ptr<float>(),
                 f.select(0, n).data_ptr<float>(), static_cast<char *>(columns.data_ptr()));
      at::Tensor image = out.select(0, n);
      if (bias)
        at::addmm_out(image, *bias, columns, w);
      else
        at::mm_out(image, columns, w);
    }
    return y;
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &o = saved[1], &f = saved[2], &weight = saved[3];
    const std::vector<int64_t> list = ctx->saved_data["conv"].toIntVector();
    Numbers conv;
    std::copy(list.begin(), list.end(), conv.begin());
    const Shape s = shape_of(x, f, weight, conv);
    const bool bf16 = x.scalar_type() == at::kBFloat16, want_x = ctx->needs_input_grad(0);
    const bool want_places = ctx->needs_input_grad(1) || ctx->needs_input_grad(2), want_w = ctx->needs_input_grad(3);
    const at::Tensor dy = grads[0].contiguous(kLast), g = rows(dy), w = matrix(weight);
    at::Tensor columns = at::empty({s.pixels(), s.taps * s.channels}, x.options());
    const auto single = at::TensorOptions(at::kFloat);
    at::Tensor dx, doffset = at::empty(o.sizes(), single.memory_format(kLast)),
                   dfactor = at::empty(f.sizes(), single.memory_format(kLast)), dw;
    if (want_x) dx = at::empty(x.sizes(), single.memory_format(kLast)).zero_();
    if (want_w) dw = at::zeros({weight.size(0), s.taps * s.channels}, single);
    for (int64_t n = 0; n < x.size(0); ++n) {
      const char *image = static_cast<const char *>(x.select(0, n).data_ptr());
      const float *offset = o.select(0, n).data_ptr<float>(), *factor = f.select(0, n).data_ptr<float>();
      if (want_w) {
        columns_of(s, image, bf16, offset, factor, static_cast<char *>(columns.data_ptr()));
        dw.add_(at::mm(g.select(0, n).t(), columns));
      }
      if (!want_x && !want_places) continue;
      at::mm_out(columns, g.select(0, n), w);
      const char *dcolumns = static_cast<const char *>(columns.data_ptr());
      if (want_places)
        place_grads(s, image, bf16, offset, factor, dcolumns, doffset.select(0, n).data_ptr<float>(),
                    dfactor.select(0, n).data_ptr<float>());
      if (want_x) map_grad(s, bf16, offset, factor, dcolumns, dx.select(0, n).data_ptr<float>());
    }
    if (want_w)
      dw = dw.reshape({weight.size(0), weight.size(2), weight.size(3), s.channels})
               .permute({0, 3, 1, 2})
               .to(weight.scalar_type());
    if (want_x) dx = dx.to(x.scalar_type());
    const auto places = ctx->saved_data["type"].toBool() ? at::kBFloat16 : at::kFloat;
    at::Tensor db;
    if (ctx->saved_data["bias"].toBool()) db = dy.sum({0, 2, 3});
    if (!want_places) return {dx, at::Tensor(), at::Tensor(), dw, db, at::Tensor()};
    return {dx, doffset.to(places), dfactor.to(places), dw, db, at::Tensor()};
  }
};

}  // namespace

extern "C" ok_status ok_deform_conv(ok_tensor input, ok_tensor offset, ok_tensor factor, ok_tensor weight,
                                    ok_tensor bias, const int64_t *conv, ok_tensor *output) {
  return guarded([&] {
    const at::Tensor &x = tensor(input), &o = tensor(offset), &f = tensor(factor), &w = tensor(weight);
    Numbers c;
    std::copy(conv, conv + 6, c.begin());
    const auto type = x.scalar_type();
    TORCH_CHECK(x.is_cpu() && x.dim() == 4 && x.numel() > 0 && (type == at::kFloat || type == at::kBFloat16) &&
                    w.scalar_type() == type && w.size(1) == x.size(1) && o.scalar_type() == f.scalar_type(),
                "a map and a weight of one type");
    const int64_t taps = w.size(2) * w.size(3);
    TORCH_CHECK(f.size(0) == x.size(0) && o.size(0) == x.size(0) && f.size(1) == taps && o.size(1) == 2 * taps &&
                    f.size(2) == o.size(2) && f.size(3) == o.size(3) && f.numel() > 0,
                "offsets and factors for each tap and output pixel");
    std::optional<at::Tensor> b;
    if (bias) b = tensor(bias);
    *output = give(DeformFunction::apply(x, o, f, w, b, c));
  });
}
