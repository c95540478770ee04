//! Numbers about the channels of a whole remote sensing set.

use std::path::Path;

use oarlock_imaging::{Raster, percentile};
use serde::{Deserialize, Serialize};

use crate::DataError;

/// Name of the file beside `statis.json`.
pub const CHANNELS_FILE: &str = "channels.json";

/// The part of the values that a preview shows and that training clips to by default, in percent.
const PERCENTILES: (f64, f64) = (2.0, 98.0);
/// Values that percentiles are taken from: all pictures and channels together.
const SAMPLES: usize = 16 << 20;
/// And of one channel of one picture.
const SAMPLES_EACH: usize = 16_384;

/// Numbers of every channel over all pixels of a set, in order of the channels, in units of the samples
/// as stored. What is no finite number is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Channels {
    /// Channels of every picture.
    pub channels: usize,
    /// `uint8`, `uint16` or `float32`; of a mixed set the widest.
    pub kind: String,
    /// Pictures measured.
    pub pictures: usize,
    /// Smallest values.
    pub minimum: Vec<f32>,
    /// Largest values.
    pub maximum: Vec<f32>,
    /// Arithmetic means.
    pub mean: Vec<f64>,
    /// Population standard deviations.
    pub std: Vec<f64>,
    /// Which percentiles `clip_min` and `clip_max` are.
    pub percentiles: (f64, f64),
    /// Low percentile, of evenly spaced pixels of each picture when there are many.
    pub clip_min: Vec<f32>,
    /// High percentile, likewise.
    pub clip_max: Vec<f32>,
}

impl Channels {
    /// Reads the file of a dataset folder. Errors: it is missing or damaged.
    pub fn read(root: &Path) -> Result<Self, DataError> {
        let path = root.join(CHANNELS_FILE);
        let bytes = std::fs::read(&path).map_err(|source| DataError::Io {
            path: path.clone(),
            source,
        })?;
        let read: Self = serde_json::from_slice(&bytes).map_err(|error| {
            DataError::Invalid(format!(
                "{CHANNELS_FILE}: {error}; import the dataset again"
            ))
        })?;
        let lengths = [
            read.minimum.len(),
            read.maximum.len(),
            read.mean.len(),
            read.std.len(),
            read.clip_min.len(),
            read.clip_max.len(),
        ];
        if read.channels == 0 || lengths.iter().any(|n| *n != read.channels) {
            let text = format!(
                "{CHANNELS_FILE}: its lists do not have one number a channel; import the dataset again"
            );
            return Err(DataError::Invalid(text));
        }
        Ok(read)
    }
}

/// One channel of one picture.
struct Channel {
    count: u64,
    mean: f64,
    /// Sum of squared distances from the mean.
    squares: f64,
    minimum: f32,
    maximum: f32,
    sample: Vec<f32>,
}

/// One picture.
pub struct Measured {
    kind: &'static str,
    channels: Vec<Channel>,
    /// Samples that are no finite number.
    pub not_finite: u64,
}

impl Measured {
    /// Measures a picture of a set of `pictures`.
    pub fn of(raster: &Raster, pictures: usize) -> Self {
        let each = SAMPLES / (pictures.max(1) * raster.channels());
        let each = each.clamp(1, SAMPLES_EACH);
        let pixels = (raster.width() * raster.height()) as u64;
        let channels: Vec<Channel> = (0..raster.channels())
            .map(|channel| {
                let mut values = raster.channel(channel);
                values.retain(|v| v.is_finite());
                Channel::of(&values, each)
            })
            .collect();
        Self {
            kind: raster.samples().kind(),
            not_finite: channels.iter().map(|c| pixels - c.count).sum(),
            channels,
        }
    }

    /// How many channels it has.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }
}

impl Channel {
    fn of(values: &[f32], samples: usize) -> Self {
        let count = values.len();
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count.max(1) as f64;
        let squares = |v: &f32| (f64::from(*v) - mean) * (f64::from(*v) - mean);
        let taken = count.min(samples);
        Self {
            count: count as u64,
            mean,
            squares: values.iter().map(squares).sum(),
            minimum: values.iter().copied().fold(f32::INFINITY, f32::min),
            maximum: values.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            sample: (0..taken).map(|i| values[i * count / taken]).collect(),
        }
    }

