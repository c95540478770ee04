//! Images to network input.

use tch::{Device, Kind, Tensor};

use crate::runtime::Placement;
use crate::{Result, ffi};

/// Turns a batch of 8-bit RGB images (N×H×W×3 bytes) into network input: `(x/255 − mean) / std`, channels-last
/// N×3×H×W, in the compute type and on the device of `placement`.
///
/// # Errors
/// `Internal` when `pixels` is not n·h·w·3 bytes; out of memory.
pub fn normalized_input(
    pixels: &[u8],
    [n, h, w]: [usize; 3],
    mean: [f32; 3],
    std: [f32; 3],
    placement: Placement,
) -> Result<Tensor> {
    if placement.device == Device::Cpu {
        return ffi::normalize(
            pixels,
            [n, h, w],
            mean,
            std,
            placement.compute == Kind::BFloat16,
        );
    }
    // Bytes cross to the GPU, a quarter of what floats would be; the arithmetic runs there.
    let bytes = Tensor::f_from_slice(pixels)?.f_reshape([n as i64, h as i64, w as i64, 3])?;
    let bytes = bytes
        .f_to_device(placement.device)?
        .f_permute([0, 3, 1, 2])?
        .f_to_kind(Kind::Float)?;
    let row = |v: [f32; 3]| -> Result<Tensor> {
        Ok(Tensor::f_from_slice(&v)?
            .f_reshape([1, 3, 1, 1])?
            .f_to_device(placement.device)?)
    };
    let scaled = bytes
        .f_div_scalar(255.0)?
        .f_sub(&row(mean)?)?
        .f_div(&row(std)?)?;
    Ok(scaled.f_to_kind(placement.compute)?)
}
