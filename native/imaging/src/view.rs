//! Geometry on samples of any kind and number of channels; everything typed is built on it.

use crate::resize::resize_rgb;
use crate::simd::{cut, vectorised};
use crate::taps::{Interpolation, Taps};
use crate::{ImageError, Rect};

/// A kind of sample.
pub(crate) trait Sample: Copy + Default + PartialEq + Send + Sync + 'static {
    fn float(self) -> f32;
    /// Rounded and cut to the range.
    fn of(value: f32) -> Self;
    /// So many samples of any content.
    fn memory(length: usize) -> Vec<Self> {
        vec![Self::default(); length]
    }
}

impl Sample for u8 {
    fn float(self) -> f32 {
        f32::from(self)
    }
    fn of(value: f32) -> Self {
        cut(value + 0.5, 255.0) as u8
    }
    fn memory(length: usize) -> Vec<Self> {
        crate::pool::take(length)
    }
}

impl Sample for u16 {
    fn float(self) -> f32 {
        f32::from(self)
    }
    fn of(value: f32) -> Self {
        cut(value + 0.5, 65535.0) as u16
    }
}

impl Sample for f32 {
    fn float(self) -> f32 {
        self
    }
    fn of(value: f32) -> Self {
        value
    }
}

/// A change of geometry (or sharpness), with all random numbers drawn.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Cuts a part out.
    Crop(Rect),
    /// Resizes a part.
    Resize {
        /// The part; pixels outside it never shine in.
        from: Rect,
        /// Width and height of the result.
        to: (usize, usize),
        /// How.
        interpolation: Interpolation,
    },
    /// Puts the picture on a larger canvas; what lies outside the canvas is cut.
    Place {
        /// Width and height of the canvas.
        canvas: (usize, usize),
        /// Where the top left corner comes to lie.
        at: (usize, usize),
        /// Value of every channel around it; the last one repeats.
        fill: Vec<f32>,
    },
    /// An affine map, bilinear (as `cv2.warpAffine`), or nearest for label maps.
    Warp {
        /// From the result to the source: x = m0·x' + m1·y' + m2, y = m3·x' + m4·y' + m5.
        inverse: [f64; 6],
        /// Width and height of the result.
        to: (usize, usize),
        /// Value of every channel outside the source; the last one repeats.
        fill: Vec<f32>,
    },
    /// Mirrors left and right.
    FlipHorizontal,
    /// Mirrors top and bottom.
    FlipVertical,
    /// Gaussian blur with an odd kernel, as `cv2.GaussianBlur` with sigma 0.
    Blur(usize),
}

/// Borrowed samples with their shape.
pub(crate) struct View<'a, T> {
    pub width: usize,
    pub height: usize,
    pub channels: usize,
    pub data: &'a [T],
}

/// Width, height and samples.
pub(crate) type Made<T> = (usize, usize, Vec<T>);