    /// Both together (Chan, Golub and LeVeque 1979).
    fn add(&mut self, other: Self) {
        let (a, b) = (self.count as f64, other.count as f64);
        let all = (a + b).max(1.0);
        let apart = other.mean - self.mean;
        self.squares += other.squares + apart * apart * a * b / all;
        self.mean += apart * b / all;
        self.count += other.count;
        self.minimum = self.minimum.min(other.minimum);
        self.maximum = self.maximum.max(other.maximum);
        self.sample.extend(other.sample);
    }
}

/// The numbers of a set from those of its pictures, which have equally many channels; `None` without
/// pictures.
pub fn together(pictures: Vec<Measured>) -> Option<Channels> {
    let count = pictures.len();
    let mut all = pictures.into_iter();
    let mut sum = all.next()?;
    // Kinds in the order of what they can hold.
    let rank = |kind: &str| {
        ["uint8", "uint16", "float32"]
            .iter()
            .position(|k| *k == kind)
    };
    for picture in all {
        if rank(picture.kind) > rank(sum.kind) {
            sum.kind = picture.kind;
        }
        for (channel, other) in sum.channels.iter_mut().zip(picture.channels) {
            channel.add(other);
        }
    }
    let finite = |v: f32| if v.is_finite() { v } else { 0.0 };
    let mut channels = sum.channels;
    let mut clip = |percent: f64| -> Vec<f32> {
        let of = |c: &mut Channel| percentile(&mut c.sample, percent);
        channels.iter_mut().map(of).collect()
    };
    let (clip_min, clip_max) = (clip(PERCENTILES.0), clip(PERCENTILES.1));
    let deviation = |c: &Channel| (c.squares / c.count.max(1) as f64).sqrt();
    Some(Channels {
        channels: channels.len(),
        kind: sum.kind.to_owned(),
        pictures: count,
        minimum: channels.iter().map(|c| finite(c.minimum)).collect(),
        maximum: channels.iter().map(|c| finite(c.maximum)).collect(),
        mean: channels.iter().map(|c| c.mean).collect(),
        std: channels.iter().map(deviation).collect(),
        percentiles: PERCENTILES,
        clip_min,
        clip_max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oarlock_imaging::{Samples, channel_statistics};

    #[test]
    fn pictures_together_give_the_numbers_of_all_their_pixels() {
        let values: Vec<f32> = (0..480u32)
            .map(|i| ((i * 7919) % 1013) as f32 - 300.0)
            .collect();
        let raster = |from: usize, width: usize, height: usize| {
            let part = values[from..from + width * height * 2].to_vec();
            Raster::new(width, height, 2, Samples::F32(part)).unwrap()
        };
        let parts = [raster(0, 10, 4), raster(80, 5, 8), raster(160, 16, 10)];
        let sum = together(parts.iter().map(|r| Measured::of(r, 3)).collect()).unwrap();
        let whole = Raster::new(240, 1, 2, Samples::F32(values.clone())).unwrap();
        for (c, one) in channel_statistics(&whole, PERCENTILES).iter().enumerate() {
            assert!((sum.mean[c] - one.mean).abs() < 1e-9);
            assert!((sum.std[c] - one.deviation).abs() < 1e-9);
            assert_eq!((sum.minimum[c], sum.maximum[c]), (one.minimum, one.maximum));
            assert_eq!((sum.clip_min[c], sum.clip_max[c]), one.percentiles);
        }
        assert_eq!(
            (sum.channels, sum.pictures, sum.kind.as_str()),
            (2, 3, "float32")
        );
    }

    #[test]
    fn what_is_no_number_is_left_out_and_counted() {
        let samples = vec![1.0, f32::NAN, 3.0, f32::INFINITY];
        let raster = Raster::new(2, 1, 2, Samples::F32(samples)).unwrap();
        let measured = Measured::of(&raster, 1);
        assert_eq!(measured.not_finite, 2);
        let sum = together(vec![measured]).unwrap();
        assert_eq!((sum.mean[0], sum.std[0]), (2.0, 1.0));
        assert_eq!(
            (sum.minimum[1], sum.maximum[1], sum.clip_max[1]),
            (0.0, 0.0, 0.0)
        );
        assert!(together(Vec::new()).is_none());
    }
}
