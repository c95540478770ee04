//! JPEG at an eighth of its size. Only means of blocks count there (and for subsampled chroma two by two
//! values a block), so nearly all of the work is to find the end of each block: several times faster
//! than decoding every coefficient, with the very pixels of libjpeg-turbo.

use super::entropy::{Bits, LARGEST};
use super::frame::Frame;
use crate::{Image, Rect, pool};

/// Pictures of fewer pixels do not earn the cost of the look-up tables.
const SMALLEST: usize = 1 << 19;

/// The part `region` of the picture at 1/8, or all of it. `None` = not of the common kind, or damaged:
/// libjpeg-turbo must look.
pub(super) fn decode(bytes: &[u8], region: Option<Rect>) -> Option<Image> {
    let mut frame = Frame::read(bytes)?;
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
    let skipped = if subsampled {
        1
    } else {
        frame.components.len()
    };
    for place in 0..skipped {
        let ac = frame.components[place].ac;
        frame.prepare_steps(ac);
    }
    let mut rows = Rows::new(&frame, subsampled)?;
    let mut bits = Bits::new(bytes, frame.scan);
    let pixels = pool::take(region.width * region.height * 3);
    let mut image = Image::new(region.width, region.height, pixels).ok()?;
    let end = region.y + region.height;
    for top in (0..end).step_by(rows.tall) {
        rows.read(&mut bits, &frame)?;
        for line in (0..rows.tall).filter(|l| (region.y..end).contains(&(top + l))) {
            rows.colour(line, region.x, image.row_mut(top + line - region.y));
        }
    }
    if end == height {
        bits.marker(0xd9)?;
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

    fn restart(&mut self, bits: &mut Bits<'_>, frame: &Frame) -> Option<()> {
        bits.marker(0xd0 + self.number)?;
        self.number = (self.number + 1) % 8;
        self.until = frame.restart;
        self.means.fill(0);
        Some(())
    }

    fn read(&mut self, bits: &mut Bits<'_>, frame: &Frame) -> Option<()> {
        let tables: Vec<_> = frame
            .components
            .iter()
            .map(|c| frame.tables(c))
            .collect::<Option<_>>()?;
        for mcu in 0..self.mcus {
            if frame.restart > 0 {
                if self.until == 0 {
                    self.restart(bits, frame)?;
                }
                self.until -= 1;
            }
            for (c, (dc, ac, quant)) in tables.iter().enumerate() {
                let (mean, samples) = (&mut self.means[c], &mut self.samples[c]);
                if c > 0 && self.subsampled {
                    let mut block = [0; 64];
                    block[0] = step(mean, bits.dc(dc)?, quant[0])?;
                    bits.read_block(ac, quant, &mut block)?;
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
        bits.is_whole().then_some(())
    }

    /// RGB of a line from column `left` on (ITU-R BT.601 in full range, rounded as libjpeg does).
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
            let (y, cb, cr) = (i32::from(*y), i32::from(*cb) - 128, i32::from(*cr) - 128);
            let r = y + ((91_881 * cr + 32_768) >> 16);
            let g = y + ((-22_554 * cb - 46_802 * cr + 32_768) >> 16);
            let b = y + ((116_130 * cb + 32_768) >> 16);
            *pixel = [r, g, b].map(|v| v.clamp(0, 255) as u8);
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
fn descale(value: i64, shift: u32) -> i64 {
    (value + (1 << (shift - 1))) >> shift
}

fn level(value: i64) -> u8 {
    (value + 128).clamp(0, 255) as u8
}

/// The mean of a block.
fn one(dc: i32) -> u8 {
    level(descale(dc.into(), 3))
}

/// A block at a quarter of its sides: means of its four quarters, by the odd part of the 8-point
/// inverse DCT (libjpeg's reduced-size one: 13 fractional bits, 2 between the passes).
fn two_by_two(block: &[i32; 64]) -> Option<[u8; 4]> {
    const ODD: [(usize, i64); 4] = [(7, -5906), (5, 6967), (3, -10_426), (1, 29_692)];
    let mut between = [[0i64; 8]; 2];
    for column in [0, 1, 3, 5, 7] {
        let at = |row: usize| i64::from(block[row * 8 + column]);
        let even = at(0) << 15;
        let odd: i64 = ODD.iter().map(|(k, c)| at(*k) * c).sum();
        between[0][column] = descale(even + odd, 13);
        between[1][column] = descale(even - odd, 13);
    }
    // Beyond this libjpeg-turbo's vectors of 16 and 32 bits overflow; only damage gets there.
    if between.as_flattened().iter().any(|v| v.abs() > 1 << 14) {
        return None;
    }
    let row = |row: &[i64; 8]| {
        let even = row[0] << 15;
        let odd: i64 = ODD.iter().map(|(k, c)| row[*k] * c).sum();
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

    /// A picture with flat and busy parts as JPEG, grey for no subsampling at all.
    fn jpeg(size: (usize, usize), subsampling: Option<Subsamp>, quality: i32) -> Vec<u8> {
        let mut rng = Rng::of(&[size.0 as u64, quality as u64]);
        let mut image = Image::filled(size.0, size.1, [0; 3]);
        for y in 0..size.1 {
            let busy = [4, 250][y / 64 % 2];
            for (x, value) in image.row_mut(y).iter_mut().enumerate() {
                *value = ((x / 7 + y / 3) % (256 - busy) + rng.below(busy)) as u8;
            }
        }
        let mut compressor = turbojpeg::Compressor::new().unwrap();
        compressor.set_quality(quality).unwrap();
        compressor
            .set_subsamp(subsampling.unwrap_or(Subsamp::Gray))
            .unwrap();
        let image = turbojpeg::Image {
            pixels: image.data(),
            width: size.0,
            pitch: size.0 * 3,
            height: size.1,
            format: turbojpeg::PixelFormat::RGB,
        };
        compressor.compress_to_vec(image).unwrap()
    }

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

    /// The same picture with a restart marker after each row of MCUs, by libjpeg-turbo.
    fn with_restarts(bytes: &[u8]) -> Vec<u8> {
        use turbojpeg::raw;
        let image = crate::jpeg::decode_turbo(bytes, 1, None).unwrap();
        let (mut out, mut length) = (std::ptr::null_mut(), 0);
        // SAFETY: a fresh handle, pixels of the told size, and a buffer that libjpeg-turbo allocates.
        unsafe {
            let handle = raw::tj3Init(raw::TJINIT_TJINIT_COMPRESS as i32);
            let set = |param: raw::TJPARAM, value| raw::tj3Set(handle, param as i32, value);
            set(raw::TJPARAM_TJPARAM_QUALITY, 85);
            set(raw::TJPARAM_TJPARAM_SUBSAMP, raw::TJSAMP_TJSAMP_444);
            set(raw::TJPARAM_TJPARAM_RESTARTROWS, 1);
            let (width, height) = (image.width() as i32, image.height() as i32);
            let format = raw::TJPF_TJPF_RGB;
            let pixels = image.data().as_ptr();
            let code = raw::tj3Compress8(
                handle,
                pixels,
                width,
                0,
                height,
                format,
                &mut out,
                &mut length,
            );
            assert_eq!(code, 0);
            let made = std::slice::from_raw_parts(out, length as usize).to_vec();
            raw::tj3Free(out.cast());
            raw::tj3Destroy(handle);
            made
        }
    }
}
