//! Crops, flips and rotation.

use crate::{Rect, Rng};

/// The `width`×`height` rectangle in the middle; smaller when the image is.
pub fn centre_rect(image_width: usize, image_height: usize, width: usize, height: usize) -> Rect {
    let (width, height) = (width.min(image_width), height.min(image_height));
    Rect {
        x: (image_width - width) / 2,
        y: (image_height - height) / 2,
        width,
        height,
    }
}

/// PaddleX's random crop: side scale s uniform in `scale`, aspect ratio (width / height, relative to
/// the image's own) uniform in `aspect` but within [s², 1/s²] so that the crop fits, place uniform.
pub fn random_crop_rect(
    width: usize,
    height: usize,
    scale: (f32, f32),
    aspect: (f32, f32),
    rng: &mut Rng,
) -> Rect {
    let s = rng
        .uniform(f64::from(scale.0), f64::from(scale.1))
        .clamp(1e-3, 1.0);
    let low = f64::from(aspect.0).max(s * s);
    let high = f64::from(aspect.1).min(1.0 / (s * s));
    let ratio = rng.uniform(low.min(high), high).max(1e-6).sqrt();
    let side =
        |length: usize, factor: f64| ((length as f64 * factor) as usize).clamp(1, length.max(1));
    let (w, h) = (side(width, s * ratio), side(height, s / ratio));
    let y = rng.below(height - h + 1);
    let x = rng.below(width - w + 1);
    Rect {
        x,
        y,
        width: w,
        height: h,
    }
}

/// Left to right, in place; `pixels` holds rows of `width` RGB pixels.
pub fn flip_horizontal(pixels: &mut [u8], width: usize) {
    for row in pixels.chunks_exact_mut(width * 3) {
        row.as_chunks_mut::<3>().0.reverse();
    }
}

/// Upside down, in place; `pixels` holds rows of `width` RGB pixels.
pub fn flip_vertical(pixels: &mut [u8], width: usize) {
    let stride = width * 3;
    let rows = pixels.len() / stride;
    let (top, bottom) = pixels.split_at_mut(rows.div_ceil(2) * stride);
    for (upper, lower) in top
        .chunks_exact_mut(stride)
        .zip(bottom.chunks_exact_mut(stride).rev())
    {
        upper.swap_with_slice(lower);
    }
}

/// Rotates counter-clockwise by `degrees` around the centre into `out` (same size as `pixels`),
/// bilinear, black outside; what `cv2.warpAffine(getRotationMatrix2D(…))` gives.
pub fn rotate(pixels: &[u8], width: usize, height: usize, degrees: f32, out: &mut [u8]) {
    let (sin, cos) = f64::from(degrees).to_radians().sin_cos();
    let (cx, cy) = ((width as f64 - 1.0) / 2.0, (height as f64 - 1.0) / 2.0);
    // Positions in 1/65536 pixel; the weights keep their upper 8 bits.
    let fixed = |value: f64| (value * 65536.0).round() as i64;
    let (step_x, step_y) = (fixed(cos), fixed(sin));
    let stride = width * 3;
    let (w, h) = (width as i64, height as i64);
    // Positions whose four neighbours all lie in the image; negative ones wrap to huge numbers.
    let (inner_x, inner_y) = (((w - 1) << 16) as u64, ((h - 1) << 16) as u64);
    for (y, row) in out.chunks_exact_mut(stride).enumerate() {
        let dy = y as f64 - cy;
        // The inverse of a counter-clockwise turn with y downwards:
        // x' = cx + cos·dx − sin·dy, y' = cy + sin·dx + cos·dy
        let mut sx = fixed(cx - cos * cx - sin * dy);
        let mut sy = fixed(cy - sin * cx + cos * dy);
        for pixel in row.chunks_exact_mut(3) {
            let (x0, y0) = (sx >> 16, sy >> 16);
            let weights = weights(((sx >> 8) & 0xff) as u64, ((sy >> 8) & 0xff) as u64);
            let sum = if (sx as u64) < inner_x && (sy as u64) < inner_y {
                let at = y0 as usize * stride + x0 as usize * 3;
                let (top, bottom) = (&pixels[at..at + 6], &pixels[at + stride..at + stride + 6]);
                lanes(&top[..3]) * weights[0]
                    + lanes(&top[3..]) * weights[1]
                    + lanes(&bottom[..3]) * weights[2]
                    + lanes(&bottom[3..]) * weights[3]
            } else if x0 < -1 || y0 < -1 || x0 >= w || y0 >= h {
                0
            } else {
                let at = |x: i64, y: i64| {
                    if x >= 0 && y >= 0 && x < w && y < h {
                        let at = y as usize * stride + x as usize * 3;
                        lanes(&pixels[at..at + 3])
                    } else {
                        0
                    }
                };
                at(x0, y0) * weights[0]
                    + at(x0 + 1, y0) * weights[1]
                    + at(x0, y0 + 1) * weights[2]
                    + at(x0 + 1, y0 + 1) * weights[3]
            };
            let sum = sum + 0x0080_0080_0080;
            pixel.copy_from_slice(&[(sum >> 8) as u8, (sum >> 24) as u8, (sum >> 40) as u8]);
            sx += step_x;
            sy += step_y;
        }
    }
}

/// Three bytes in lanes of 16 bits, so that one multiplication weighs all of them.
fn lanes(pixel: &[u8]) -> u64 {
    u64::from(pixel[0]) | u64::from(pixel[1]) << 16 | u64::from(pixel[2]) << 32
}

/// Bilinear weights of the four neighbours, 256 in all, from fractions in 1/256. 255·256 and the
/// rounding still fit a lane.
fn weights(fx: u64, fy: u64) -> [u64; 4] {
    let both = (fx * fy + 128) >> 8;
    [256 + both - fx - fy, fx - both, fy - both, both]
}