impl<T: Sample> View<'_, T> {
    fn stride(&self) -> usize {
        self.width * self.channels
    }

    fn row(&self, y: usize) -> &[T] {
        &self.data[y * self.stride()..(y + 1) * self.stride()]
    }

    /// `nearest`: labels, whose values must never mix and which are never blurred.
    pub fn apply(&self, change: &Change, nearest: bool) -> Result<Made<T>, ImageError> {
        Ok(match change {
            Change::Crop(rect) => self.crop(*rect),
            Change::Resize {
                from,
                to,
                interpolation,
            } => {
                let nearest = nearest.then_some(Interpolation::Nearest);
                self.resize(*from, *to, nearest.unwrap_or(*interpolation))?
            }
            Change::Place { canvas, at, fill } => self.place(*canvas, *at, fill),
            Change::Warp { inverse, to, fill } => {
                crate::warp::affine(self, inverse, *to, fill, nearest)
            }
            Change::FlipHorizontal => self.flip_horizontal(),
            Change::FlipVertical => {
                let rows = (0..self.height).rev().map(|y| self.row(y));
                (self.width, self.height, rows.collect::<Vec<_>>().concat())
            }
            Change::Blur(_) if nearest => (self.width, self.height, self.data.to_vec()),
            Change::Blur(kernel) => (
                self.width,
                self.height,
                crate::blur::gaussian(self, *kernel),
            ),
        })
    }

    fn crop(&self, rect: Rect) -> Made<T> {
        let r = rect.clamped(self.width, self.height);
        let mut out = Vec::with_capacity(r.width * r.height * self.channels);
        for y in r.y..r.y + r.height {
            let row = self.row(y);
            out.extend_from_slice(&row[r.x * self.channels..(r.x + r.width) * self.channels]);
        }
        (r.width, r.height, out)
    }

    /// The fill of every channel as samples.
    pub fn pixel(&self, fill: &[f32]) -> Vec<T> {
        let last = fill.last().copied().unwrap_or(0.0);
        let value = |c: usize| T::of(fill.get(c).copied().unwrap_or(last));
        (0..self.channels).map(value).collect()
    }

    fn place(&self, canvas: (usize, usize), at: (usize, usize), fill: &[f32]) -> Made<T> {
        let (width, height) = (canvas.0.max(1), canvas.1.max(1));
        let (c, stride) = (self.channels, width * self.channels);
        let row = self.pixel(fill).repeat(width);
        let mut out = Vec::with_capacity(stride * height);
        let shown = self.width.min(width.saturating_sub(at.0)) * c;
        for y in 0..height {
            match y.checked_sub(at.1).filter(|y| *y < self.height) {
                Some(own) if shown > 0 => {
                    out.extend_from_slice(&row[..at.0 * c]);
                    out.extend_from_slice(&self.row(own)[..shown]);
                    out.extend_from_slice(&row[at.0 * c + shown..]);
                }
                _ => out.extend_from_slice(&row),
            }
        }
        (width, height, out)
    }

    fn flip_horizontal(&self) -> Made<T> {
        let mut out = Vec::with_capacity(self.data.len());
        for y in 0..self.height {
            for pixel in self.row(y).chunks_exact(self.channels).rev() {
                out.extend_from_slice(pixel);
            }
        }
        (self.width, self.height, out)
    }

    fn resize(
        &self,
        from: Rect,
        (width, height): (usize, usize),
        how: Interpolation,
    ) -> Result<Made<T>, ImageError> {
        let from = from.clamped(self.width, self.height);
        if width == 0 || height == 0 {
            return Err(ImageError::Argument(
                "resize: the target size is empty".into(),
            ));
        }
        if (from.width, from.height) == (width, height) {
            return Ok(self.crop(from));
        }
        if how == Interpolation::Nearest {
            return Ok((width, height, self.nearest(from, width, height)));
        }
        let mut out = T::memory(width * height * self.channels);
        let bytes = <dyn std::any::Any>::downcast_mut::<Vec<u8>>(&mut out);
        if let (Some(out), Some(data), 3) = (bytes, bytes_of(self.data), self.channels)
            && matches!(
                how,
                Interpolation::Linear | Interpolation::LinearAntialiased
            )
        {
            let smooth = how == Interpolation::LinearAntialiased;
            resize_rgb(
                data,
                (self.width, self.height),
                from,
                (width, height),
                smooth,
                out,
            )?;
        } else {
            self.resample(from, (width, height), how, &mut out);
        }
        Ok((width, height, out))
    }

    fn nearest(&self, from: Rect, width: usize, height: usize) -> Vec<T> {
        let c = self.channels;
        let xs = Taps::new(from.width, width, Interpolation::Nearest, false).places;
        let ys = Taps::new(from.height, height, Interpolation::Nearest, false).places;
        let mut out: Vec<T> = Vec::with_capacity(width * height * c);
        let mut last = None;
        for y in ys {
            if last == Some(y) {
                let start = out.len() - width * c;
                out.extend_from_within(start..);
                continue;
            }
            last = Some(y);
            let row = &self.row(from.y + y as usize)[from.x * c..];
            match c {
                1 => out.extend(xs.iter().map(|x| row[*x as usize])),
                3 => {
                    let pixels = row.as_chunks::<3>().0;
                    out.extend(xs.iter().flat_map(|x| pixels[*x as usize]));
                }
                _ => xs.iter().for_each(|x| {
                    let at = *x as usize * c;
                    out.extend_from_slice(&row[at..at + c]);
                }),
            }
        }
        out
    }

    /// Rows first, then columns, both in floats: exact enough for every sample kind.
    fn resample(&self, from: Rect, to: (usize, usize), how: Interpolation, out: &mut [T]) {
        let c = self.channels;
        let shrinks = from.width >= to.0 && from.height >= to.1;
        // Pillow keeps samples between its passes, which cuts overshoots off; OpenCV does not.
        let between =
            how == Interpolation::CubicAntialiased || how == Interpolation::LanczosAntialiased;
        let xs = Taps::new(from.width, to.0, how, shrinks);
        let ys = Taps::new(from.height, to.1, how, shrinks);
        let stride = to.0 * c;
        // The source rows of one result row lie beside each other: a ring of that many is enough.
        let slots = ys.count + 1;
        let mut ring = vec![0f32; slots * stride];
        let mut held = vec![u32::MAX; slots];
        let mut sum = vec![0f32; stride];
        for (y, target) in out.chunks_exact_mut(stride).enumerate() {
            sum.fill(0.0);
            for tap in y * ys.count..(y + 1) * ys.count {
                let (place, weight) = (ys.places[tap], ys.weights[tap]);
                if weight == 0.0 {
                    continue;
                }
                let slot = place as usize % slots;
                let row = &mut ring[slot * stride..(slot + 1) * stride];
                if held[slot] != place {
                    held[slot] = place;
                    let start = (from.y + place as usize) * self.stride() + from.x * c;
                    let source = &self.data[start..];
                    across(source, c, &xs, row);
                    if between {
                        row.iter_mut().for_each(|v| *v = T::of(*v).float());
                    }
                }
                add_weighted(&mut sum, row, weight);
            }
            rounded(target, &sum);
        }
    }
}

