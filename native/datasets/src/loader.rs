//! Batches of decoded, augmented images made by threads.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use oarlock_imaging::{ImageError, Rng};

use crate::slot::Slot;
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
    /// Share of the list that may be unreadable before the loader fails, 0–1.
    pub max_corrupt_fraction: f64,
}

/// Images of one training or evaluation step.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Number of this batch in the epoch, from 0; resume behind it with `start_batch = index + 1`.
    pub index: usize,
    /// `n·h·w·3` bytes, RGB, channels last.
    pub images: Vec<u8>,
    /// Images in it, at least 1; fewer than `batch_size` when some were skipped or at the end.
    pub n: usize,
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
    /// Class ids, one an image.
    pub labels: Vec<i64>,
    /// Place of each image in `LoaderConfig::samples`.
    pub indices: Vec<usize>,
    /// Images left out because they cannot be read, with the reason. A batch that would be empty is
    /// not delivered; its skipped images are told by the next one.
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
    /// Images made.
    pub images: u64,
    /// Images skipped.
    pub skipped: u64,
    /// Images found in the cache.
    pub cache_hits: u64,
    /// Images that had to be decoded.
    pub cache_misses: u64,
}

impl LoaderStats {
    /// Share of images found in the cache, 0–1; `None` without a cache.
    pub fn cache_hit_rate(&self) -> Option<f64> {
        let asked = self.cache_hits + self.cache_misses;
        (asked > 0).then(|| self.cache_hits as f64 / asked as f64)
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

/// Iterator over the batches of one epoch. Dropping it ends its threads.
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    next: usize,
    pending_skips: Vec<(PathBuf, String)>,
    finished: bool,
}

struct Shared {
    config: LoaderConfig,
    /// Sample index of each place of the epoch.
    order: Vec<usize>,
    batches: usize,
    state: Mutex<State>,
    /// The reader took a batch or wants to stop.
    work: Condvar,
    /// A batch is complete or the loader failed.
    ready: Condvar,
}

#[derive(Default)]
struct State {
    /// Next place of the epoch to be worked on.
    next_place: usize,
    /// Batches before this one were taken by the reader.
    taken: usize,
    open: BTreeMap<usize, Arc<Slot>>,
    complete: BTreeMap<usize, Batch>,
    pool: Vec<Vec<u8>>,
    bad: usize,
    error: Option<DataError>,
    stop: bool,
    stats: LoaderStats,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn image_bytes(&self) -> usize {
        let (h, w) = self.config.pipeline.output_size();
        h * w * 3
    }

    /// Places of a batch.
    fn places(&self, batch: usize) -> std::ops::Range<usize> {
        let start = batch * self.config.batch_size;
        start..(start + self.config.batch_size).min(self.order.len())
    }

