//! Distribution of an activation, gathered batch by batch.

use super::Range;

/// Bins of each sign. The limit is a power of two at most twice the largest magnitude, so that at least
/// half of them, 2048, are in use.
pub(super) const BINS: usize = 4096;

/// Magnitudes by sign in equal bins. The bins widen by powers of two as larger values come, and
/// histograms of parts of the data add up to that of the whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Bins reach from 0 to 2^exponent; `None` before the first value other than 0.
    exponent: Option<i32>,
    pub(super) negative: Vec<u64>,
    pub(super) positive: Vec<u64>,
    /// Zeros stay exact in every quantization.
    pub(super) zeros: u64,
    observed: Option<Range>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// Without values.
    pub fn new() -> Self {
        Self {
            exponent: None,
            negative: vec![0; BINS],
            positive: vec![0; BINS],
            zeros: 0,
            observed: None,
        }
    }

    /// Counts `values`; NaN and infinities are left out.
    pub fn observe(&mut self, values: &[f32]) {
        let finite = || values.iter().copied().filter(|v| v.is_finite());
        let Some(range) = finite().fold(None, widen) else {
            return;
        };
        self.reserve(range);
        let scale = BINS as f32 / self.limit();
        for value in finite() {
            // The largest magnitude may equal the limit.
            let bin = ((value.abs() * scale) as usize).min(BINS - 1);
            match value {
                0.0 => self.zeros += 1,
                v if v < 0.0 => self.negative[bin] += 1,
                _ => self.positive[bin] += 1,
            }
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Histogram) {
        let Some(range) = other.observed else { return };
        self.reserve(range);
        let mut other = other.clone();
        other.reserve(range);
        other.widen_to(self.exponent);
        self.zeros += other.zeros;
        let pairs = [
            (&mut self.negative, other.negative),
            (&mut self.positive, other.positive),
        ];
        for (bins, more) in pairs {
            bins.iter_mut()
                .zip(more)
                .for_each(|(bin, more)| *bin += more);
        }
    }

    /// Least and greatest value; `None` before the first.
    pub fn observed(&self) -> Option<Range> {
        self.observed
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.zeros + self.negative.iter().chain(&self.positive).sum::<u64>()
    }

    pub(super) fn bin_width(&self) -> f64 {
        f64::from(self.limit()) / BINS as f64
    }

    fn limit(&self) -> f32 {
        self.exponent.map_or(1.0, |e| 2f32.powi(e))
    }

    /// Makes room for the values of `range`.
    fn reserve(&mut self, range: Range) {
        let observed = self.observed.unwrap_or(range);
        self.observed = Some(Range {
            min: observed.min.min(range.min),
            max: observed.max.max(range.max),
        });
        let largest = range.max.max(-range.min);
        if largest > 0.0 {
            // Smaller exponents would divide by numbers that f32 does not have.
            let wanted = (f64::from(largest).log2().ceil() as i32).max(-100);
            self.widen_to(Some(self.exponent.map_or(wanted, |now| now.max(wanted))));
        }
    }

    fn widen_to(&mut self, exponent: Option<i32>) {
        let (Some(now), Some(wanted)) = (self.exponent, exponent) else {
            self.exponent = exponent.or(self.exponent);
            return;
        };
        let times = (wanted - now).clamp(0, 12) as u32;
        if wanted > now {
            for bins in [&mut self.negative, &mut self.positive] {
                let merged: Vec<u64> = bins.chunks(1 << times).map(|c| c.iter().sum()).collect();
                bins.fill(0);
                bins[..merged.len()].copy_from_slice(&merged);
            }
            self.exponent = exponent;
        }
    }
}

fn widen(range: Option<Range>, value: f32) -> Option<Range> {
    let Range { min, max } = range.unwrap_or(Range {
        min: value,
        max: value,
    });
    Some(Range {
        min: min.min(value),
        max: max.max(value),
    })
}
