//! Bilinear resize of RGB in integers: two neighbours an axis, weights of 8 bits across and of 15 down. Columns come
//! first; two resized rows are kept, and only rows that are needed are resized at all.

use crate::Rect;

/// Bytes that one look-up of two pixels sees.
#[cfg(target_arch = "x86_64")]
const REACH: usize = 16;
/// Values that two pixels take between the passes: six, and two of nothing.
const PAIR: usize = 8;

/// A resize from a box of a picture to a rectangle.
pub(crate) struct Bilinear {
    /// Left, top, width and height in pixels of the picture; fractions are allowed.
    pub place: (f64, f64, f64, f64),
    /// Pixels outside it never shine in.
    pub within: Rect,
    /// Width and height of the result.
    pub to: (usize, usize),
    /// Whether the result is mirrored left and right.
    pub mirrored: bool,
}

/// Two neighbours of one place, and the second's weight.
#[derive(Clone, Copy)]
struct Tap {
    near: usize,
    far: usize,
    weight: f64,
}

/// The neighbours of `count` places that share `length` pixels from `start` on.
fn taps(start: f64, length: f64, count: usize, from: usize, size: usize) -> Vec<Tap> {
    let step = length / count as f64;
    let (first, last) = (from as f64, (from + size - 1) as f64);
    let tap = |place: usize| {
        let centre = start + (place as f64 + 0.5) * step - 0.5;
        let left = centre.floor();
        Tap {
            near: left.clamp(first, last) as usize,
            far: (left + 1.0).clamp(first, last) as usize,
            weight: centre - left,
        }
    };
    (0..count).map(tap).collect()
}

/// Two neighbouring columns of the result: where their source begins in a row, in bytes, and for each value between
/// the passes two places from there with their weights, which sum to 256.
#[cfg(target_arch = "x86_64")]
struct Pair {
    start: usize,
    places: [u8; REACH],
    weights: [u8; REACH],
}

/// Of every two columns; the last repeats up to a multiple of four. `None` where two columns lie too far apart.
#[cfg(target_arch = "x86_64")]
fn pairs(columns: &[Tap], width: usize) -> Option<Vec<Pair>> {
    let last_start = (width * 3).checked_sub(REACH)?;
    let pair = |columns: &[Tap]| {
        let both = [columns[0], columns[columns.len() - 1]];
        let first = both.iter().map(|tap| tap.near).min()? * 3;
        let start = first.min(last_start);
        // What no shuffle reaches is 0.
        let (mut places, mut weights) = ([0x80; REACH], [0; REACH]);
        for (i, value) in (0..6).map(|i| (i, both[i / 3])) {
            let part = (value.weight * 256.0).round() as usize;
            let (near, far, part) = match part {
                0 => (value.near, value.near, 128),
                256 => (value.far, value.far, 128),
                part => (value.near, value.far, part),
            };
            for (place, (column, weight)) in [(near, 256 - part), (far, part)].iter().enumerate() {
                let at = column * 3 + i % 3 - start;
                if at >= REACH {
                    return None;
                }
                places[i * 2 + place] = at as u8;
                weights[i * 2 + place] = *weight as u8;
            }
        }
        Some(Pair {
            start,
            places,
            weights,
        })
    };
    let missing = (4 - columns.len().div_ceil(2) % 4) % 4;
    let last = std::iter::repeat_n(columns.chunks(2).next_back()?, missing);
    columns.chunks(2).chain(last).map(pair).collect()
}

impl Bilinear {
    /// From a picture whose rows are `width` pixels to rows of `out` that begin `stride` bytes apart.
    /// `out` reaches to the end of the last row; `within` lies in the picture and has a pixel.
    pub fn run(&self, data: &[u8], width: usize, out: &mut [u8], stride: usize) {
        let (left, top, wide, high) = self.place;
        let within = self.within;
        let mut columns = taps(left, wide, self.to.0, within.x, within.width);
        if self.mirrored {
            columns.reverse();
        }
        let rows = taps(top, high, self.to.1, within.y, within.height);
        let across = Across::new(columns, width);
        let mut held: [(Option<usize>, Vec<i16>); 2] =
            std::array::from_fn(|_| (None, vec![0; across.length()]));
        for (tap, out) in rows.iter().zip(out.chunks_mut(stride)) {
            // Neighbours have different slots.
            for y in [tap.near, tap.far] {
                let (row, values) = &mut held[y % 2];
                if *row != Some(y) {
                    *row = Some(y);
                    across.resize(&data[y * width * 3..(y + 1) * width * 3], values);
                }
            }
            let far = (tap.weight * 32_767.0).round() as i16;
            let (near_row, far_row) = (&held[tap.near % 2].1, &held[tap.far % 2].1);
            between(near_row, far_row, far, &mut out[..self.to.0 * 3]);
        }
    }
}

