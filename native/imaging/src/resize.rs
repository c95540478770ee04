//! Bilinear resize as OpenCV's INTER_LINEAR: pixel centres, two taps an axis, no antialiasing.
//!
//! PaddleX resizes with `cv2.resize`, so networks trained here see what its users' own scripts feed
//! them. Large JPEG images lose most of their size in the decoder before, which does average.

use std::cell::RefCell;

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::bilinear::Bilinear;
use crate::{Image, ImageError, Pixels, Rect};

thread_local! {
    // The resizer keeps its intermediate buffer between images.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// Resizes the part `region` of `image` (the whole for `None`) to `width`×`height`.
/// Pixels outside the region never shine in, as if it had been cut out before.
pub fn resize(
    image: &Image,
    region: Option<Rect>,
    width: usize,
    height: usize,
) -> Result<Image, ImageError> {
    let mut data = vec![0; width * height * 3];
    resize_into(image, region, width, height, &mut data)?;
    Image::new(width, height, data)
}

/// [`resize`] into memory of `width·height·3` bytes.
pub fn resize_into(
    image: &Image,
    region: Option<Rect>,
    width: usize,
    height: usize,
    out: &mut [u8],
) -> Result<(), ImageError> {
    let failed = |error: &dyn std::fmt::Display| ImageError::Argument(format!("resize: {error}"));
    if width == 0 || height == 0 || out.len() != width * height * 3 {
        return Err(failed(
            &"the target size is empty or its memory has another size",
        ));
    }
    let rect = region
        .unwrap_or(Rect {
            x: 0,
            y: 0,
            width: image.width(),
            height: image.height(),
        })
        .clamped(image.width(), image.height());
    if (rect.width, rect.height) == (width, height) {
        for (y, row) in out.chunks_exact_mut(width * 3).enumerate() {
            row.copy_from_slice(&image.row(rect.y + y)[rect.x * 3..(rect.x + width) * 3]);
        }
        return Ok(());
    }
    let size = (image.width(), image.height());
    resize_rgb(image.data(), size, rect, (width, height), false, out)
}

/// Resizes the box `left`, `top`, `width`, `height` (fractions of pixels allowed) of `image` to
/// `target` (width, height) in `out`: the matching part of a resize of the whole, pixel for pixel.
pub fn resize_box_into(
    image: &Image,
    (left, top, width, height): (f64, f64, f64, f64),
    target: (usize, usize),
    out: &mut [u8],
) -> Result<(), ImageError> {
    resize_box_to(
        image,
        (left, top, width, height),
        target,
        false,
        target.0,
        out,
    )
}

/// [`resize_box_into`] for rows of `stride` pixels, the first at the begin of `out`; `mirrored` left and right.
pub fn resize_box_to(
    image: &Image,
    (left, top, width, height): (f64, f64, f64, f64),
    target: (usize, usize),
    mirrored: bool,
    stride: usize,
    out: &mut [u8],
) -> Result<(), ImageError> {
    if target.0 == 0
        || target.1 == 0
        || target.0 > stride
        || out.len() < (stride * (target.1 - 1) + target.0) * 3
    {
        return Err(ImageError::Argument(
            "resize: the target size is empty or its memory has another size".into(),
        ));
    }
    // Rounding must not push the box over the edge.
    let left = left.clamp(0.0, image.width() as f64 - f64::EPSILON);
    let top = top.clamp(0.0, image.height() as f64 - f64::EPSILON);
    let width = width.min(image.width() as f64 - left);
    let height = height.min(image.height() as f64 - top);
    Bilinear {
        place: (left, top, width, height),
        within: image.whole(),
        to: target,
        mirrored,
    }
    .run(image.data(), image.width(), out, stride * 3);
    Ok(())
}

/// Antialiased resize of a whole image, for pictures that people look at.
pub fn resize_smooth(image: &Image, width: usize, height: usize) -> Result<Image, ImageError> {
    let rect = Rect {
        x: 0,
        y: 0,
        width: image.width(),
        height: image.height(),
    };
    let mut data = vec![0; width * height * 3];
    let size = (image.width(), image.height());
    resize_rgb(image.data(), size, rect, (width, height), true, &mut data)?;
    Image::new(width, height, data)
}

/// Bilinear resize of the part `rect` of RGB pixels, antialiased when `smooth`.
pub(crate) fn resize_rgb(
    data: &[u8],
    size: (usize, usize),
    rect: Rect,
    to: (usize, usize),
    smooth: bool,
    out: &mut [u8],
) -> Result<(), ImageError> {
    if !smooth && rect.width > 0 && rect.height > 0 {
        let place = [rect.x, rect.y, rect.width, rect.height].map(|v| v as f64);
        let of = Bilinear {
            place: place.into(),
            within: rect,
            to,
            mirrored: false,
        };
        of.run(data, size.0, out, to.0 * 3);
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| ImageError::Argument(format!("resize: {error}"));
    // The untyped interface would compile every kind of pixel there is.
    let source = TypedImageRef::<U8x3>::from_buffer(size.0 as u32, size.1 as u32, data)
        .map_err(|e| failed(&e))?;
    let [x, y, w, h] = [rect.x, rect.y, rect.width, rect.height].map(|v| v as u32);
    let source = TypedCroppedImage::from_ref(&source, x, y, w, h).map_err(|e| failed(&e))?;
    let mut target =
        TypedImage::<U8x3>::from_buffer(to.0 as u32, to.1 as u32, out).map_err(|e| failed(&e))?;
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .use_alpha(false);
    RESIZER
        .with_borrow_mut(|resizer| resizer.resize_typed(&source, &mut target, &options))
        .map_err(|e| failed(&e))
}

/// (width, height) with the short side at `short`, rounded as PaddleX does.
pub fn short_side_size(width: usize, height: usize, short: usize) -> (usize, usize) {
    let scale = short as f64 / width.min(height).max(1) as f64;
    // Python's round goes to the even neighbour at .5.
    let side = |length: usize| ((length as f64 * scale).round_ties_even() as usize).max(1);
    (side(width), side(height))
}

/// (width, height) that keeps the shape, with the long side at most `long`; never enlarged.
pub fn fit_within(width: usize, height: usize, long: usize) -> (usize, usize) {
    let longest = width.max(height);
    if longest <= long {
        return (width, height);
    }
    let scale = long as f64 / longest as f64;
    let side = |length: usize| ((length as f64 * scale).round() as usize).max(1);
    (side(width), side(height))
}
