//! Batches of decoded, augmented images made by threads.

mod batch;
mod buffer;
mod order;
mod slot;
mod stats;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::pipeline::{BatchKey, Pipeline};
use crate::{DataError, ImageCache};

pub use batch::Batch;
pub use buffer::{BatchMemory, Buffer};
pub use order::{balance_classes, epoch_order};
pub use stats::LoaderStats;
use worker::Shared;

/// What a loader reads and how.
#[derive(Debug, Clone)]
pub struct LoaderConfig<P: Pipeline> {
    /// The images in list order; an entry may occur more than once (class balance).
    pub samples: Arc<Vec<P::Sample>>,
    /// Images in one batch.
    pub batch_size: usize,
    /// Transforms.
    pub pipeline: P,
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
    /// Memory of the batches; `None` = the heap, reused.
    pub memory: Option<BatchMemory>,
    /// Share of the list that may be unreadable before the loader fails, 0–1.
    pub max_corrupt_fraction: f64,
}

impl<P: Pipeline> LoaderConfig<P> {
    /// Every sample once in list order, as an evaluation reads them: all cores, no cache, no share of
    /// unreadable ones that would fail.
    pub fn in_order(samples: Arc<Vec<P::Sample>>, batch_size: usize, pipeline: P) -> Self {
        Self {
            samples,
            batch_size,
            pipeline,
            shuffle_seed: None,
            epoch: 0,
            start_batch: 0,
            drop_last: false,
            threads: 0,
            prefetch: 2,
            cache: None,
            memory: None,
            max_corrupt_fraction: 1.0,
        }
    }
}

/// Iterator over the batches of one epoch. Dropping it ends its threads.
pub struct Loader<P: Pipeline> {
    shared: Arc<Shared<P>>,
    threads: Vec<JoinHandle<()>>,
    next: usize,
    pending_skips: Vec<(PathBuf, String)>,
    finished: bool,
}

impl<P: Pipeline> Loader<P> {
    /// Starts the threads. Errors: no samples, batch size 0, empty output size.
    pub fn new(config: LoaderConfig<P>) -> Result<Self, DataError> {
        if config.samples.is_empty() {
            return Err(DataError::Invalid("the image list is empty".into()));
        }
        let first = BatchKey {
            seed: config.shuffle_seed.unwrap_or(0),
            epoch: config.epoch,
            index: config.start_batch,
        };
        if config.batch_size == 0 || !config.pipeline.layout(&first).is_possible() {
            return Err(DataError::Invalid(
                "batch size and image size must be at least 1".into(),
            ));
        }
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let shared = Arc::new(Shared::new(config));
        let mut loader = Self {
            next: shared.start,
            shared,
            threads: Vec::new(),
            pending_skips: Vec::new(),
            finished: false,
        };
        for i in 0..threads {
            let shared = loader.shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("loader-{i}"))
                .spawn(move || {
                    // A worker that ended silently would leave the reader waiting for ever.
                    if catch_unwind(AssertUnwindSafe(|| shared.run())).is_err() {
                        shared.fail(DataError::Worker("a worker thread panicked".into()));
                    }
                })
                .map_err(|e| DataError::Worker(format!("a thread could not be started: {e}")))?;
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// Batches of the whole epoch, `start_batch` ones included.
    pub fn batches(&self) -> usize {
        self.shared.batches
    }

    /// What has been done so far.
    pub fn stats(&self) -> LoaderStats {
        self.shared.lock().stats
    }

    /// Gives a batch's memory back for reuse by later batches.
    pub fn recycle(&self, images: Buffer) {
        let mut state = self.shared.lock();
        if images.reusable() && state.pool.len() <= self.shared.config.prefetch {
            state.pool.push(images);
        }
    }

    fn take(&mut self) -> Result<Batch<P::Target>, DataError> {
        let started = Instant::now();
        let mut state = self.shared.lock();
        loop {
            if let Some(error) = state.error.take() {
                state.stop = true;
                self.shared.work.notify_all();
                return Err(error);
            }
            if let Some(batch) = state.complete.remove(&self.next) {
                state.taken = self.next + 1;
                let waited = started.elapsed().as_secs_f64();
                state.stats.last_wait_seconds = waited;
                state.stats.wait_seconds += waited;
                self.shared.work.notify_all();
                return Ok(batch);
            }
            state = self
                .shared
                .ready
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<P: Pipeline> Iterator for Loader<P> {
    type Item = Result<Batch<P::Target>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.finished && self.next < self.shared.batches {
            match self.take() {
                Ok(mut batch) => {
                    self.next += 1;
                    self.pending_skips.append(&mut batch.skipped);
                    if batch.n > 0 {
                        batch.skipped = std::mem::take(&mut self.pending_skips);
                        return Some(Ok(batch));
                    }
                    self.recycle(batch.images);
                }
                Err(error) => {
                    self.finished = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl<P: Pipeline> Drop for Loader<P> {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A worker catches panics of decoders; nothing is left to report here.
            let _ = thread.join();
        }
    }
}
