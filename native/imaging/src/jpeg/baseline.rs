//! JPEG of the common kind at its full size: our own way through the entropy-coded data, which takes most of
//! the time, then what libjpeg-turbo does, to the very pixels. Of blocks that nobody looks at only the end is
//! searched.

use super::dct::{Block, Samples, Steps, samples};
use super::entropy::{Bits, LARGEST, ZIGZAG_PADDED};
use super::frame::{Component, Frame};
use super::upsample::{colour, doubled};
use crate::{Image, Rect, pool};

/// Pictures of fewer pixels do not earn the cost of the look-up tables.
const SMALLEST: usize = 1 << 14;
/// Narrower or lower pictures are upsampled in another way.
const SHORTEST: usize = 16;

/// The part `region` of the picture, or all of it. `None` = not of the common kind, or damaged: libjpeg-turbo
/// must look.
pub(super) fn decode(bytes: &[u8], region: Option<Rect>) -> Option<Image> {
    let frame = Frame::read(bytes)?;
    let (width, height) = (frame.width, frame.height);
    if width * height < SMALLEST || width.min(height) < SHORTEST {
        return None;
    }
    let whole = Rect {
        x: 0,
        y: 0,
        width,
        height,
    };
    let region = region.map_or(whole, |r| r.clamped(width, height));
    let window = Window::new(&frame, region);
    for component in &frame.components {
        let (_, ac, _) = frame.tables(component)?;
        ac.prepare_values();
        if !window.is_whole() {
            ac.prepare_steps();
        }
    }
    let mut planes = Planes::new(&frame, &window)?;
    let bits = planes.read(Bits::new(bytes, frame.scan), &frame, &window)?;
    if window.bottom == window.rows {
        bits.behind(0xd9)?;
    }
    let pixels = pool::take(region.width * region.height * 3);
    let mut image = Image::new(region.width, region.height, pixels).ok()?;
    planes.show(&frame, &window, region, &mut image);
    planes.recycle();
    Some(image)
}

/// The MCUs that are decoded: those of the region and the neighbours that smooth upsampling looks at.
struct Window {
    left: usize,
    right: usize,
    top: usize,
    bottom: usize,
    /// MCUs of the whole picture.
    columns: usize,
    rows: usize,
}

impl Window {
    fn new(frame: &Frame, region: Rect) -> Self {
        let side = 8 * frame.components[0].blocks.0;
        let (columns, rows) = (frame.width.div_ceil(side), frame.height.div_ceil(side));
        // One chroma sample is two pixels, which may begin one before.
        let reach = if side == 16 { 3 } else { 0 };
        let along = |from: usize, length: usize, count: usize| {
            let first = from.saturating_sub(reach) / side;
            (first, (from + length + reach).div_ceil(side).min(count))
        };
        let (left, right) = along(region.x, region.width, columns);
        let (top, bottom) = along(region.y, region.height, rows);
        Self {
            left,
            right,
            top,
            bottom,
            columns,
            rows,
        }
    }

    fn is_whole(&self) -> bool {
        (self.left, self.top) == (0, 0) && (self.right, self.bottom) == (self.columns, self.rows)
    }
}

/// Samples of a component within the window.
struct Plane {
    stride: usize,
    samples: Vec<u8>,
}

impl Plane {
    fn row(&self, y: usize) -> &[u8] {
        &self.samples[y * self.stride..(y + 1) * self.stride]
    }

    /// `N` columns of samples, from `from` on, to a part of the MCU `at`.
    #[inline(always)]
    fn put<const N: usize>(
        &mut self,
        part: &Part,
        at: (usize, usize),
        samples: &Samples,
        from: usize,
    ) {
        let x = at.0 * part.blocks.0 + part.at.0;
        let y = at.1 * part.blocks.1 + part.at.1;
        let rows = self.samples[y * 8 * self.stride..].chunks_exact_mut(self.stride);
        for (row, samples) in rows.zip(samples) {
            row[x * 8..x * 8 + N].copy_from_slice(&samples[from..from + N]);
        }
    }
}

/// A block of an MCU.
#[derive(Clone, Copy, Default)]
struct Part {
    component: usize,
    /// Blocks of the component in an MCU, across and down, and which of them this is.
    blocks: (usize, usize),
    at: (usize, usize),
}

/// The blocks of an MCU in the order of the file, six at most.
struct Order {
    parts: [Part; 6],
    count: usize,
}

impl Order {
    fn new(components: &[Component]) -> Self {
        let blocks = components.iter().enumerate().flat_map(|(component, c)| {
            let (across, down) = c.blocks;
            (0..across * down).map(move |i| Part {
                component,
                blocks: c.blocks,
                at: (i % across, i / across),
            })
        });
        let mut order = Self {
            parts: Default::default(),
            count: 0,
        };
        for (place, part) in order.parts.iter_mut().zip(blocks) {
            *place = part;
            order.count += 1;
        }
        order
    }

    fn parts(&self) -> &[Part] {
        &self.parts[..self.count]
    }
}

