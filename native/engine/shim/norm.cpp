// Batch norm, residual sum and activation in one operation with its own backward pass.
//
// libtorch runs them as three operations that each read and write the whole map, and its batch norm of
// channels-last maps reads it three times. Here the forward pass reads the map twice and writes once; the
// backward pass needs no separate pass for the activation, whose slope it computes anew from the input. Sums go over a fixed number of pieces that does not
// depend on the number of threads, so results do not either.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "guard.h"
#include "kernels/kernels.h"

using namespace oarlock;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr int64_t kPieces = 64;
constexpr int64_t kMinRows = 32;

struct Pieces {
  int64_t rows, size, count;
  explicit Pieces(int64_t rows) : rows(rows) {
    size = std::max(kMinRows, (rows + kPieces - 1) / kPieces);
    count = (rows + size - 1) / size;
  }
  int64_t begin(int64_t i) const { return i * size; }
  int64_t length(int64_t i) const { return std::min(size, rows - i * size); }
};

struct Map {
  at::Tensor owner;
  char *data;
  explicit Map(const at::Tensor &t)
      : owner(t.contiguous(at::MemoryFormat::ChannelsLast)), data(static_cast<char *>(owner.data_ptr())) {}
};

NormRows shape_of(const at::Tensor &x, int64_t act, double slope) {
  return {x.size(0) * x.size(2) * x.size(3), x.size(1), x.scalar_type() == at::kBFloat16, NormAct(act), float(slope)};
}

NormRows part(NormRows m, int64_t rows) {
  m.rows = rows;
  return m;
}

at::Tensor floats(int64_t n) { return at::empty({n}, at::kFloat); }

struct Statistics {
  std::vector<double> mean, square;  // of each channel; squared differences from the mean, summed
};

// Pieces are joined in their order (Chan, Golub and LeVeque 1983).
Statistics statistics(const NormRows &m, const char *x, int64_t line) {
  const Pieces pieces(m.rows);
  const int64_t C = m.channels;
  std::vector<double> partial(pieces.count * 2 * C);
  at::parallel_for(0, pieces.count, 1, [&](int64_t a, int64_t b) {
    for (int64_t i = a; i < b; ++i) {
      double *mean = partial.data() + i * 2 * C;
      kernels().norm_stats(part(m, pieces.length(i)), x + pieces.begin(i) * line, mean, mean + C);
    }
  });
  Statistics all{std::vector<double>(C, 0.0), std::vector<double>(C, 0.0)};
  for (int64_t i = 0; i < pieces.count; ++i) {
    const double *mean = partial.data() + i * 2 * C, before = double(pieces.begin(i)), rows = double(pieces.length(i));
    const double share = rows / (before + rows);
    for (int64_t c = 0; c < C; ++c) {
      const double step = mean[c] - all.mean[c];
      all.mean[c] += step * share;
      all.square[c] += mean[C + c] + step * step * before * share;
    }
  }
  return all;
}

// Runs `body(piece, sums, products)` on all pieces in parallel and adds the pieces' sums in their order.
template <typename Body>
void summed(const NormRows &m, double *sums, double *products, Body body) {
  const Pieces pieces(m.rows);
  std::vector<float> partial(pieces.count * 2 * m.channels, 0.0f);
  at::parallel_for(0, pieces.count, 1, [&](int64_t a, int64_t b) {
    for (int64_t i = a; i < b; ++i) {
      float *s = partial.data() + i * 2 * m.channels;
      body(pieces, i, s, s + m.channels);
    }
  });
  for (int64_t i = 0; i < pieces.count; ++i) {
    const float *s = partial.data() + i * 2 * m.channels;
    for (int64_t c = 0; c < m.channels; ++c) sums[c] += s[c], products[c] += s[m.channels + c];
  }
}

