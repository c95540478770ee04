//! Pictures beyond 8-bit RGB: any number of channels, 8 or 16 bit integers or 32-bit floats.

use crate::{Image, ImageError};

/// The samples of a [`Raster`], row by row, channels last, no padding.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    /// 8-bit unsigned integers.
    U8(Vec<u8>),
    /// 16-bit unsigned integers.
    U16(Vec<u16>),
    /// 32-bit floats; also every other numeric kind, rounded to the nearest float.
    F32(Vec<f32>),
}

impl Samples {
    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::F32(v) => v.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name as NumPy has it: `uint8`, `uint16`, `float32`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::U8(_) => "uint8",
            Self::U16(_) => "uint16",
            Self::F32(_) => "float32",
        }
    }
}

/// A typed array of height × width × channels (H×W×C).
#[derive(Clone, PartialEq)]
pub struct Raster {
    width: usize,
    height: usize,
    channels: usize,
    samples: Samples,
}

impl std::fmt::Debug for Raster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (w, h, c) = (self.width, self.height, self.channels);
        write!(f, "Raster {w}×{h}×{c} {}", self.samples.kind())
    }
}

impl Raster {
    /// Wraps samples; there must be `width·height·channels` of them, and at least one.
    pub fn new(
        width: usize,
        height: usize,
        channels: usize,
        samples: Samples,
    ) -> Result<Self, ImageError> {
        let wanted = width
            .checked_mul(height)
            .and_then(|n| n.checked_mul(channels));
        if samples.is_empty() || wanted != Some(samples.len()) {
            let count = samples.len();
            let text = format!("{count} samples are no {width}×{height} array of {channels}");
            return Err(ImageError::Argument(text));
        }
        Ok(Self {
            width,
            height,
            channels,
            samples,
        })
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Values of one pixel, at least 1.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// All samples.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Gives the samples away.
    pub fn into_samples(self) -> Samples {
        self.samples
    }

    /// One sample as a float; panics outside the array.
    pub fn value(&self, x: usize, y: usize, channel: usize) -> f32 {
        let at = (y * self.width + x) * self.channels + channel;
        match &self.samples {
            Samples::U8(v) => f32::from(v[at]),
            Samples::U16(v) => f32::from(v[at]),
            Samples::F32(v) => v[at],
        }
    }

    /// All samples of one channel as floats, row by row.
    pub fn channel(&self, channel: usize) -> Vec<f32> {
        let pick = |at: usize| at * self.channels + channel;
        let count = self.width * self.height;
        match &self.samples {
            Samples::U8(v) => (0..count).map(|i| f32::from(v[pick(i)])).collect(),
            Samples::U16(v) => (0..count).map(|i| f32::from(v[pick(i)])).collect(),
            Samples::F32(v) => (0..count).map(|i| v[pick(i)]).collect(),
        }
    }

    /// Three channels as an 8-bit picture: each value between the two limits of its channel becomes
    /// 0–255, what lies outside is cut, what is no number becomes 0. Fails for a channel that is not
    /// there.
    pub fn to_image(
        &self,
        channels: [usize; 3],
        limits: [(f32, f32); 3],
    ) -> Result<Image, ImageError> {
        if let Some(bad) = channels.iter().find(|c| **c >= self.channels) {
            let text = format!(
                "there is no channel {bad}; the picture has {}",
                self.channels
            );
            return Err(ImageError::Argument(text));
        }
        let mut image = Image::filled(self.width, self.height, [0; 3]);
        for (place, (channel, (low, high))) in channels.into_iter().zip(limits).enumerate() {
            let scale = 255.0 / (high - low).max(f32::MIN_POSITIVE);
            let out = image.data_mut().iter_mut().skip(place).step_by(3);
            let level = |value: f32| ((value - low) * scale).clamp(0.0, 255.0).round() as u8;
            let (n, c) = (self.channels, channel);
            match &self.samples {
                Samples::U8(v) => out
                    .zip(v.iter().skip(c).step_by(n))
                    .for_each(|(o, v)| *o = level(f32::from(*v))),
                Samples::U16(v) => out
                    .zip(v.iter().skip(c).step_by(n))
                    .for_each(|(o, v)| *o = level(f32::from(*v))),
                Samples::F32(v) => out
                    .zip(v.iter().skip(c).step_by(n))
                    .for_each(|(o, v)| *o = level(*v)),
            }
        }
        Ok(image)
    }
}

impl From<Image> for Raster {
    fn from(image: Image) -> Self {
        Self {
            width: image.width(),
            height: image.height(),
            channels: 3,
            samples: Samples::U8(image.into_data()),
        }
    }
}
