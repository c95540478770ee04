//! JPEG at an eighth of its size. Only means of blocks count there (and for subsampled chroma two by two
//! values a block), so nearly all of the work is to find the end of each block: several times faster
//! than decoding every coefficient, with the very pixels of libjpeg-turbo.

use super::entropy::{Bits, LARGEST, ZIGZAG_PADDED, in_file_order};
use super::{frame::Frame, upsample};
use crate::{Image, Rect, pool};

/// Pictures of fewer pixels do not earn the cost of the look-up tables.
const SMALLEST: usize = 1 << 19;

/// The part `region` of the picture at 1/8, or all of it. `None` = not of the common kind, or damaged:
/// libjpeg-turbo must look.
pub(super) fn decode(bytes: &[u8], region: Option<Rect>) -> Option<Image> {
    let frame = Frame::read(bytes)?;
    if frame.width * frame.height < SMALLEST {
        return None;
    }
    let (width, height) = (frame.width.div_ceil(8), frame.height.div_ceil(8));
    let whole = Rect {
        x: 0,
        y: 0,
        width,
        height,
    };
    let region = region.map_or(whole, |r| r.clamped(width, height));
    let subsampled = frame.components[0].blocks == (2, 2);
    for (place, component) in frame.components.iter().enumerate() {
        let (_, ac, _) = frame.tables(component)?;
        if subsampled && place > 0 {
            ac.prepare_values();
        } else {
            ac.prepare_steps();
        }
    }
    let mut rows = Rows::new(&frame, subsampled)?;
    let mut bits = Bits::new(bytes, frame.scan);
    let pixels = pool::take(region.width * region.height * 3);
    let mut image = Image::new(region.width, region.height, pixels).ok()?;
    let end = region.y + region.height;
    for top in (0..end).step_by(rows.tall) {
        bits = rows.read(bits, &frame)?;
        for line in (0..rows.tall).filter(|l| (region.y..end).contains(&(top + l))) {
            rows.colour(line, region.x, image.row_mut(top + line - region.y));
        }
    }
    if end == height {
        bits.behind(0xd9)?;
    }
    Some(image)
}

/// One row of MCUs: samples of each component, all at the scale of the result.
struct Rows {
    /// Lines, and samples of a line.
    tall: usize,
    stride: usize,
    mcus: usize,
    subsampled: bool,
    samples: Vec<Vec<u8>>,
    /// Mean of the block before, of each component.
    means: Vec<i32>,
    /// MCUs until the next restart marker, and its number.
    until: usize,
    number: u8,
}

impl Rows {
    fn new(frame: &Frame, subsampled: bool) -> Option<Self> {
        let tall = if subsampled { 2 } else { 1 };
        let mcus = frame.width.div_ceil(8 * tall);
        let stride = mcus * tall;
        let count = frame.components.len();
        Some(Self {
            tall,
            stride,
            mcus,
            subsampled,
            samples: vec![vec![0; stride * tall]; count],
            means: vec![0; count],
            until: frame.restart,
            number: 0,
        })
    }

    fn restart(&mut self, frame: &Frame) {
        self.number = (self.number + 1) % 8;
        self.until = frame.restart;
        self.means.fill(0);
    }