struct NormActFunction : torch::autograd::Function<NormActFunction> {
  static at::Tensor forward(AutogradContext *ctx, const at::Tensor &input, const at::Tensor &gamma,
                            const at::Tensor &beta, const std::optional<at::Tensor> &residual,
                            const at::Tensor &running_mean, const at::Tensor &running_var, bool train,
                            double momentum, double eps, int64_t act, double slope) {
    const Map x(input);
    const NormRows m = shape_of(x.owner, act, slope);
    const int64_t C = m.channels, width = m.bf16 ? 2 : 4, line = C * width;
    at::Tensor scale = floats(C), shift = floats(C), mean = floats(C), invstd = floats(C);
    float *ps = scale.data_ptr<float>(), *pt = shift.data_ptr<float>(), *pm = mean.data_ptr<float>(),
          *pi = invstd.data_ptr<float>();
    float *rm = running_mean.data_ptr<float>(), *rv = running_var.data_ptr<float>();
    if (train) {
      const Statistics all = statistics(m, x.data, line);
      const double n = double(m.rows);
      for (int64_t c = 0; c < C; ++c) {
        const double var = all.square[c] < 0.0 ? 0.0 : all.square[c] / n;  // NaN stays
        pm[c] = float(all.mean[c]);
        pi[c] = float(1.0 / std::sqrt(var + eps));
        rm[c] = float((1.0 - momentum) * rm[c] + momentum * all.mean[c]);
        rv[c] = float((1.0 - momentum) * rv[c] + momentum * var * (m.rows > 1 ? n / (n - 1.0) : 1.0));
      }
    } else {
      for (int64_t c = 0; c < C; ++c) pm[c] = rm[c], pi[c] = float(1.0 / std::sqrt(double(rv[c]) + eps));
    }
    const float *g = gamma.data_ptr<float>(), *b = beta.data_ptr<float>();
    for (int64_t c = 0; c < C; ++c) ps[c] = g[c] * pi[c], pt[c] = b[c] - pm[c] * ps[c];

    at::Tensor y = at::empty_like(x.owner, at::MemoryFormat::ChannelsLast);
    char *py = static_cast<char *>(y.data_ptr());
    std::optional<Map> r;
    if (residual) r.emplace(*residual);
    const Pieces pieces(m.rows);
    at::parallel_for(0, pieces.count, 1, [&](int64_t a, int64_t e) {
      for (int64_t i = a; i < e; ++i) {
        const int64_t at = pieces.begin(i) * line;
        kernels().norm_apply(part(m, pieces.length(i)), x.data + at, r ? r->data + at : nullptr, py + at, ps, pt);
      }
    });
    // Behind a sum the activation's input cannot be computed anew from x alone.
    const bool needs_y = act != NORM_NONE && act != NORM_HARD_SWISH && residual.has_value();
    ctx->save_for_backward({x.owner, needs_y ? y : at::Tensor(), gamma, mean, invstd, scale, shift});
    ctx->saved_data["act"] = act;
    ctx->saved_data["slope"] = slope;
    ctx->saved_data["train"] = train;
    ctx->saved_data["residual"] = residual.has_value();
    return y;
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const int64_t act = ctx->saved_data["act"].toInt();
    const bool train = ctx->saved_data["train"].toBool(), has_residual = ctx->saved_data["residual"].toBool();
    const Map x(saved[0]), dy(grads[0]);
    NormRows m = shape_of(x.owner, act, ctx->saved_data["slope"].toDouble());
    m.recompute = !has_residual && act != NORM_NONE;
    const int64_t C = m.channels, width = m.bf16 ? 2 : 4, line = C * width;
    const char *y = saved[1].defined() ? static_cast<const char *>(saved[1].data_ptr()) : dy.data;
    const float *gamma = saved[2].data_ptr<float>(), *mean = saved[3].data_ptr<float>(),
                *invstd = saved[4].data_ptr<float>(), *scale = saved[5].data_ptr<float>(),
                *shift = saved[6].data_ptr<float>();

    std::vector<double> sum(C, 0.0), product(C, 0.0);
    summed(m, sum.data(), product.data(), [&](const Pieces &p, int64_t i, float *s, float *q) {
      const int64_t at = p.begin(i) * line;
      kernels().norm_grad_stats(part(m, p.length(i)), x.data + at, y + at, dy.data + at, scale, shift, mean, s, q);
    });
    at::Tensor dgamma = floats(C), dbeta = floats(C), a = floats(C), b = floats(C), c = floats(C);
    float *pg = dgamma.data_ptr<float>(), *pb = dbeta.data_ptr<float>(), *pa = a.data_ptr<float>(),
          *pk = b.data_ptr<float>(), *pc = c.data_ptr<float>();
    const double n = double(m.rows);
    for (int64_t i = 0; i < C; ++i) {
      const double s = invstd[i], f = gamma[i] * s;
      pg[i] = float(product[i] * s);
      pb[i] = float(sum[i]);
      pa[i] = float(f);
      // dx = f · (g − mean(g) − (x − mean) · s² · mean(g · (x − mean))); constant statistics leave f · g.
      pk[i] = train ? float(-f * s * s * product[i] / n) : 0.0f;
      pc[i] = train ? float(-f * sum[i] / n - double(pk[i]) * mean[i]) : 0.0f;
    }
    at::Tensor dx = at::empty_like(x.owner, at::MemoryFormat::ChannelsLast), dr;
    // Without an activation the sum hands its gradient on as it is.
    if (has_residual) dr = act == NORM_NONE ? dy.owner : at::empty_like(dx, at::MemoryFormat::ChannelsLast);
    char *px = static_cast<char *>(dx.data_ptr());
    char *pr = has_residual && act != NORM_NONE ? static_cast<char *>(dr.data_ptr()) : nullptr;
    const Pieces pieces(m.rows);
    at::parallel_for(0, pieces.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = pieces.begin(i) * line;
        kernels().norm_grad_apply(part(m, pieces.length(i)), x.data + at, y + at, dy.data + at, scale, shift, pa, pk, pc,
                                  px + at, pr ? pr + at : nullptr);
      }
    });
    const at::Tensor none;
    return {dx, dgamma, dbeta, dr, none, none, none, none, none, none, none};
  }
};