/// The pass along rows.
enum Across {
    #[cfg(target_arch = "x86_64")]
    Wide(Vec<Pair>),
    Plain(Vec<Tap>),
}

impl Across {
    fn new(columns: Vec<Tap>, width: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && let Some(pairs) = pairs(&columns, width)
        {
            return Self::Wide(pairs);
        }
        Self::Plain(columns)
    }

    /// Values of a resized row, a multiple of 32.
    fn length(&self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Wide(pairs) => pairs.len() * PAIR,
            Self::Plain(columns) => columns.len().div_ceil(8) * 4 * PAIR,
        }
    }

    /// Values less 128, times 256.
    fn resize(&self, row: &[u8], out: &mut [i16]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: made only where AVX2 is there.
            Self::Wide(pairs) => unsafe { wide::across(pairs, row, out) },
            Self::Plain(columns) => {
                for (i, tap) in columns.iter().enumerate() {
                    let part = (tap.weight * 256.0).round() as i32;
                    for c in 0..3 {
                        let level = |x: usize| i32::from(row[x * 3 + c]) - 128;
                        let sum = level(tap.near) * (256 - part) + level(tap.far) * part;
                        out[i / 2 * PAIR + i % 2 * 3 + c] = sum as i16;
                    }
                }
            }
        }
    }
}

