//! One libtorch call per operation, and what the executor must know about it.

use oarlock_graph::{Act, Op, same_padding};
use tch::{Kind, Tensor};

use super::deform::deform_conv;
use super::network::Parameter;
use super::regions::roi_align;
use crate::runtime::Placement;
use crate::{EngineError, Result, ffi};

/// What an operation gets beside its inputs.
pub(super) struct Call<'a> {
    pub params: &'a [Parameter],
    pub train: bool,
    /// The first input may be overwritten.
    pub in_place: bool,
    pub seed: u64,
}

impl Call<'_> {
    fn param(&self, index: usize) -> Result<&Tensor> {
        self.params
            .get(index)
            .map(|p| &p.compute)
            .ok_or_else(|| EngineError::internal("an operation lacks a parameter"))
    }
}

/// Moves images to the device, the compute type and the channels-last order; no copy where they are.
pub(super) fn prepare_input(input: &Tensor, placement: Placement) -> Result<Tensor> {
    ffi::to_channels_last(
        &input
            .f_to_device(placement.device)?
            .f_to_kind(placement.compute)?,
    )
}

fn pair(v: [usize; 2]) -> [i64; 2] {
    [v[0] as i64, v[1] as i64]
}

/// Hyper-parameters of a convolution.
fn numbers(op: &Op) -> Result<ffi::Conv> {
    let (stride, padding, dilation, groups) = match *op {
        Op::Conv2d {
            stride,
            padding,
            dilation,
            groups,
            ..
        } => (stride, padding, dilation, groups),
        Op::DeformConv2d {
            stride,
            padding,
            dilation,
            ..
        } => (stride, padding, dilation, 1),
        _ => return Err(EngineError::internal("not a convolution")),
    };
    Ok(ffi::Conv {
        stride: pair(stride),
        padding: pair(padding),
        dilation: pair(dilation),
        groups: groups as i64,
    })
}

/// Computes one node.
pub(super) fn run(op: &Op, inputs: &[&Tensor], call: &Call) -> Result<Tensor> {
    let x = *inputs
        .first()
        .ok_or_else(|| EngineError::internal("an operation lacks its input"))?;
    Ok(match *op {
        Op::Input { .. } => x.shallow_clone(),
        Op::Conv2d { bias, .. } => {
            let b = if bias { Some(call.param(1)?) } else { None };
            ffi::conv(x, call.param(0)?, b, &numbers(op)?)?
        }
        Op::BatchNorm { .. } => norm_act(op, call.params, inputs, call.train, None)?,
        Op::Activation(act) => ffi::activation(x, act, call.in_place)?,
        Op::MaxPool {
            kernel,
            stride,
            padding,
            ceil,
        } => x.f_max_pool2d(pair(kernel), pair(stride), pair(padding), [1, 1], ceil)?,
        Op::AvgPool {
            kernel,
            stride,
            padding,
            ceil,
            count_include_pad,
        } => x.f_avg_pool2d(
            pair(kernel),
            pair(stride),
            pair(padding),
            ceil,
            count_include_pad,
            None,
        )?,
        Op::GlobalAvgPool => ffi::global_pool(x)?,
        Op::AdaptiveAvgPool { size } => x.f_adaptive_avg_pool2d(pair(size))?,
        Op::Add => sum(inputs, call.in_place)?,
        Op::Mul => x.f_mul(
            inputs
                .get(1)
                .ok_or_else(|| EngineError::internal("a product lacks a factor"))?,
        )?,
        Op::Concat => Tensor::f_cat(inputs, 1)?,
        Op::Slice { start, len } => x.f_narrow(1, start as i64, len as i64)?,
        Op::ChannelShuffle { groups } => shuffle(x, groups as i64)?,
        Op::Upsample { scale, bilinear } => {
            let (_, _, h, w) = x.size4()?;
            let s = scale as i64;
            if bilinear {
                x.f_upsample_bilinear2d([h * s, w * s], false, None, None)?
            } else {
                x.f_upsample_nearest2d([h * s, w * s], None, None)?
            }
        }
        Op::Resize { align_corners } => resize(x, inputs, align_corners)?,
        Op::SamePad { kernel, stride } => same_pad(x, kernel, stride)?,
        Op::Flatten => x.f_flatten(1, -1)?,
        Op::Linear { bias, .. } => x.f_linear(
            call.param(0)?,
            if bias { Some(call.param(1)?) } else { None },
        )?,
        Op::Dropout { p } if call.train && p > 0.0 => ffi::dropout(x, p, call.seed)?,
        Op::Dropout { .. } => x.shallow_clone(),
        Op::Softmax => x.f_softmax(-1, None)?,
        Op::DropBlock { .. } if !call.train => x.shallow_clone(),
        Op::DropBlock { size, keep } => ffi::drop_block(x, size as i64, keep, call.seed)?,
        Op::Coordinates { last } => coordinates(x, last)?,
        Op::DeformConv2d { bias, .. } => {
            let [x, offset, factor] = inputs[..] else {
                return Err(EngineError::internal("an operation lacks its input"));
            };
            let b = if bias { Some(call.param(1)?) } else { None };
            deform_conv([x, offset, factor], call.param(0)?, b, &numbers(op)?)?
        }
        Op::ConvTranspose2d {
            stride,
            padding,
            bias,
            ..
        } => {
            let b = if bias { Some(call.param(1)?) } else { None };
            let (stride, padding) = (pair(stride), pair(padding));
            x.f_conv_transpose2d(call.param(0)?, b, stride, padding, [0, 0], 1, [1, 1])?
        }
        Op::Rois => return Err(EngineError::internal("regions of interest are not given")),
        Op::RoiAlign {
            size,
            sampling,
            ref strides,
            aligned,
        } => {
            let pooling = ffi::Pooling {
                size: pair(size),
                sampling: sampling as i64,
                strides,
                aligned,
            };
            roi_align(x, &inputs[1..], &pooling)?
        }
    })
}

