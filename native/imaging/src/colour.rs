//! Colour changes on 8-bit RGB, in place.
//!
//! The definitions are those of Pillow's `ImageEnhance` (which torchvision's ColorJitter uses too):
//! brightness scales, contrast blends with the mean grey, saturation blends with the grey image,
//! hue turns the HSV colour wheel.

use crate::simd::{BLOCK, Planes, apart, cut, together, vectorised};

/// Pillow's (ITU-R 601) grey value of a pixel.
#[inline(always)]
fn luma(r: i32, g: i32, b: i32) -> i32 {
    (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16
}

/// `centre` + (value − `centre`) · `factor`, cut to 0–255 and rounded down.
fn scale(pixels: &mut [u8], centre: f32, factor: f32) {
    // 16 fractional bits; a hair more, so that whole numbers do not fall below themselves.
    let slope = (factor.clamp(-64.0, 64.0) * 65536.0).round();
    let start = centre * (65536.0 - slope) + 32.0;
    scale_fixed(pixels, slope as i32, start.round() as i32);
}

vectorised! {
    fn scale_fixed(pixels: &mut [u8], slope: i32, start: i32) {
        for p in pixels {
            *p = ((i32::from(*p) * slope + start) >> 16).clamp(0, 255) as u8;
        }
    }
}

vectorised! {
    fn add_luma(pixels: &[u8], sum: &mut u64) {
        for block in pixels.chunks(BLOCK * 3) {
            // Beyond a short block's end there is black, which adds nothing.
            let mut planes: Planes<u8> = [[0; BLOCK]; 3];
            apart(block, &mut planes);
            let [red, green, blue] = &planes;
            let rgb = red.iter().zip(green).zip(blue);
            let grey = rgb.map(|((r, g), b)| luma((*r).into(), (*g).into(), (*b).into()));
            *sum += grey.sum::<i32>() as u64;
        }
    }
}

/// Every value times `factor`.
pub fn brightness(pixels: &mut [u8], factor: f32) {
    scale(pixels, 0.0, factor);
}

/// Distance of every value from the image's mean grey times `factor`.
pub fn contrast(pixels: &mut [u8], factor: f32) {
    let count = (pixels.len() / 3).max(1) as u64;
    let mut sum = 0;
    add_luma(pixels, &mut sum);
    let mean = (sum as f64 / count as f64 + 0.5).floor() as f32;
    scale(pixels, mean, factor);
}

/// Distance of every pixel from its own grey times `factor`.
pub fn saturation(pixels: &mut [u8], factor: f32) {
    // 8 fractional bits are exact enough for 8-bit results.
    saturate(pixels, (factor * 256.0).round() as i32);
}

vectorised! {
    fn saturate(pixels: &mut [u8], factor: i32) {
        let mut planes: Planes<u8> = [[0; BLOCK]; 3];
        for block in pixels.chunks_mut(BLOCK * 3) {
            apart(block, &mut planes);
            let [red, green, blue] = &mut planes;
            for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
                let levels = [*r, *g, *b].map(i32::from);
                let grey = luma(levels[0], levels[1], levels[2]);
                let blend = |v: i32| (grey + (((v - grey) * factor) >> 8)).clamp(0, 255) as u8;
                (*r, *g, *b) = (blend(levels[0]), blend(levels[1]), blend(levels[2]));
            }
            together(&planes, block);
        }
    }
}

/// Turns the hue by `degrees`; value and saturation of HSV stay.
pub fn hue(pixels: &mut [u8], degrees: f32) {
    // Hue in units of a sixth of the circle, 0–6.
    turn(pixels, (degrees / 60.0).rem_euclid(6.0));
}

vectorised! {
    fn turn(pixels: &mut [u8], shift: f32) {
        let mut planes: Planes<u8> = [[0; BLOCK]; 3];
        let mut levels: Planes<u8> = [[0; BLOCK]; 3];
        for block in pixels.chunks_mut(BLOCK * 3) {
            apart(block, &mut planes);
            let [red, green, blue] = &planes;
            for i in 0..BLOCK {
                let [r, g, b] = [red[i], green[i], blue[i]].map(f32::from);
                let high = r.max(g).max(b);
                let chroma = high - r.min(g).min(b);
                // Grey pixels have no hue: with a chroma of 0 it plays no part below.
                let inverse = 1.0 / chroma.max(1.0);
                let at_green = (b - r) * inverse + 2.0;
                let at_blue = (r - g) * inverse + 4.0;
                let below_red = if high == g { at_green } else { at_blue };
                let sector = if high == r { (g - b) * inverse } else { below_red };
                // f(n) = V − C·max(0, min(k, 4 − k, 1)), k = (n + h) mod 6, n = 5, 3, 1 (HSV to RGB).
                let value = |n: f32| {
                    let k = n + sector + shift; // 0 to below 16
                    let k = if k >= 6.0 { k - 6.0 } else { k };
                    let k = if k >= 6.0 { k - 6.0 } else { k };
                    cut(high - chroma * k.min(4.0 - k).clamp(0.0, 1.0) + 0.5, 255.0) as u8
                };
                levels[0][i] = value(5.0);
                levels[1][i] = value(3.0);
                levels[2][i] = value(1.0);
            }
            together(&levels, block);
        }
    }
}
