//! Images to network input.

use oarlock_datasets::{BatchMemory, Buffer, Depth};
use tch::{Device, Kind, Tensor};

use crate::records::Preprocessing;
use crate::runtime::Placement;
use crate::{EngineError, Result, ffi};

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
    let bytes = Tensor::f_from_slice(pixels)?.f_to_device(placement.device)?;
    normalized_bytes(&bytes, [n, h, w], mean, std, placement)
}

/// Bytes on the device to network input.
pub(super) fn normalized_bytes(
    bytes: &Tensor,
    [n, h, w]: [usize; 3],
    mean: [f32; 3],
    std: [f32; 3],
    placement: Placement,
) -> Result<Tensor> {
    let bytes = bytes
        .f_reshape([n as i64, h as i64, w as i64, 3])?
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

/// Where the loader makes batches for `placement`: page-locked memory with a GPU, so that its copies
/// run beside the computing. `None` = the heap.
pub(crate) fn batch_memory(placement: Placement) -> Option<BatchMemory> {
    match placement.device {
        Device::Cuda(_) => Some(BatchMemory::new(|length| {
            ffi::pinned_bytes(length).ok().map(lent)
        })),
        _ => None,
    }
}

/// A tensor of bytes as a buffer.
fn lent(bytes: Tensor) -> Buffer {
    let (base, length) = (bytes.data_ptr().cast(), bytes.numel());
    // SAFETY: the tensor has `length` bytes at `base` for as long as it lives, wherever it is moved, and
    // nobody else has it.
    unsafe { Buffer::foreign(base, length, Box::new(bytes)) }
}

/// [`normalized_input`] of a batch's images. Page-locked ones are given to the copy, which nobody waits
/// for; others stay in `images` for reuse.
pub(crate) fn batch_input(
    images: &mut Buffer,
    shape: [usize; 3],
    mean: [f32; 3],
    std: [f32; 3],
    placement: Placement,
) -> Result<Tensor> {
    match std::mem::take(images).into_owner::<Tensor>() {
        Ok(pinned) => {
            let [n, h, w] = shape.map(|s| s as i64);
            // A batch that lost images is shorter than its memory.
            let bytes = pinned.f_narrow(0, 0, n * h * w * 3)?.f_to_device_(
                placement.device,
                Kind::Uint8,
                true,
                false,
            )?;
            normalized_bytes(&bytes, shape, mean, std, placement)
        }
        Err(heap) => {
            *images = heap;
            normalized_input(images, shape, mean, std, placement)
        }
    }
}

/// Turns a batch of images of any channels (N×H×W×C samples of `depth`, in the machine's byte order) into network
/// input as `how` says: clipped to its range and brought to 0–1, then `(x − mean) / std`; channels-last N×C×H×W.
/// What is no number counts as the lowest value.
///
/// # Errors
/// `Internal` when `samples` is not n·h·w·c of them or `how` is of other channels; out of memory.
pub fn network_input(
    samples: &[u8],
    depth: Depth,
    [n, h, w, c]: [usize; 4],
    how: &Preprocessing,
    placement: Placement,
) -> Result<Tensor> {
    if let (Depth::U8, 3, Some((mean, std))) = (depth, c, how.rgb()) {
        return normalized_input(samples, [n, h, w], mean, std, placement);
    }
    if samples.len() != n * h * w * c * depth.bytes() || how.mean.len() != c || how.std.len() != c {
        return Err(EngineError::internal(format!(
            "{} bytes are no {n}×{h}×{w}×{c} samples",
            samples.len()
        )));
    }
    let channels: Vec<Scale> = (0..c).map(|i| Scale::of(how, i)).collect();
    let mut out = vec![0f32; n * h * w * c];
    let pixels = out.chunks_exact_mut(c);
    match depth {
        Depth::U8 => scale(pixels, samples.chunks_exact(c), &channels, |v| {
            f32::from(*v)
        }),
        Depth::U16 => {
            let values = samples.as_chunks::<2>().0.chunks_exact(c);
            scale(pixels, values, &channels, |v| {
                f32::from(u16::from_ne_bytes(*v))
            });
        }
        Depth::F32 => {
            let values = samples.as_chunks::<4>().0.chunks_exact(c);
            scale(pixels, values, &channels, |v| f32::from_ne_bytes(*v));
        }
    }
    let shape = [n, h, w, c].map(|s| s as i64);
    let input = Tensor::f_from_slice(&out)?
        .f_reshape(shape)?
        .f_to_device(placement.device)?
        .f_permute([0, 3, 1, 2])?;
    Ok(input.f_to_kind(placement.compute)?)
}

/// How the values of one channel are scaled.
struct Scale {
    low: f32,
    high: f32,
    factor: f32,
    offset: f32,
}

impl Scale {
    fn of(how: &Preprocessing, channel: usize) -> Self {
        let (low, high) = how.range.get(channel).copied().unwrap_or((0.0, 255.0));
        let (mean, std) = (how.mean[channel], how.std[channel]);
        let factor = 1.0 / ((high - low) * std);
        let offset = -low * factor - mean / std;
        Self {
            low,
            high,
            factor,
            offset,
        }
    }
}

fn scale<'a, T: 'a>(
    out: impl Iterator<Item = &'a mut [f32]>,
    values: impl Iterator<Item = &'a [T]>,
    channels: &[Scale],
    read: impl Fn(&T) -> f32,
) {
    for (out, values) in out.zip(values) {
        for ((out, value), c) in out.iter_mut().zip(values).zip(channels) {
            // `max` and `min` take the number of a number and NaN.
            *out = read(value).max(c.low).min(c.high) * c.factor + c.offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for page-locked memory, which takes a GPU: the same path with an ordinary tensor.
    #[test]
    fn a_batch_in_a_tensors_memory_gives_the_same_input() {
        let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        let shape = [2, 3, 5];
        let pixels: Vec<u8> = (0..90).map(|i| (i * 37 % 251) as u8).collect();
        let place = Placement::CPU_FP32;
        let expected = normalized_input(&pixels, shape, mean, std, place).unwrap();
        let mut longer = pixels.clone();
        longer.extend([7; 45]); // a third image that was skipped
        let mut lent = lent(Tensor::from_slice(&longer));
        assert_eq!(lent.len(), 135);
        let input = batch_input(&mut lent, shape, mean, std, place).unwrap();
        assert!(input.allclose(&expected, 1e-6, 1e-6, false) && lent.is_empty());
        let mut heap = Buffer::from(pixels.clone());
        let input = batch_input(&mut heap, shape, mean, std, place).unwrap();
        assert!(input.equal(&expected) && heap[..] == pixels[..]);
        assert!(batch_memory(place).is_none());
    }

    #[test]
    fn without_a_gpu_page_locked_memory_is_an_error() {
        if crate::runtime::devices().gpus.is_empty() {
            assert!(ffi::pinned_bytes(64).is_err());
        }
    }
}