/// The map with two more channels: the place of each pixel from left to right, then from top to bottom.
fn coordinates(x: &Tensor, last: f32) -> Result<Tensor> {
    let (n, _, h, w) = x.size4()?;
    let line =
        |count: i64| Tensor::f_linspace(-1.0, f64::from(last), count, (Kind::Float, x.device()));
    let across = line(w)?
        .f_reshape([1, 1, 1, w])?
        .f_expand([n, 1, h, w], false)?;
    let down = line(h)?
        .f_reshape([1, 1, h, 1])?
        .f_expand([n, 1, h, w], false)?;
    let places = Tensor::f_cat(&[across, down], 1)?.f_to_kind(x.kind())?;
    let places = ffi::to_channels_last(&places)?;
    ffi::to_channels_last(&Tensor::f_cat(&[x, &places], 1)?)
}

/// A batch norm, plus the second input if there is one, then an activation. With `train` it uses the statistics of
/// the batch; without, its scale and shift get no gradient.
pub(super) fn norm_act(
    op: &Op,
    params: &[Parameter],
    inputs: &[&Tensor],
    train: bool,
    act: Option<Act>,
) -> Result<Tensor> {
    let (&Op::BatchNorm { eps, momentum, .. }, [gamma, beta, mean, var], [x, rest @ ..]) =
        (op, params, inputs)
    else {
        return Err(EngineError::internal("a batch norm lacks a parameter"));
    };
    let fixed;
    let [scale, shift] = if train {
        [&gamma.compute, &beta.compute]
    } else {
        fixed = [gamma.compute.f_detach()?, beta.compute.f_detach()?];
        [&fixed[0], &fixed[1]]
    };
    let norm = ffi::Norm {
        gamma: scale,
        beta: shift,
        running_mean: &mean.compute,
        running_var: &var.compute,
        train,
        momentum,
        eps,
    };
    ffi::norm_act(x, &norm, rest.first().copied(), act)
}

/// A convolution, plus the second input if there is one, then an activation; for inference on a CPU. `packed`
/// keeps the weight in the kernel's own order from the first call on.
pub(super) fn conv_act(
    op: &Op,
    params: &[Parameter],
    inputs: &[&Tensor],
    act: Option<Act>,
    packed: &mut Option<Tensor>,
) -> Result<Tensor> {
    let ([weight, bias @ ..], [x, rest @ ..]) = (params, inputs) else {
        return Err(EngineError::internal("a convolution lacks a parameter"));
    };
    let conv = numbers(op)?;
    let weight = match packed {
        Some(weight) => &*weight,
        None => packed.insert(ffi::conv_pack(x, &weight.compute, &conv)?),
    };
    ffi::conv_act(
        x,
        weight,
        bias.first().map(|b| &b.compute),
        &conv,
        rest.first().copied(),
        act,
    )
}

fn sum(inputs: &[&Tensor], in_place: bool) -> Result<Tensor> {
    let [first, second, rest @ ..] = inputs else {
        return Err(EngineError::internal("a sum lacks a term"));
    };
    let mut total = if in_place {
        first.shallow_clone().f_add_(second)?
    } else {
        first.f_add(second)?
    };
    for term in rest {
        total = total.f_add_(term)?;
    }
    Ok(total)
}

/// Bilinear interpolation to the size of the second input.
fn resize(x: &Tensor, inputs: &[&Tensor], align_corners: bool) -> Result<Tensor> {
    let like = inputs
        .get(1)
        .ok_or_else(|| EngineError::internal("a resized map lacks its size"))?;
    let ((_, _, h, w), (_, _, height, width)) = (x.size4()?, like.size4()?);
    if [h, w] == [height, width] {
        return Ok(x.shallow_clone());
    }
    let resized = x.f_upsample_bilinear2d([height, width], align_corners, None, None)?;
    // libtorch takes maps of a single pixel for channels-first ones; a concatenation would follow it.
    ffi::to_channels_last(&resized)
}

/// Zeros around a map, as many as its size asks for.
fn same_pad(x: &Tensor, kernel: [usize; 2], stride: [usize; 2]) -> Result<Tensor> {
    let (_, _, h, w) = x.size4()?;
    let zeros = |size: i64, i: usize| {
        same_padding(usize::try_from(size).unwrap_or(0), kernel[i], stride[i]).map(|z| z as i64)
    };
    let ([top, bottom], [left, right]) = (zeros(h, 0), zeros(w, 1));
    Ok(x.f_constant_pad_nd([left, right, top, bottom])?)
}

/// ShuffleNet's channel shuffle, in the memory order the maps have: channels innermost.
fn shuffle(x: &Tensor, groups: i64) -> Result<Tensor> {
    let (n, c, h, w) = x.size4()?;
    Ok(x.f_permute([0, 2, 3, 1])?
        .f_reshape([n, h, w, groups, c / groups])?
        .f_transpose(3, 4)?
        .f_reshape([n, h, w, c])?
        .f_permute([0, 3, 1, 2])?)
}
