//! Deformable convolution: the shim's on a CPU, else out of libtorch's own operations, for all devices and number
//! formats.

use tch::{Device, Kind, Tensor};

use crate::{Result, ffi};

/// Deformable convolution with modulation (Zhu et al. 2019): `x` N×C×H×W, `offset` N×2T×h×w and `factor` N×T×h×w for
/// the T taps of `weight`, out×C×kh×kw. Positions and samples are fp32 at least; the sums over them are in the
/// weight's type.
///
/// # Errors
/// Sizes that do not fit each other; out of memory.
pub(super) fn deform_conv(
    places: [&Tensor; 3],
    weight: &Tensor,
    bias: Option<&Tensor>,
    conv: &ffi::Conv,
) -> Result<Tensor> {
    let x = places[0];
    let own = matches!(x.kind(), Kind::Float | Kind::BFloat16) && x.numel() > 0;
    if own && x.device() == Device::Cpu {
        return ffi::deform_conv(places, weight, bias, conv);
    }
    composed(places, weight, bias, conv)
}

/// [`deform_conv`] out of libtorch's operations.
///
/// # Errors
/// As there.
pub(super) fn composed(
    [x, offset, factor]: [&Tensor; 3],
    weight: &Tensor,
    bias: Option<&Tensor>,
    conv: &ffi::Conv,
) -> Result<Tensor> {
    let (n, channels, _, _) = x.size4()?;
    let (out_channels, _, kh, kw) = weight.size4()?;
    let (_, taps, oh, ow) = factor.size4()?;
    let kind = precise(x.kind());
    let grid = sampling_grid(x, offset, [kh, kw, oh, ow], conv)?;
    let samples = x.f_to_kind(kind)?.f_grid_sampler(&grid, 0, 0, false)?;
    let columns = samples
        .f_reshape([n, channels, taps, oh, ow])?
        .f_mul(&factor.f_to_kind(kind)?.f_unsqueeze(1)?)?
        .f_reshape([n, channels * taps, oh * ow])?
        .f_to_kind(weight.kind())?;
    let mut y = weight
        .f_reshape([out_channels, channels * taps])?
        .f_matmul(&columns)?
        .f_reshape([n, out_channels, oh, ow])?;
    if let Some(bias) = bias {
        y = y.f_add(&bias.f_reshape([1, out_channels, 1, 1])?)?;
    }
    ffi::to_channels_last(&y)
}

/// Where each tap of each output pixel reads, as `grid_sampler` wants it: N×(T·h)×w×2, x before y, from −1 at the left
/// edge of the first pixel to 1 at the right edge of the last one.
fn sampling_grid(
    x: &Tensor,
    offset: &Tensor,
    [kh, kw, oh, ow]: [i64; 4],
    conv: &ffi::Conv,
) -> Result<Tensor> {
    let (n, _, h, w) = x.size4()?;
    let options = (precise(x.kind()), x.device());
    let taps = kh * kw;
    let offset = offset.f_to_kind(options.0)?;
    let offset = offset.f_reshape([n, taps, 2, oh, ow])?;
    let tap = Tensor::f_arange(taps, (Kind::Int64, x.device()))?;
    let rows = tap.f_divide_scalar_mode(kw, "floor")?;
    let columns = tap.f_remainder(kw)?;
    // Undisturbed places along one axis: one for each tap and output pixel.
    let places = |i: usize, tap: &Tensor, count: i64, shape: [i64; 3]| -> Result<Tensor> {
        let starts = Tensor::f_arange(count, options)?
            .f_mul_scalar(conv.stride[i])?
            .f_sub_scalar(conv.padding[i])?;
        let tap = tap.f_mul_scalar(conv.dilation[i])?;
        Ok(tap
            .f_reshape([taps, 1, 1])?
            .f_add(&starts.f_reshape(shape)?)?)
    };
    let relative = |i: i64, size: i64, places: Tensor| -> Result<Tensor> {
        let at = offset.f_select(2, i)?.f_add(&places)?;
        let twice = at.f_mul_scalar(2.0)?.f_add_scalar(1.0)?;
        Ok(twice.f_div_scalar(size as f64)?.f_sub_scalar(1.0)?)
    };
    let y = relative(0, h, places(0, &rows, oh, [1, oh, 1])?)?;
    let x = relative(1, w, places(1, &columns, ow, [1, 1, ow])?)?;
    Ok(Tensor::f_stack(&[x, y], -1)?.f_reshape([n, taps * oh, ow, 2])?)
}

/// The type in which positions are computed: no less than fp32.
pub(super) fn precise(kind: Kind) -> Kind {
    match kind {
        Kind::Double => Kind::Double,
        _ => Kind::Float,
    }
}