struct Planes(Vec<Plane>);

impl Planes {
    fn new(frame: &Frame, window: &Window) -> Option<Self> {
        let (across, down) = (window.right - window.left, window.bottom - window.top);
        let plane = |(x, y): (usize, usize)| {
            let stride = across * 8 * x;
            let samples = pool::take(stride.checked_mul(down * 8 * y)?);
            Some(Plane { stride, samples })
        };
        let planes = frame.components.iter().map(|c| plane(c.blocks));
        planes.collect::<Option<_>>().map(Self)
    }

    fn recycle(self) {
        self.0
            .into_iter()
            .for_each(|plane| pool::give(plane.samples));
    }

    /// Reads all rows of MCUs to the window's end; what is left of the data.
    fn read<'a>(&mut self, bits: Bits<'a>, frame: &Frame, window: &Window) -> Option<Bits<'a>> {
        #[target_feature(enable = "avx2,bmi1,bmi2")]
        fn wide<'a>(
            planes: &mut Planes,
            bits: Bits<'a>,
            frame: &Frame,
            window: &Window,
        ) -> Option<Bits<'a>> {
            // SAFETY: AVX2 is there.
            unsafe { planes.read_with::<true>(bits, frame, window) }
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
            // SAFETY: as just checked; processors with BMI2 have BMI1.
            return unsafe { wide(self, bits, frame, window) };
        }
        // SAFETY: nothing is asked for.
        unsafe { self.read_with::<false>(bits, frame, window) }
    }

    /// # Safety
    /// The processor has AVX2 where `WIDE`.
    #[inline(always)]
    unsafe fn read_with<'a, const WIDE: bool>(
        &mut self,
        bits: Bits<'a>,
        frame: &Frame,
        window: &Window,
    ) -> Option<Bits<'a>> {
        let tables = frame.components.iter().map(|c| frame.tables(c));
        let tables: Vec<_> = tables.collect::<Option<_>>()?;
        let steps: Vec<_> = tables.iter().map(|(_, _, q)| Steps::new(q)).collect();
        let order = Order::new(&frame.components);
        let (mut bits, mut means) = (bits.own(), [0i32; 3]);
        let (mut until, mut number) = (frame.restart, 0);
        // Places behind the 64 take what is beyond a block's end.
        let mut blocks = [[0i16; 128]; 6];
        for row in 0..window.bottom {
            for column in 0..window.columns {
                if frame.restart > 0 {
                    if until == 0 {
                        bits = bits.behind(0xd0 + number)?;
                        (until, number) = (frame.restart, (number + 1) % 8);
                        means.fill(0);
                    }
                    until -= 1;
                }
                let shown = row >= window.top && (window.left..window.right).contains(&column);
                for (part, block) in order.parts().iter().zip(&mut blocks) {
                    let (dc, ac, quant) = tables.get(part.component)?;
                    let mean = means.get_mut(part.component)?;
                    *mean += bits.dc(dc)?;
                    if !(-32_768..32_768).contains(mean)
                        || mean.checked_mul(quant[0])?.abs() > LARGEST
                    {
                        return None;
                    }
                    if !shown {
                        bits.skip_block(ac)?;
                        continue;
                    }
                    block[..64].fill(0);
                    block[0] = *mean as i16;
                    bits.read_coefficients(ac, |at, value| {
                        block[usize::from(ZIGZAG_PADDED[at & 127] & 127)] = value;
                    })?;
                }
                if shown {
                    let at = (column - window.left, row - window.top);
                    // SAFETY: the caller has AVX2 where it is asked for.
                    unsafe { self.show_blocks::<WIDE>(&blocks, &steps, &order, at)? };
                }
            }
            if !bits.is_whole() {
                return None;
            }
        }
        Some(bits)
    }

    /// Puts the samples of an MCU's blocks into their places.
    ///
    /// # Safety
    /// The processor has AVX2 where `WIDE`.
    #[inline(always)]
    unsafe fn show_blocks<const WIDE: bool>(
        &mut self,
        blocks: &[[i16; 128]; 6],
        steps: &[Steps],
        order: &Order,
        at: (usize, usize),
    ) -> Option<()> {
        let pairs = order.parts().chunks(2).zip(blocks.as_chunks::<2>().0);
        for (parts, blocks) in pairs {
            let (first, second) = (parts.first()?, parts.last()?);
            // Without a second one the first is computed twice.
            let blocks = [&blocks[0], &blocks[parts.len() - 1]].map(|b| b.first_chunk());
            let blocks: [&Block; 2] = [blocks[0]?, blocks[1]?];
            let steps = [first, second].map(|part| steps.get(part.component));
            // SAFETY: the caller has AVX2 where it is asked for.
            let samples = unsafe { samples::<WIDE>(blocks, [steps[0]?, steps[1]?])? };
            if first.component == second.component && parts.len() == 2 {
                self.0[first.component].put::<16>(first, at, &samples, 0);
                continue;
            }
            for (part, half) in parts.iter().zip([0, 8]) {
                self.0[part.component].put::<8>(part, at, &samples, half);
            }
        }
        Some(())
    }

    /// Upsamples and converts the region's rows.
    fn show(&self, frame: &Frame, window: &Window, region: Rect, image: &mut Image) {
        let side = 8 * frame.components[0].blocks.0;
        let (x0, y0) = (window.left * side, window.top * side);
        let columns = region.x - x0..region.x - x0 + region.width;
        let [luma, chroma @ ..] = &self.0[..] else {
            return;
        };
        if side == 8 {
            for y in 0..region.height {
                let line = region.y - y0 + y;
                let levels = &luma.row(line)[columns.clone()];
                if let [blue, red] = chroma {
                    let [cb, cr] = [blue, red].map(|plane| &plane.row(line)[columns.clone()]);
                    colour(levels, cb, cr, image.row_mut(y));
                } else {
                    let pixels = image.row_mut(y).as_chunks_mut::<3>().0;
                    pixels
                        .iter_mut()
                        .zip(levels)
                        .for_each(|(p, v)| *p = [*v; 3]);
                }
            }
            return;
        }
        // Samples beyond the picture's edge are never looked at.
        let wide = (window.right * 8).min(frame.width.div_ceil(2)) - window.left * 8;
        let last = frame.height.div_ceil(2) - 1;
        let mut sums = vec![0u16; wide];
        let mut rows = [(); 2].map(|()| vec![0u8; wide * 2]);
        for y in 0..region.height {
            let line = region.y + y;
            let near = line / 2;
            let far = if line.is_multiple_of(2) {
                near.saturating_sub(1)
            } else {
                (near + 1).min(last)
            };
            for (plane, out) in chroma.iter().zip(&mut rows) {
                let row = |y: usize| &plane.row(y - y0 / 2)[..wide];
                doubled(row(near), row(far), &mut sums, out);
            }
            let levels = &luma.row(line - y0)[columns.clone()];
            let [cb, cr] = [0, 1].map(|c| &rows[c][columns.clone()]);
            colour(levels, cb, cr, image.row_mut(y));
        }
    }
}

