// The kernels for one instruction set, chosen by this file's compiler flags (build.rs).
#include "depthwise.inc"
#include "depthwise_forward.inc"
#include "gather.inc"
#include "norm.inc"
#include "optim.inc"
#include "rows.inc"

namespace oarlock {
extern const Kernels kernels_avx2 = {
    sgd, adam, norm_stats, norm_apply, norm_grad_stats, norm_grad_apply, depthwise_forward, depthwise_grad_input,
    depthwise_grad_weight, rows_sum, rows_scale, rows_scale_grad, rows_gate_grad, gather_rows, scatter_rows,
    dot_rows};
}
