//! Colour changes on 8-bit RGB, in place.
//!
//! The definitions are those of Pillow's `ImageEnhance` (which torchvision's ColorJitter uses too):
//! brightness scales, contrast blends with the mean grey, saturation blends with the grey image,
//! hue turns the HSV colour wheel.

/// Pillow's (ITU-R 601) grey value of a pixel.
fn luma(p: &[u8]) -> u32 {
    (u32::from(p[0]) * 19595 + u32::from(p[1]) * 38470 + u32::from(p[2]) * 7471 + 0x8000) >> 16
}

fn map(pixels: &mut [u8], change: impl Fn(f32) -> f32) {
    let mut table = [0u8; 256];
    for (value, entry) in table.iter_mut().enumerate() {
        *entry = change(value as f32).clamp(0.0, 255.0) as u8;
    }
    pixels.iter_mut().for_each(|p| *p = table[usize::from(*p)]);
}

/// Every value times `factor`.
pub fn brightness(pixels: &mut [u8], factor: f32) {
    map(pixels, |v| v * factor);
}

/// Distance of every value from the image's mean grey times `factor`.
pub fn contrast(pixels: &mut [u8], factor: f32) {
    let count = (pixels.len() / 3).max(1) as u64;
    let sum: u64 = pixels.chunks_exact(3).map(|p| u64::from(luma(p))).sum();
    let mean = (sum as f64 / count as f64 + 0.5).floor() as f32;
    map(pixels, |v| mean + (v - mean) * factor);
}

/// Distance of every pixel from its own grey times `factor`.
pub fn saturation(pixels: &mut [u8], factor: f32) {
    // 8 fractional bits are exact enough for 8-bit results. Blocks of planes, because the compiler
    // turns loops over planes into vector instructions and loops over interleaved pixels not.
    const BLOCK: usize = 64;
    let factor = (factor * 256.0).round() as i32;
    let mut planes = [[0i32; BLOCK]; 3];
    for block in pixels.chunks_mut(BLOCK * 3) {
        for (i, p) in block.chunks_exact(3).enumerate() {
            planes[0][i] = i32::from(p[0]);
            planes[1][i] = i32::from(p[1]);
            planes[2][i] = i32::from(p[2]);
        }
        let [red, green, blue] = &mut planes;
        for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
            let grey = (*r * 19595 + *g * 38470 + *b * 7471 + 0x8000) >> 16;
            let blend = |v: i32| (grey + (((v - grey) * factor) >> 8)).clamp(0, 255);
            (*r, *g, *b) = (blend(*r), blend(*g), blend(*b));
        }
        for (i, p) in block.chunks_exact_mut(3).enumerate() {
            p.copy_from_slice(&[planes[0][i] as u8, planes[1][i] as u8, planes[2][i] as u8]);
        }
    }
}

/// Turns the hue by `degrees`; value and saturation of HSV stay.
pub fn hue(pixels: &mut [u8], degrees: f32) {
    // Hue in units of a sixth of the circle, 0–6.
    let shift = (degrees / 60.0).rem_euclid(6.0);
    for p in pixels.chunks_exact_mut(3) {
        let [r, g, b] = [f32::from(p[0]), f32::from(p[1]), f32::from(p[2])];
        let high = r.max(g).max(b);
        let chroma = high - r.min(g).min(b);
        if chroma == 0.0 {
            continue;
        }
        let sector = if high == r {
            (g - b) / chroma
        } else if high == g {
            (b - r) / chroma + 2.0
        } else {
            (r - g) / chroma + 4.0
        };
        let turned = sector + shift + 12.0;
        // f(n) = V − C·max(0, min(k, 4 − k, 1)), k = (n + h) mod 6, for n = 5, 3, 1 (HSV to RGB).
        for (value, n) in p.iter_mut().zip([5.0, 3.0, 1.0]) {
            let k = (n + turned) % 6.0;
            *value = (high - chroma * k.min(4.0 - k).clamp(0.0, 1.0) + 0.5) as u8;
        }
    }
}
