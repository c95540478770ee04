//! From subsampled chroma to RGB, in libjpeg-turbo's numbers.

use crate::simd::{BLOCK, together, vectorised};

vectorised! {
    /// Doubles the columns of a row of chroma between the row `near` and the one `far` ("fancy upsampling": a triangle
    /// filter, 9:3:3:1). `sums` has a place for each sample, `out` two.
    pub(super) fn doubled(near: &[u8], far: &[u8], sums: &mut [u16], out: &mut [u8]) {
        for ((sum, near), far) in sums.iter_mut().zip(near).zip(far) {
            *sum = 3 * u16::from(*near) + u16::from(*far);
        }
        let pairs = out.as_chunks_mut::<2>().0;
        let last = sums.len() - 1;
        for (pair, three) in pairs[1..last].iter_mut().zip(sums.windows(3)) {
            let own = 3 * three[1];
            let both = (own + three[0] + 8) >> 4 | (own + three[2] + 7) >> 4 << 8;
            *pair = both.to_le_bytes();
        }
        let (own, next) = (sums[0], sums[1]);
        pairs[0] = [((own * 4 + 8) >> 4) as u8, ((own * 3 + next + 7) >> 4) as u8];
        let (own, before) = (sums[last], sums[last - 1]);
        pairs[last] = [((own * 3 + before + 8) >> 4) as u8, ((own * 4 + 7) >> 4) as u8];
    }
}

vectorised! {
    /// RGB of Y, Cb and Cr.
    pub(super) fn colour(y: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
        let (blocks, rest) = out.as_chunks_mut::<{ BLOCK * 3 }>();
        let whole = blocks.len() * BLOCK;
        let parts = y.as_chunks::<BLOCK>().0.iter();
        let parts = parts.zip(cb.as_chunks::<BLOCK>().0).zip(cr.as_chunks::<BLOCK>().0);
        for (((y, cb), cr), out) in parts.zip(blocks) {
            let mut planes = [[0u8; BLOCK]; 3];
            for i in 0..BLOCK {
                let rgb = one(y[i], cb[i], cr[i]);
                planes[0][i] = rgb[0];
                planes[1][i] = rgb[1];
                planes[2][i] = rgb[2];
            }
            together(&planes, out);
        }
        let tail = y[whole..].iter().zip(&cb[whole..]).zip(&cr[whole..]);
        for (pixel, ((y, cb), cr)) in rest.as_chunks_mut::<3>().0.iter_mut().zip(tail) {
            *pixel = one(*y, *cb, *cr);
        }
    }
}

/// RGB of a pixel (ITU-R BT.601 in full range, rounded as libjpeg does).
#[inline(always)]
pub(super) fn one(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (i16::from(y), i16::from(cb) - 128, i16::from(cr) - 128);
    // x·factor / 2^16, rounded, by halves of vector registers: all that is beyond 16 bits is cut off.
    let part = |x: i16, factor: i32| ((((i32::from(2 * x) * factor) >> 16) as i16) + 1) >> 1;
    let (blue, red) = (i32::from(cb), i32::from(cr));
    let mixed = ((-22_554 * blue + 18_734 * red + 32_768) >> 16) as i16;
    // 1.402 = 1 + 26 345 / 2^16, 1.772 = 2 − 14 942 / 2^16, 0.714 = 1 − 18 734 / 2^16.
    let r = y + cr + part(cr, 26_345);
    let g = y - cr + mixed;
    let b = y + 2 * cb + part(cb, -14_942);
    [r, g, b].map(|v| v.clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    #[test]
    fn colours_are_those_of_libjpegs_formula() {
        for (cb, cr) in (0..=255u8).flat_map(|b| (0..=255).map(move |r| (b, r))) {
            for y in [0, 1, 100, 128, 254, 255] {
                let (l, b, r) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
                let levels = [
                    l + ((91_881 * r + 32_768) >> 16),
                    l + ((-22_554 * b - 46_802 * r + 32_768) >> 16),
                    l + ((116_130 * b + 32_768) >> 16),
                ];
                let expected = levels.map(|v| v.clamp(0, 255) as u8);
                assert_eq!(super::one(y, cb, cr), expected);
            }
        }
    }
}