#[cfg(test)]
mod tests {
    use turbojpeg::Subsamp;

    use super::*;
    use crate::Rng;
    use crate::jpeg::testing::{jpeg, with_restarts};

    fn turbo(bytes: &[u8], region: Option<Rect>) -> Result<Image, crate::ImageError> {
        crate::jpeg::decode_turbo(bytes, 1, region)
    }

    const KINDS: [Option<Subsamp>; 3] = [Some(Subsamp::Sub2x2), Some(Subsamp::None), None];

    #[test]
    fn pixels_are_those_of_libjpeg_turbo() {
        let sizes = [(333, 211), (160, 128), (161, 129), (1001, 17), (17, 1000)];
        for (size, kind) in sizes.into_iter().flat_map(|s| KINDS.map(|k| (s, k))) {
            for quality in [5, 60, 90, 100] {
                let bytes = jpeg(size, kind, quality);
                let whole = decode(&bytes, None).expect("a common JPEG");
                let theirs = turbo(&bytes, None).unwrap();
                assert!(whole == theirs, "{size:?} {kind:?} {quality}");
                let mut rng = Rng::of(&[size.0 as u64, quality as u64]);
                for _ in 0..20 {
                    let (x, y) = (rng.below(size.0), rng.below(size.1));
                    let (width, height) = (1 + rng.below(size.0 - x), 1 + rng.below(size.1 - y));
                    let part = Rect {
                        x,
                        y,
                        width,
                        height,
                    };
                    let cut = decode(&bytes, Some(part)).unwrap();
                    assert!(
                        cut == whole.crop(part),
                        "{size:?} {kind:?} {quality} {part:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn restart_markers_are_followed() {
        let bytes = with_restarts(&jpeg((333, 211), KINDS[1], 85));
        let whole = decode(&bytes, None).expect("a common JPEG");
        assert!(whole == turbo(&bytes, None).unwrap());
        let place = bytes.windows(2).position(|w| w == [0xff, 0xd3]).unwrap();
        let mut damaged = bytes.clone();
        damaged[place + 1] = 0xd5;
        assert!(decode(&damaged, None).is_none());
    }

    #[test]
    fn damage_is_left_to_libjpeg_turbo_and_never_panics() {
        let bytes = jpeg((333, 211), KINDS[0], 80);
        for cut in [4, bytes.len() / 3, bytes.len() - 200, bytes.len() - 2] {
            assert!(decode(&bytes[..cut], None).is_none(), "cut at {cut}");
        }
        let part = Rect {
            x: 100,
            y: 60,
            width: 50,
            height: 40,
        };
        let mut decoded = 0;
        for seed in 0..400 {
            let mut rng = Rng::of(&[seed]);
            let mut damaged = bytes.clone();
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
                assert!(
                    decode(&damaged, Some(part)).unwrap() == image.crop(part),
                    "{seed}"
                );
            }
        }
        assert!(
            decoded > 20,
            "some damage shows as other pixels only: {decoded}"
        );
    }
}
