//! Gaussian blur as `cv2.GaussianBlur(image, (k, k), 0)`.

use crate::view::{Sample, View};

/// Weights of an odd kernel: OpenCV's tables up to 9, beyond them the Gaussian of
/// sigma 0.3·((k − 1)/2 − 1) + 0.8.
fn weights(kernel: usize) -> Vec<f32> {
    let table: &[f32] = match kernel {
        1 => &[1.0],
        3 => &[0.25, 0.5, 0.25],
        5 => &[0.0625, 0.25, 0.375, 0.25, 0.0625],
        7 => &[
            0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125,
        ],
        9 => &[
            0.015625, 0.05078125, 0.1171875, 0.19921875, 0.234375, 0.19921875, 0.1171875,
            0.05078125, 0.015625,
        ],
        _ => &[],
    };
    if !table.is_empty() {
        return table.to_vec();
    }
    let half = (kernel / 2) as f64;
    let sigma = 0.3 * (half - 1.0) + 0.8;
    let value = |i: usize| (-(i as f64 - half).powi(2) / (2.0 * sigma * sigma)).exp();
    let sum: f64 = (0..kernel).map(value).sum();
    (0..kernel).map(|i| (value(i) / sum) as f32).collect()
}

/// Place behind the edge mirrored without repeating the edge (`BORDER_REFLECT_101`).
fn mirrored(place: i64, side: usize) -> usize {
    let period = 2 * (side as i64 - 1);
    if period == 0 {
        return 0;
    }
    let place = place.rem_euclid(period);
    place.min(period - place) as usize
}

/// Blurs; an even kernel is taken as the next odd one.
pub(crate) fn gaussian<T: Sample>(view: &View<'_, T>, kernel: usize) -> Vec<T> {
    let weights = weights(kernel | 1);
    let half = weights.len() as i64 / 2;
    let (c, stride) = (view.channels, view.width * view.channels);
    let slots = weights.len() + 1;
    let mut ring = vec![0f32; slots * stride];
    let mut held = vec![usize::MAX; slots];
    let mut padded = vec![0f32; (view.width + weights.len() - 1) * c];
    let mut sum = vec![0f32; stride];
    let mut out = Vec::with_capacity(view.data.len());
    for y in 0..view.height {
        sum.fill(0.0);
        for (i, weight) in weights.iter().enumerate() {
            let place = mirrored(y as i64 + i as i64 - half, view.height);
            let slot = place % slots;
            let row = &mut ring[slot * stride..(slot + 1) * stride];
            if held[slot] != place {
                held[slot] = place;
                let source = &view.data[place * stride..(place + 1) * stride];
                for (x, pixel) in padded.chunks_exact_mut(c).enumerate() {
                    let from = mirrored(x as i64 - half, view.width) * c;
                    let pairs = pixel.iter_mut().zip(&source[from..from + c]);
                    pairs.for_each(|(p, s)| *p = s.float());
                }
                row.fill(0.0);
                for (i, weight) in weights.iter().enumerate() {
                    let shifted = &padded[i * c..i * c + stride];
                    row.iter_mut()
                        .zip(shifted)
                        .for_each(|(r, s)| *r += weight * *s);
                }
            }
            sum.iter_mut()
                .zip(&*row)
                .for_each(|(s, r)| *s += weight * *r);
        }
        out.extend(sum.iter().map(|s| T::of(*s)));
    }
    out
}
