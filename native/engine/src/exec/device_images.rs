//! Pictures decoded on the device, and their geometry there: the same inputs as the CPU's pipelines make.

use oarlock_datasets::{ClassifyChanges, DeferredJpeg, DeferredTarget, Undecoded};
use tch::{Device, Kind, Tensor};

use super::device_augment;
use super::input::normalized_bytes;
use crate::Result;
use crate::runtime::Placement;
use crate::runtime::nvjpeg::{Decoder, File};

/// Turns undecoded pictures into network input: `size` is (height, width), the rest as
/// [`super::normalized_input`] has it.
///
/// # Errors
/// What `decoder` says of a file; out of memory; failures of the device.
pub(crate) fn decoded_input(
    decoder: &mut Decoder,
    pictures: &[DeferredTarget],
    size: (usize, usize),
    mean: [f32; 3],
    std: [f32; 3],
    placement: Placement,
) -> Result<Tensor> {
    let pixels = decoded_pixels(decoder, pictures, size, placement.device)?;
    let shape = [pictures.len(), size.0, size.1];
    normalized_bytes(&pixels, shape, mean, std, placement)
}

/// The images of a batch, N × height × width × 3 bytes on the device.
pub(crate) fn decoded_pixels(
    decoder: &mut Decoder,
    pictures: &[DeferredTarget],
    size: (usize, usize),
    device: Device,
) -> Result<Tensor> {
    let shape = [size.0 as i64, size.1 as i64, 3];
    let images = Tensor::f_empty(
        [pictures.len() as i64, shape[0], shape[1], shape[2]],
        (Kind::Uint8, device),
    )?;
    let (mut jpegs, mut files) = (Vec::new(), Vec::new());
    for (i, target) in pictures.iter().enumerate() {
        match &target.picture {
            Undecoded::Jpeg(jpeg) => {
                jpegs.push((i, jpeg));
                files.push(File {
                    bytes: &jpeg.bytes,
                    width: jpeg.width,
                    height: jpeg.height,
                });
            }
            Undecoded::Pixels(pixels) => {
                let pixels = Tensor::f_from_slice(pixels)?.f_reshape(shape)?;
                images.f_get(i as i64)?.f_copy_(&pixels)?;
            }
        }
    }
    decoder.decode(&files, |n, whole| {
        let (i, jpeg) = jpegs[n];
        images
            .f_get(i as i64)?
            .f_copy_(&seen(&whole, jpeg, size)?)?;
        Ok(())
    })?;
    let unchanged = ClassifyChanges::default();
    let changes = pictures.iter().map(|target| match &target.picture {
        Undecoded::Jpeg(jpeg) => &jpeg.changes,
        // The CPU has made them.
        Undecoded::Pixels(_) => &unchanged,
    });
    device_augment::changed(images, &changes.collect::<Vec<_>>())
}

/// What is seen of a decoded picture (H × W × 3 bytes): shrunk by averaging as a decoder's scaling does, then the view
/// resized as `cv2.resize` does with `INTER_LINEAR`. Gives `size.0` × `size.1` × 3 whole floats on the same device.
fn seen(whole: &Tensor, jpeg: &DeferredJpeg, size: (usize, usize)) -> Result<Tensor> {
    let shrunk = shrink(whole, jpeg.denominator as i64)?;
    let (view, device) = (&jpeg.view, whole.device());
    let [length_y, length_x] = [0, 1].map(|dim| shrunk.size()[dim]);
    let bounds = |length: i64, start: f64, extent: f64| match jpeg.cut {
        true => (start, start + extent - 1.0),
        false => (0.0, (length - 1) as f64),
    };
    let rows = bounds(length_y, view.top, view.height);
    let rows = Axis::new(rows, view.top, view.height, size.0, device)?;
    let columns = bounds(length_x, view.left, view.width);
    let columns = Axis::new(columns, view.left, view.width, size.1, device)?;
    let mixed = columns.mix(&rows.mix(&shrunk, 0)?, 1)?;
    Ok(mixed.f_round()?)
}

/// Means of `denominator`² pixels, of fewer at the right and lower edge.
fn shrink(whole: &Tensor, denominator: i64) -> Result<Tensor> {
    if denominator == 1 {
        return Ok(whole.shallow_clone());
    }
    let side = [denominator; 2];
    let means = whole
        .f_permute([2, 0, 1])?
        .f_to_kind(Kind::Float)?
        .f_avg_pool2d(side, side, [0, 0], true, false, None)?;
    Ok(means.f_round()?.f_permute([1, 2, 0])?)
}

/// The two neighbours of every place of one side of the result, and the share of the second.
struct Axis {
    first: Tensor,
    second: Tensor,
    share: Tensor,
}

impl Axis {
    /// `count` places over `extent` pixels from `start` on; pixels beyond `bounds` (first and last) do not count.
    fn new(
        bounds: (f64, f64),
        start: f64,
        extent: f64,
        count: usize,
        device: Device,
    ) -> Result<Self> {
        // Double: at 10,000 pixels a float would leave 10 bits for the share.
        let places = Tensor::f_arange(count as i64, (Kind::Double, device))?
            .f_add_scalar(0.5)?
            .f_mul_scalar(extent / count as f64)?
            .f_add_scalar(start - 0.5)?
            .f_clamp(bounds.0, bounds.1)?;
        let first = places.f_floor()?;
        let share = places.f_sub(&first)?.f_to_kind(Kind::Float)?;
        let first = first.f_to_kind(Kind::Int64)?;
        let second = first.f_add_scalar(1)?.f_clamp_max(bounds.1 as i64)?;
        Ok(Self {
            first,
            second,
            share,
        })
    }

    /// The places' values along `dim` of a three-dimensional tensor.
    fn mix(&self, pixels: &Tensor, dim: i64) -> Result<Tensor> {
        let mut shape = [1; 3];
        shape[dim as usize] = -1;
        let at = |places| -> Result<Tensor> {
            Ok(pixels.f_index_select(dim, places)?.f_to_kind(Kind::Float)?)
        };
        let (first, second) = (at(&self.first)?, at(&self.second)?);
        Ok(first.f_lerp_tensor(&second, &self.share.f_reshape(shape)?)?)
    }
}

#[cfg(test)]
#[path = "device_images_tests.rs"]
mod tests;