    fn read<'a>(&mut self, bits: Bits<'a>, frame: &Frame) -> Option<Bits<'a>> {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,bmi1,bmi2")]
            fn wide<'a>(rows: &mut Rows, bits: Bits<'a>, frame: &Frame) -> Option<Bits<'a>> {
                rows.read_any(bits, frame)
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
                // SAFETY: as just checked; processors with BMI2 have BMI1.
                return unsafe { wide(self, bits, frame) };
            }
        }
        self.read_any(bits, frame)
    }

    #[inline(always)]
    fn read_any<'a>(&mut self, bits: Bits<'a>, frame: &Frame) -> Option<Bits<'a>> {
        let mut bits = bits.own();
        let tables: Vec<_> = frame
            .components
            .iter()
            .map(|c| frame.tables(c))
            .collect::<Option<_>>()?;
        let orders: Vec<_> = tables.iter().map(|(_, _, q)| in_file_order(q)).collect();
        for mcu in 0..self.mcus {
            if frame.restart > 0 {
                if self.until == 0 {
                    bits = bits.behind(0xd0 + self.number)?;
                    self.restart(frame);
                }
                self.until -= 1;
            }
            for (c, (dc, ac, quant)) in tables.iter().enumerate() {
                let (mean, samples) = (&mut self.means[c], &mut self.samples[c]);
                if c > 0 && self.subsampled {
                    // Places behind the 64 take what is beyond a block's end.
                    let mut block = [0; 128];
                    block[0] = step(mean, bits.dc(dc)?, quant[0])? as i16;
                    let (order, mut largest) = (&orders[c], 0u32);
                    bits.read_coefficients(ac, |at, value| {
                        let value = i32::from(value) * order[at & 63];
                        largest |= u32::from((value + LARGEST) as u32 > 2 * LARGEST as u32);
                        block[usize::from(ZIGZAG_PADDED[at & 127] & 127)] = value as i16;
                    })?;
                    if largest != 0 {
                        return None;
                    }
                    let [a, b, c, d] = two_by_two(&block)?;
                    let (above, below) = samples.split_at_mut(self.stride);
                    above[mcu * 2..mcu * 2 + 2].copy_from_slice(&[a, b]);
                    below[mcu * 2..mcu * 2 + 2].copy_from_slice(&[c, d]);
                    continue;
                }
                for y in 0..self.tall {
                    for x in 0..self.tall {
                        let value = step(mean, bits.dc(dc)?, quant[0])?;
                        bits.skip_block(ac)?;
                        samples[y * self.stride + mcu * self.tall + x] = one(value);
                    }
                }
            }
        }
        bits.is_whole().then_some(bits)
    }

    /// RGB of a line from column `left` on.
    fn colour(&self, line: usize, left: usize, out: &mut [u8]) {
        let from = line * self.stride + left;
        let pixels = out.as_chunks_mut::<3>().0.iter_mut();
        let luma = &self.samples[0][from..];
        let [_, blue, red] = &self.samples[..] else {
            pixels.zip(luma).for_each(|(p, y)| *p = [*y; 3]);
            return;
        };
        let chroma = blue[from..].iter().zip(&red[from..]);
        for ((pixel, y), (cb, cr)) in pixels.zip(luma).zip(chroma) {
            *pixel = upsample::one(*y, *cb, *cr);
        }
    }
}

/// The next block's mean, times its quantization.
#[inline(always)]
fn step(mean: &mut i32, difference: i32, quant: i32) -> Option<i32> {
    *mean += difference;
    if !(-32_768..32_768).contains(mean) {
        return None;
    }
    let value = *mean * quant;
    (value.abs() <= LARGEST).then_some(value)
}

/// `value / 2^shift`, rounded.
#[inline(always)]
fn descale(value: i32, shift: u32) -> i32 {
    (value + (1 << (shift - 1))) >> shift
}

#[inline(always)]
fn level(value: i32) -> u8 {
    (value + 128).clamp(0, 255) as u8
}

/// The mean of a block.
#[inline(always)]
fn one(dc: i32) -> u8 {
    level(descale(dc, 3))
}