at::Tensor plain(const at::Tensor &x, const at::Tensor &gamma, const at::Tensor &beta, const at::Tensor *residual,
                 const at::Tensor &mean, const at::Tensor &var, bool train, double momentum, double eps, int64_t act,
                 double slope) {
  at::Tensor y = at::batch_norm(x, gamma, beta, mean, var, train, momentum, eps, true);
  if (residual) y = y.add_(*residual);
  switch (act) {
    case NORM_RELU: return y.relu_();
    case NORM_RELU6: return at::hardtanh_(y, 0, 6);
    case NORM_LEAKY: return at::leaky_relu_(y, slope);
    case NORM_HARD_SWISH: return at::hardswish(y);
    default: return y;
  }
}

}  // namespace

extern "C" ok_status ok_norm_act(ok_tensor input, ok_tensor gamma, ok_tensor beta, ok_tensor running_mean,
                                 ok_tensor running_var, ok_tensor residual, int32_t train, double momentum, double eps,
                                 int32_t act, double slope, ok_tensor *output) {
  return guarded([&] {
    const at::Tensor &x = tensor(input);
    const at::Tensor *r = residual ? &tensor(residual) : nullptr;
    const auto type = x.scalar_type();
    const bool own = enabled(FAMILY_NORM) && x.is_cpu() && x.dim() == 4 && (type == at::kFloat || type == at::kBFloat16) && x.numel() > 0 &&
                     (!r || (r->sizes() == x.sizes() && r->scalar_type() == type));
    if (!own) {
      *output = give(plain(x, tensor(gamma), tensor(beta), r, tensor(running_mean), tensor(running_var), train, momentum,
                           eps, act, slope));
      return;
    }
    std::optional<at::Tensor> other;
    if (r) other = *r;
    *output = give(NormActFunction::apply(x, tensor(gamma), tensor(beta), other, tensor(running_mean),
                                          tensor(running_var), bool(train), momentum, eps, int64_t(act), slope));
  });
}
