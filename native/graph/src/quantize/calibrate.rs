//! Which range of an activation its 8 bits should cover.

use super::histogram::BINS;
use super::{Histogram, Range};

/// Largest share of the values other than 0 that [`Calibration::Entropy`] clips.
const MAX_CLIPPED: f64 = 0.001;

/// How a range is chosen from the values seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Calibration {
    /// From the least to the greatest value.
    MinMax,
    /// Without the most extreme values: the given share, in percent, stays within (99.99, for example);
    /// what is left out is halved between both ends.
    Percentile(f64),
    /// The threshold whose quantized distribution diverges least from the true one (Kullback–Leibler), as
    /// published for TensorRT (Migacz 2017, "8-bit Inference with TensorRT"); but at most one value in a thousand is
    /// clipped. Without that bound linear bottlenecks and values seen only some thousand times lose their tails:
    /// MobileNetV2 fell from 97.4 % to 93.1 % on MNIST, MobileNetV3_small from 97.2 % to 12 %.
    Entropy,
}

impl Calibration {
    /// The range for the values in `histogram`; 0…0 if there are none. To the bin width (at most 1/2048 of
    /// the largest magnitude) except for [`Calibration::MinMax`], and never beyond what was observed.
    pub fn range(self, histogram: &Histogram) -> Range {
        let Some(observed) = histogram.observed() else {
            return Range { min: 0.0, max: 0.0 };
        };
        let wanted = match self {
            Calibration::MinMax => return observed,
            Calibration::Percentile(percent) => percentile(histogram, percent),
            Calibration::Entropy => {
                let threshold = entropy_threshold(histogram, observed.min >= 0.0) as f32;
                Range {
                    min: -threshold,
                    max: threshold,
                }
            }
        };
        Range {
            min: wanted.min.max(observed.min),
            max: wanted.max.min(observed.max),
        }
    }
}

fn percentile(histogram: &Histogram, percent: f64) -> Range {
    let outside = (1.0 - percent / 100.0).clamp(0.0, 1.0) / 2.0;
    let outside = (histogram.count() as f64 * outside) as u64;
    // Values in order: the negative ones from the largest magnitude, zeros, the positive ones.
    let width = histogram.bin_width();
    let negative = histogram.negative.iter().enumerate().rev();
    let negative =
        negative.map(|(bin, &count)| (-(bin as f64 + 1.0) * width, -(bin as f64) * width, count));
    let positive = histogram.positive.iter().enumerate();
    let positive =
        positive.map(|(bin, &count)| (bin as f64 * width, (bin as f64 + 1.0) * width, count));
    let ordered: Vec<(f64, f64, u64)> = negative
        .chain(std::iter::once((0.0, 0.0, histogram.zeros)))
        .chain(positive)
        .collect();
    let bin = |from_top: bool| {
        let mut left = outside;
        let mut bins: Box<dyn Iterator<Item = &(f64, f64, u64)>> = if from_top {
            Box::new(ordered.iter().rev())
        } else {
            Box::new(ordered.iter())
        };
        bins.find(|(_, _, count)| {
            let beyond = *count > left;
            left = left.saturating_sub(*count);
            beyond
        })
        .copied()
        .unwrap_or((0.0, 0.0, 0))
    };
    Range {
        min: bin(false).0 as f32,
        max: bin(true).1 as f32,
    }
}

/// The magnitude to clip at. Signed values have 128 levels of magnitude, as in the publication; values of
/// one sign have 256. Exact zeros are not counted: no threshold changes them.
fn entropy_threshold(histogram: &Histogram, one_sided: bool) -> f64 {
    let levels = if one_sided { 256 } else { 128 };
    let mut bins = vec![0u64; BINS];
    let counts = histogram.negative.iter().zip(&histogram.positive);
    bins.iter_mut()
        .zip(counts)
        .for_each(|(bin, (n, p))| *bin = n + p);
    let used = bins
        .iter()
        .rposition(|&count| count > 0)
        .map_or(0, |last| last + 1);
    let total: u64 = bins.iter().sum();
    let mut best = (f64::INFINITY, used);
    let mut inside: u64 = bins[..levels.min(used)].iter().sum();
    for end in levels..=used {
        let clipped = total - inside;
        if clipped as f64 <= MAX_CLIPPED * total as f64 {
            let divergence = divergence(&bins[..end], clipped, levels);
            // Of equal ones the widest, which clips least.
            if divergence <= best.0 {
                best = (divergence, end);
            }
        }
        inside += bins.get(end).copied().unwrap_or(0);
    }
    (best.1 as f64 + 0.5) * histogram.bin_width()
}

/// Divergence of `bins` quantized to `levels` from `bins` with `outliers` values clipped into the last.
fn divergence(bins: &[u64], outliers: u64, levels: usize) -> f64 {
    let inside: u64 = bins.iter().sum();
    if inside == 0 {
        return f64::INFINITY;
    }
    let (p_total, q_total) = ((inside + outliers) as f64, inside as f64);
    let mut sum = 0.0;
    for level in 0..levels {
        let range = level * bins.len() / levels..(level + 1) * bins.len() / levels;
        let part = &bins[range.clone()];
        let filled = part.iter().filter(|&&count| count > 0).count();
        if filled == 0 {
            continue;
        }
        // A level is spread evenly over its bins that are not empty.
        let q = part.iter().sum::<u64>() as f64 / filled as f64 / q_total;
        for (bin, &count) in range.zip(part) {
            let clipped = if bin + 1 == bins.len() { outliers } else { 0 };
            if count > 0 {
                let p = (count + clipped) as f64 / p_total;
                sum += p * (p / q).ln();
            } else if clipped > 0 {
                return f64::INFINITY;
            }
        }
    }
    // Outliers clipped into a level with nothing in it.
    if outliers > 0 && bins.last() == Some(&0) {
        return f64::INFINITY;
    }
    sum
}
