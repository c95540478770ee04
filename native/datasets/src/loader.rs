//! Batches of decoded, augmented images made by threads.

use std::path::PathBuf;
use std::sync::Arc;

use crate::{DataError, ImageCache, Pipeline};

/// One labelled image of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Absolute file.
    pub path: PathBuf,
    /// Class id.
    pub label: i64,
}

/// What a loader reads and how.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// The images in list order; an entry may occur more than once (class balance).
    pub samples: Arc<Vec<Sample>>,
    /// Images in one batch.
    pub batch_size: usize,
    /// Transforms.
    pub pipeline: Pipeline,
    /// `Some` shuffles; the order depends on seed and epoch only. Augmentation uses it too (`None` = 0).
    pub shuffle_seed: Option<u64>,
    /// Running epoch: another order and other random crops each time.
    pub epoch: u64,
    /// Batches to leave out at the front (resume in mid-epoch): the rest is the same as without.
    pub start_batch: usize,
    /// Whether a last batch with fewer images is left out.
    pub drop_last: bool,
    /// Worker threads; 0 = all cores.
    pub threads: usize,
    /// Batches that may be ready or in work ahead of the reader; at least 1.
    pub prefetch: usize,
    /// Decoded images, shared between epochs.
    pub cache: Option<Arc<ImageCache>>,
    /// Share of unreadable images above which the loader fails, 0–1.
    pub max_corrupt_fraction: f64,
}

/// Images of one training or evaluation step.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// `n·h·w·3` bytes, RGB, channels last.
    pub images: Vec<u8>,
    /// Images in it; fewer than `batch_size` when some were skipped or at the end of the list.
    pub n: usize,
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
    /// Class ids, one an image.
    pub labels: Vec<i64>,
    /// Place of each image in `LoaderConfig::samples`.
    pub indices: Vec<usize>,
    /// Images left out because they cannot be read, with the reason.
    pub skipped: Vec<(PathBuf, String)>,
}

/// What a loader has done so far.
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
    /// Images delivered.
    pub images: u64,
    /// Images skipped.
    pub skipped: u64,
    /// Images found in the cache.
    pub cache_hits: u64,
    /// Images that had to be decoded.
    pub cache_misses: u64,
}

/// Iterator over the batches of one epoch. Dropping it ends its threads.
pub struct Loader {
    config: Arc<LoaderConfig>,
    next: usize,
}

impl Loader {
    /// Starts the threads. Errors: no samples, batch size 0.
    pub fn new(config: LoaderConfig) -> Result<Self, DataError> {
        Ok(Self {
            next: config.start_batch,
            config: Arc::new(config),
        })
    }

    /// Batches of the whole epoch, `start_batch` ones included.
    pub fn batches(&self) -> usize {
        let n = self.config.samples.len();
        let b = self.config.batch_size.max(1);
        if self.config.drop_last {
            n / b
        } else {
            n.div_ceil(b)
        }
    }

    /// What has been done so far.
    pub fn stats(&self) -> LoaderStats {
        LoaderStats::default()
    }

    /// Gives a batch's memory back for reuse by later batches.
    pub fn recycle(&self, _images: Vec<u8>) {}
}

impl Iterator for Loader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.batches() {
            return None;
        }
        self.next += 1;
        Some(Err(DataError::Worker("not available yet".into())))
    }
}