/// A block at a quarter of its sides: means of its four quarters, by the odd part of the 8-point
/// inverse DCT (libjpeg's reduced-size one: 13 fractional bits, 2 between the passes).
#[inline(always)]
fn two_by_two(block: &[i16; 128]) -> Option<[u8; 4]> {
    const ODD: [(usize, i32); 4] = [(7, -5906), (5, 6967), (3, -10_426), (1, 29_692)];
    let mut between = [[0i32; 8]; 2];
    for column in 0..8 {
        let at = |row: usize| i32::from(block[row * 8 + column]);
        let even = at(0) << 15;
        let odd: i32 = ODD.iter().map(|(k, c)| at(*k) * c).sum();
        between[0][column] = descale(even + odd, 13);
        between[1][column] = descale(even - odd, 13);
    }
    // Beyond this libjpeg-turbo's vectors of 16 and 32 bits overflow; only damage gets there.
    let mut largest = 0;
    for column in [0, 1, 3, 5, 7] {
        largest = largest
            .max(between[0][column].abs())
            .max(between[1][column].abs());
    }
    if largest > 1 << 14 {
        return None;
    }
    let row = |row: &[i32; 8]| {
        let even = row[0] << 15;
        let odd: i32 = ODD.iter().map(|(k, c)| row[*k] * c).sum();
        [descale(even + odd, 20), descale(even - odd, 20)].map(level)
    };
    let ([a, b], [c, d]) = (row(&between[0]), row(&between[1]));
    Some([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use turbojpeg::Subsamp;

    use super::*;
    use crate::Rng;
    use crate::jpeg::testing::{jpeg, with_restarts};

    fn turbo(bytes: &[u8], region: Option<Rect>) -> Result<Image, crate::ImageError> {
        crate::jpeg::decode_turbo(bytes, 8, region)
    }

    const KINDS: [Option<Subsamp>; 3] = [Some(Subsamp::Sub2x2), Some(Subsamp::None), None];

    #[test]
    fn pixels_are_those_of_libjpeg_turbo() {
        for (kind, quality) in KINDS.into_iter().flat_map(|k| [(k, 30), (k, 90), (k, 100)]) {
            let bytes = jpeg((1013, 611), kind, quality);
            let whole = decode(&bytes, None).expect("a common JPEG");
            assert!(whole == turbo(&bytes, None).unwrap(), "{kind:?} {quality}");
            let part = Rect {
                x: 21,
                y: 9,
                width: 70,
                height: 41,
            };
            let cut = decode(&bytes, Some(part)).unwrap();
            assert!(cut == whole.crop(part), "{kind:?} {quality}: a part");
        }
    }

    #[test]
    fn other_kinds_and_small_pictures_are_left_to_libjpeg_turbo() {
        let subsampled = jpeg((1013, 611), Some(Subsamp::Sub2x1), 90);
        assert!(decode(&subsampled, None).is_none() && turbo(&subsampled, None).is_ok());
        assert!(decode(&jpeg((300, 200), KINDS[0], 90), None).is_none());
    }

    #[test]
    fn damage_is_left_to_libjpeg_turbo_and_never_panics() {
        let bytes = jpeg((1013, 611), KINDS[0], 80);
        for cut in [4, bytes.len() / 3, bytes.len() - 700, bytes.len() - 2] {
            assert!(decode(&bytes[..cut], None).is_none(), "cut at {cut}");
        }
        let mut decoded = 0;
        for seed in 0..60 {
            let mut rng = Rng::of(&[seed]);
            let mut damaged = bytes.clone();
            // The tables at the front, or anywhere.
            let reach = [700, damaged.len()][seed as usize % 2];
            for _ in 0..1 + rng.below(3) {
                let place = rng.below(reach);
                damaged[place] = rng.bits() as u8;
            }
            if let Some(image) = decode(&damaged, None) {
                decoded += 1;
                let theirs = turbo(&damaged, None);
                let theirs = theirs.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                assert!(theirs == image, "seed {seed}");
            }
        }
        assert!(decoded > 0, "some damage shows as other pixels only");
    }

    #[test]
    fn restart_markers_are_followed() {
        let bytes = with_restarts(&jpeg((1013, 611), KINDS[1], 85));
        let whole = decode(&bytes, None).expect("a common JPEG");
        assert!(whole == turbo(&bytes, None).unwrap());
        // A marker out of order is damage.
        let place = bytes.windows(2).position(|w| w == [0xff, 0xd3]).unwrap();
        let mut damaged = bytes.clone();
        damaged[place + 1] = 0xd5;
        assert!(decode(&damaged, None).is_none());
    }
}
