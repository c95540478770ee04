//! Numbers about the channels of a raster: what training clips to and previews are stretched by.

use crate::{Raster, Samples};

/// Numbers of one channel; what is no finite number is left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChannelStatistics {
    /// Smallest value.
    pub minimum: f32,
    /// Largest value.
    pub maximum: f32,
    /// Arithmetic mean.
    pub mean: f64,
    /// Population standard deviation (divided by n).
    pub deviation: f64,
    /// The asked low and high percentile.
    pub percentiles: (f32, f32),
}

/// Numbers of every channel, with the percentiles `low` and `high` (0–100), interpolated linearly
/// between the two nearest ranks as `numpy.percentile` does. A channel without one finite value has
/// zeros.
pub fn channel_statistics(raster: &Raster, (low, high): (f64, f64)) -> Vec<ChannelStatistics> {
    (0..raster.channels())
        .map(|channel| {
            let mut values = raster.channel(channel);
            if matches!(raster.samples(), Samples::F32(_)) {
                values.retain(|v| v.is_finite());
            }
            of(&mut values, low, high)
        })
        .collect()
}

fn of(values: &mut [f32], low: f64, high: f64) -> ChannelStatistics {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let squares = |v: &f32| (f64::from(*v) - mean) * (f64::from(*v) - mean);
    let deviation = (values.iter().map(squares).sum::<f64>() / count).sqrt();
    let percentiles = (percentile(values, low), percentile(values, high));
    let fold = |start: f32, pick: fn(f32, f32) -> f32| values.iter().copied().fold(start, pick);
    let empty = values.is_empty();
    ChannelStatistics {
        minimum: if empty {
            0.0
        } else {
            fold(f32::INFINITY, f32::min)
        },
        maximum: if empty {
            0.0
        } else {
            fold(f32::NEG_INFINITY, f32::max)
        },
        mean,
        deviation,
        percentiles,
    }
}

/// `numpy.percentile(values, percent)` of finite values; reorders them.
pub fn percentile(values: &mut [f32], percent: f64) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let place = percent.clamp(0.0, 100.0) / 100.0 * (values.len() - 1) as f64;
    let (rank, part) = (place.floor() as usize, place.fract());
    let (_, &mut lower, above) = values.select_nth_unstable_by(rank, f32::total_cmp);
    let upper = above.iter().copied().fold(f32::INFINITY, f32::min);
    if part == 0.0 || !upper.is_finite() {
        return lower;
    }
    (f64::from(lower) + (f64::from(upper) - f64::from(lower)) * part) as f32
}