/// Levels between two resized rows; `far` of 32767 is the second's weight.
fn between(near: &[i16], far: &[i16], weight: i16, out: &mut [u8]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 is there.
        done = unsafe { wide::between(near, far, weight, out) };
    }
    let scaled = |value: i16, weight: i16| (i32::from(value) * i32::from(weight) + (1 << 14)) >> 15;
    for (i, level) in out.iter_mut().enumerate().skip(done) {
        let at = i / 6 * PAIR + i % 6;
        let sum = scaled(near[at], 32_767 - weight) + scaled(far[at], weight);
        *level = (((sum + 128) >> 8) + 128).clamp(0, 255) as u8;
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;

    use super::{PAIR, Pair, REACH};

    #[target_feature(enable = "avx2")]
    pub fn across(pairs: &[Pair], row: &[u8], out: &mut [i16]) {
        let middle = _mm256_set1_epi8(-128);
        let two = |pairs: &[Pair; 2], of: fn(&Pair) -> &[u8; REACH]| {
            let [a, b] = [of(&pairs[0]), of(&pairs[1])];
            // SAFETY: sixteen bytes are read where sixteen are.
            unsafe { _mm256_loadu2_m128i(b.as_ptr().cast(), a.as_ptr().cast()) }
        };
        let (pairs, out) = (
            pairs.as_chunks::<2>().0,
            out.as_chunks_mut::<{ 2 * PAIR }>().0,
        );
        for (pair, out) in pairs.iter().zip(out) {
            let [a, b] = [&row[pair[0].start..], &row[pair[1].start..]];
            let (a, b) = (&a[..REACH], &b[..REACH]);
            // SAFETY: sixteen bytes each, as just cut out.
            let source = unsafe { _mm256_loadu2_m128i(b.as_ptr().cast(), a.as_ptr().cast()) };
            let values = _mm256_shuffle_epi8(source, two(pair, |p| &p.places));
            let values = _mm256_xor_si256(values, middle);
            let sums = _mm256_maddubs_epi16(two(pair, |p| &p.weights), values);
            // SAFETY: sixteen values have 32 bytes.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sums) };
        }
    }

    /// Bytes that were written: whole groups of 8 pixels with room behind them.
    #[target_feature(enable = "avx2")]
    pub fn between(near: &[i16], far: &[i16], weight: i16, out: &mut [u8]) -> usize {
        const GROUP: usize = 4 * PAIR;
        let weights = [
            _mm256_set1_epi16(32_767 - weight),
            _mm256_set1_epi16(weight),
        ];
        let (half, middle) = (_mm256_set1_epi16(128), _mm256_set1_epi8(-128));
        let none = -1;
        let close = _mm256_broadcastsi128_si256(_mm_setr_epi8(
            0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, none, none, none, none,
        ));
        // Each half writes 16 bytes, of which 12 count.
        let groups = (out.len() / 24).min(out.len().saturating_sub(4) / 24);
        let rows = near.as_chunks::<GROUP>().0.iter();
        let rows = rows.zip(far.as_chunks::<GROUP>().0).take(groups);
        for (group, (near, far)) in rows.enumerate() {
            let sums = |at: usize| {
                // SAFETY: 16 of the group's 32 values each, from its begin or its middle.
                let (near, far) = unsafe {
                    (
                        _mm256_loadu_si256(near[at..at + 16].as_ptr().cast()),
                        _mm256_loadu_si256(far[at..at + 16].as_ptr().cast()),
                    )
                };
                let sum = _mm256_adds_epi16(
                    _mm256_mulhrs_epi16(near, weights[0]),
                    _mm256_mulhrs_epi16(far, weights[1]),
                );
                _mm256_srai_epi16::<8>(_mm256_adds_epi16(sum, half))
            };
            let levels = _mm256_xor_si256(_mm256_packs_epi16(sums(0), sums(16)), middle);
            // Pairs 0 and 2 lie in the lower half, 1 and 3 in the upper one.
            let levels = _mm256_permute4x64_epi64::<0b11_01_10_00>(levels);
            let levels = _mm256_shuffle_epi8(levels, close);
            let place = &mut out[group * 24..group * 24 + 28];
            // SAFETY: 28 bytes take 16 from the begin and 16 from the twelfth on.
            unsafe {
                let (low, high) = (
                    _mm256_castsi256_si128(levels),
                    _mm256_extracti128_si256::<1>(levels),
                );
                _mm_storeu_si128(place.as_mut_ptr().cast(), low);
                _mm_storeu_si128(place.as_mut_ptr().add(12).cast(), high);
            }
        }
        groups * 24
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    /// The definition, in floats.
    fn plain(of: &Bilinear, data: &[u8], width: usize) -> Vec<f64> {
        let w = of.within;
        let mut columns = taps(of.place.0, of.place.2, of.to.0, w.x, w.width);
        if of.mirrored {
            columns.reverse();
        }
        let rows = taps(of.place.1, of.place.3, of.to.1, w.y, w.height);
        let mut out = Vec::new();
        for y in &rows {
            for x in &columns {
                for c in 0..3 {
                    let level = |x: usize, y: usize| f64::from(data[(y * width + x) * 3 + c]);
                    let row =
                        |y: usize| level(x.near, y) * (1.0 - x.weight) + level(x.far, y) * x.weight;
                    out.push(row(y.near) * (1.0 - y.weight) + row(y.far) * y.weight);
                }
            }
        }
        out
    }

    #[test]
    fn levels_are_those_of_the_definition_at_every_scale() {
        for seed in 0..60 {
            let mut rng = Rng::of(&[seed]);
            let (width, height) = (1 + rng.below(90), 1 + rng.below(40));
            let data: Vec<u8> = (0..width * height * 3)
                .map(|_| rng.below(256) as u8)
                .collect();
            let within = Rect {
                x: rng.below(width),
                y: rng.below(height),
                width: 1 + rng.below(width),
                height: 1 + rng.below(height),
            }
            .clamped(width, height);
            let of = Bilinear {
                place: (
                    within.x as f64 + rng.uniform(-0.5, 0.5),
                    within.y as f64 + rng.uniform(-0.5, 0.5),
                    within.width as f64,
                    within.height as f64,
                ),
                within,
                to: (1 + rng.below(120), 1 + rng.below(50)),
                mirrored: rng.chance(0.5),
            };
            let stride = of.to.0 * 3 + 7;
            let mut out = vec![9; stride * of.to.1];
            of.run(&data, width, &mut out, stride);
            let expected = plain(&of, &data, width);
            for (row, expected) in out.chunks(stride).zip(expected.chunks(of.to.0 * 3)) {
                for (level, expected) in row.iter().zip(expected) {
                    // Half a level of rounding, and what weights of 8 bits may be off at the strongest edge.
                    let off = (f64::from(*level) - expected).abs();
                    assert!(off < 1.02, "seed {seed}: {level}, not {expected}");
                }
                assert_eq!(row[of.to.0 * 3..], [9; 7], "nothing beyond the row");
            }
        }
    }

    #[test]
    fn the_plain_way_gives_the_same_levels() {
        let mut rng = Rng::of(&[3]);
        let data: Vec<u8> = (0..64 * 3).map(|_| rng.below(256) as u8).collect();
        let columns = taps(0.0, 64.0, 101, 0, 64);
        let plain = Across::Plain(columns.clone());
        let chosen = Across::new(columns, 64);
        let [mut a, mut b] = [plain.length(), chosen.length()].map(|n| vec![0; n]);
        plain.resize(&data, &mut a);
        chosen.resize(&data, &mut b);
        let shown = |row: &[i16]| -> Vec<i16> {
            let value = |i: usize| row[i / 6 * PAIR + i % 6];
            (0..303).map(value).collect()
        };
        assert_eq!(shown(&a), shown(&b));
        let (mut whole, mut last) = (vec![0; 303], vec![0; 303]);
        let other: Vec<i16> = a.iter().rev().copied().collect();
        between(&a, &other, 12_345, &mut whole);
        for (i, level) in last.iter_mut().enumerate() {
            let mut one = vec![0; i + 1];
            between(&a, &other, 12_345, &mut one);
            *level = one[i];
        }
        assert_eq!(whole, last);
    }
}