vectorised! {
    /// One row resampled; `source` begins at its first sample and may reach beyond its end.
    fn across<T: Sample>(source: &[T], channels: usize, taps: &Taps, out: &mut [f32]) {
        match (channels, taps.count) {
            (3, 2) => across_rgb::<T, 2>(source, taps, out),
            (3, 4) => across_rgb::<T, 4>(source, taps, out),
            (3, 8) => across_rgb::<T, 8>(source, taps, out),
            _ => across_any(source, channels, taps, out),
        }
    }
}

/// Four lanes for three channels: what comes out of the fourth is left behind.
#[inline(always)]
fn across_rgb<T: Sample, const N: usize>(source: &[T], taps: &Taps, out: &mut [f32]) {
    let places = taps.places.as_chunks::<N>().0.iter();
    let weights = taps.weights.as_chunks::<N>().0.iter();
    for (pixel, (places, weights)) in out.chunks_exact_mut(3).zip(places.zip(weights)) {
        let mut sum = [0f32; 4];
        for (place, weight) in places.iter().zip(weights) {
            let at = *place as usize * 3;
            let value = match source.get(at..at + 4) {
                Some(v) => [v[0], v[1], v[2], v[3]],
                None => [source[at], source[at + 1], source[at + 2], T::default()],
            };
            for (sum, value) in sum.iter_mut().zip(value) {
                *sum += weight * value.float();
            }
        }
        pixel.copy_from_slice(&sum[..3]);
    }
}

#[inline(always)]
fn across_any<T: Sample>(source: &[T], channels: usize, taps: &Taps, out: &mut [f32]) {
    let places = taps.places.chunks_exact(taps.count);
    let weights = taps.weights.chunks_exact(taps.count);
    for (pixel, (places, weights)) in out.chunks_exact_mut(channels).zip(places.zip(weights)) {
        pixel.fill(0.0);
        for (place, weight) in places.iter().zip(weights) {
            let at = *place as usize * channels;
            for (sum, value) in pixel.iter_mut().zip(&source[at..at + channels]) {
                *sum += weight * value.float();
            }
        }
    }
}

vectorised! {
    fn add_weighted(sum: &mut [f32], row: &[f32], weight: f32) {
        sum.iter_mut().zip(row).for_each(|(s, v)| *s += weight * *v);
    }
}

vectorised! {
    fn rounded<T: Sample>(target: &mut [T], sum: &[f32]) {
        target.iter_mut().zip(sum).for_each(|(t, s)| *t = T::of(*s));
    }
}

/// The samples as bytes when they are bytes.
fn bytes_of<T: Sample>(data: &[T]) -> Option<&[u8]> {
    if std::any::TypeId::of::<T>() != std::any::TypeId::of::<u8>() {
        return None;
    }
    // SAFETY: T is u8, as just checked, so length, alignment and validity are the same.
    Some(unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), data.len()) })
}
