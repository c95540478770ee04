//! What a loader has done so far.

use crate::pipeline::Timing;

/// Counts and times of one loader.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LoaderStats {
    /// Seconds the reader waited for batches, in all.
    pub wait_seconds: f64,
    /// Seconds the reader waited for the newest batch.
    pub last_wait_seconds: f64,
    /// Seconds spent reading and decoding, summed over threads.
    pub decode_seconds: f64,
    /// Seconds spent in transforms, summed over threads.
    pub transform_seconds: f64,
    /// Images made.
    pub images: u64,
    /// Images skipped.
    pub skipped: u64,
    /// Pictures found in the cache.
    pub cache_hits: u64,
    /// Pictures that had to be decoded although there is a cache.
    pub cache_misses: u64,
}

impl LoaderStats {
    /// Share of pictures found in the cache, 0–1; `None` without a cache.
    pub fn cache_hit_rate(&self) -> Option<f64> {
        let asked = self.cache_hits + self.cache_misses;
        (asked > 0).then(|| self.cache_hits as f64 / asked as f64)
    }

    /// These, with what an `earlier` loader of the same epoch has done.
    #[must_use]
    pub fn after(mut self, earlier: &Self) -> Self {
        self.wait_seconds += earlier.wait_seconds;
        self.decode_seconds += earlier.decode_seconds;
        self.transform_seconds += earlier.transform_seconds;
        self.images += earlier.images;
        self.skipped += earlier.skipped;
        self.cache_hits += earlier.cache_hits;
        self.cache_misses += earlier.cache_misses;
        self
    }

    /// Counts an image that took `seconds` in all.
    pub(super) fn add(&mut self, timing: &Timing, seconds: f64) {
        self.images += 1;
        self.decode_seconds += timing.decode_seconds;
        self.transform_seconds += (seconds - timing.decode_seconds).max(0.0);
        self.cache_hits += u64::from(timing.hits);
        self.cache_misses += u64::from(timing.misses);
    }
}

/// One line for a log.
impl std::fmt::Display for LoaderStats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} images, {} skipped, waited {:.2} s for data; {:.2} s decoding and {:.2} s transforming over all threads",
            self.images,
            self.skipped,
            self.wait_seconds,
            self.decode_seconds,
            self.transform_seconds
        )?;
        match self.cache_hit_rate() {
            Some(rate) => write!(f, "; {:.1} % from the cache", rate * 100.0),
            None => Ok(()),
        }
    }
}