    /// Waits for room and claims the next image: (batch, place within it, slot).
    fn claim(&self) -> Option<(usize, usize, Arc<Slot>)> {
        let mut state = self.lock();
        loop {
            let batch = state.next_place / self.config.batch_size;
            // The last batch may be shorter than the others.
            let over = batch >= self.batches || state.next_place >= self.order.len();
            if state.stop || state.error.is_some() || over {
                return None;
            }
            if batch < state.taken + self.config.prefetch.max(1) {
                let places = self.places(batch);
                let item = state.next_place - places.start;
                state.next_place += 1;
                let slot = match state.open.get(&batch) {
                    Some(slot) => slot.clone(),
                    None => {
                        let buffer = state.pool.pop().unwrap_or_default();
                        let slot = Arc::new(Slot::new(places.len(), self.image_bytes(), buffer));
                        state.open.insert(batch, slot.clone());
                        slot
                    }
                };
                return Some((batch, item, slot));
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run(&self) {
        let seed = self.config.shuffle_seed.unwrap_or(0);
        while let Some((batch, item, slot)) = self.claim() {
            let index = self.order[self.places(batch).start + item];
            let sample = &self.config.samples[index];
            let mut rng = Rng::of(&[seed, self.config.epoch, index as u64, 0x617567]);
            let result = slot.fill(item, |out| {
                catch_unwind(AssertUnwindSafe(|| {
                    self.config.pipeline.run(
                        &sample.path,
                        self.config.cache.as_deref(),
                        &mut rng,
                        out,
                    )
                }))
                .unwrap_or_else(|_| Err(ImageError::Argument("its decoder failed".into())))
            });
            let mut state = self.lock();
            match result {
                Ok(timing) => {
                    state.stats.images += 1;
                    state.stats.decode_seconds += timing.decode_seconds;
                    state.stats.transform_seconds += timing.transform_seconds;
                    if self.config.cache.is_some() {
                        state.stats.cache_hits += u64::from(timing.hit);
                        state.stats.cache_misses += u64::from(!timing.hit);
                    }
                }
                Err(error) => self.note_bad(&mut state, &slot, item, sample, &error),
            }
            // Counted under the lock, so exactly one thread sees the slot become complete.
            if slot.finish_one() {
                state.open.remove(&batch);
                let complete = self.batch_of(batch, slot);
                state.complete.insert(batch, complete);
                self.ready.notify_all();
            }
        }
    }

    fn note_bad(
        &self,
        state: &mut State,
        slot: &Slot,
        item: usize,
        sample: &Sample,
        error: &ImageError,
    ) {
        slot.skip(item, error.to_string());
        state.bad += 1;
        state.stats.skipped += 1;
        let allowed = self.config.max_corrupt_fraction * self.order.len() as f64;
        if state.bad as f64 > allowed && state.error.is_none() {
            state.error = Some(DataError::TooManyCorrupt {
                bad: state.bad,
                total: self.order.len(),
                max_fraction: self.config.max_corrupt_fraction,
                last: sample.path.display().to_string(),
                reason: error.to_string(),
            });
            self.ready.notify_all();
            self.work.notify_all();
        }
    }

    fn batch_of(&self, index: usize, slot: Arc<Slot>) -> Batch {
        let (h, w) = self.config.pipeline.output_size();
        let (images, skips) = slot.take();
        let mut batch = Batch {
            index,
            images,
            h,
            w,
            ..Batch::default()
        };
        for (item, place) in self.places(index).enumerate() {
            let index = self.order[place];
            let sample = &self.config.samples[index];
            if let Some(reason) = skips.get(&item) {
                batch.skipped.push((sample.path.clone(), reason.clone()));
            } else {
                batch.indices.push(index);
                batch.labels.push(sample.label);
            }
        }
        batch.n = batch.labels.len();
        batch
    }
}

impl Loader {
    /// Starts the threads. Errors: no samples, batch size 0, empty output size.
    pub fn new(config: LoaderConfig) -> Result<Self, DataError> {
        let (h, w) = config.pipeline.output_size();
        if config.samples.is_empty() {
            return Err(DataError::Invalid("the image list is empty".into()));
        }
        if config.batch_size == 0 || h == 0 || w == 0 {
            return Err(DataError::Invalid(
                "batch size and image size must be at least 1".into(),
            ));
        }
        let order = epoch_order(config.samples.len(), config.shuffle_seed, config.epoch);
        let batches = if config.drop_last {
            order.len() / config.batch_size
        } else {
            order.len().div_ceil(config.batch_size)
        };
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let start = config.start_batch.min(batches);
        let state = State {
            next_place: start * config.batch_size,
            taken: start,
            ..State::default()
        };
        let shared = Arc::new(Shared {
            config,
            order,
            batches,
            state: Mutex::new(state),
            work: Condvar::new(),
            ready: Condvar::new(),
        });
        let mut loader = Self {
            shared,
            threads: Vec::new(),
            next: start,
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
                        let mut state = shared.lock();
                        state.error = Some(DataError::Worker("a worker thread panicked".into()));
                        shared.ready.notify_all();
                        shared.work.notify_all();
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
    pub fn recycle(&self, images: Vec<u8>) {
        let mut state = self.shared.lock();
        if state.pool.len() <= self.shared.config.prefetch {
            state.pool.push(images);
        }
    }

    fn take(&mut self) -> Result<Batch, DataError> {
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

impl Iterator for Loader {
    type Item = Result<Batch, DataError>;

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

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A worker catches panics of decoders; nothing is left to report here.
            let _ = thread.join();
        }
    }
}

/// Sample index of each place of an epoch: list order, or shuffled by (seed, epoch) alone.
pub fn epoch_order(samples: usize, shuffle_seed: Option<u64>, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..samples).collect();
    if let Some(seed) = shuffle_seed {
        Rng::of(&[seed, epoch, 0x6f7264]).shuffle(&mut order);
    }
    order
}

/// The samples with those of rare classes repeated until every class occurs as often as the most
/// frequent one. Order: list order, then the repetitions class by class.
pub fn balance_classes(samples: &[Sample]) -> Vec<Sample> {
    let mut classes: BTreeMap<i64, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        classes.entry(sample.label).or_default().push(sample);
    }
    let most = classes.values().map(Vec::len).max().unwrap_or(0);
    let mut out = samples.to_vec();
    for members in classes.values() {
        out.extend(
            members
                .iter()
                .cycle()
                .skip(members.len())
                .take(most - members.len())
                .map(|s| (*s).clone()),
        );
    }
    out
}
