//! What the loader's threads share and do.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use oarlock_imaging::Rng;

use super::batch::{Batch, assemble};
use super::buffer::Buffer;
use super::slot::Slot;
use super::{LoaderConfig, LoaderStats, epoch_order};
use crate::DataError;
use crate::pipeline::{BatchKey, Job, Listed, Pipeline, Timing};

pub(super) struct Shared<P: Pipeline> {
    pub config: LoaderConfig<P>,
    /// Sample index of each place of the epoch.
    order: Vec<usize>,
    pub batches: usize,
    /// First batch that is made.
    pub start: usize,
    state: Mutex<State<P::Target>>,
    /// The reader took a batch or wants to stop.
    pub work: Condvar,
    /// A batch is complete or the loader failed.
    pub ready: Condvar,
}

pub(super) struct State<T> {
    /// Next place of the epoch to be worked on.
    next_place: usize,
    /// Batches before this one were taken by the reader.
    pub taken: usize,
    open: BTreeMap<usize, Arc<Slot<T>>>,
    pub complete: BTreeMap<usize, Batch<T>>,
    pub pool: Vec<Buffer>,
    bad: usize,
    pub error: Option<DataError>,
    pub stop: bool,
    pub stats: LoaderStats,
}

/// One image to be made, in its batch.
struct Claim<T> {
    batch: usize,
    /// Place within the batch.
    item: usize,
    slot: Arc<Slot<T>>,
}

impl<P: Pipeline> Shared<P> {
    pub fn new(config: LoaderConfig<P>) -> Self {
        let order = epoch_order(config.samples.len(), config.shuffle_seed, config.epoch);
        let batches = if config.drop_last {
            order.len() / config.batch_size
        } else {
            order.len().div_ceil(config.batch_size)
        };
        let start = config.start_batch.min(batches);
        let state = State {
            next_place: start * config.batch_size,
            taken: start,
            open: BTreeMap::new(),
            complete: BTreeMap::new(),
            pool: Vec::new(),
            bad: 0,
            error: None,
            stop: false,
            stats: LoaderStats::default(),
        };
        Self {
            config,
            order,
            batches,
            start,
            state: Mutex::new(state),
            work: Condvar::new(),
            ready: Condvar::new(),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State<P::Target>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn fail(&self, error: DataError) {
        self.lock().error.get_or_insert(error);
        self.ready.notify_all();
        self.work.notify_all();
    }

    fn seed(&self) -> u64 {
        self.config.shuffle_seed.unwrap_or(0)
    }

    /// Places of a batch.
    fn places(&self, batch: usize) -> std::ops::Range<usize> {
        let start = batch * self.config.batch_size;
        start..(start + self.config.batch_size).min(self.order.len())
    }

    /// Memory for a batch, from `pool` where there is some.
    fn memory(&self, pool: &mut Vec<Buffer>, length: usize) -> Buffer {
        if length == 0 {
            return Buffer::default();
        }
        let given = self.config.memory.as_ref().and_then(|m| m.take(length));
        given.unwrap_or_else(|| pool.pop().unwrap_or_default().resized(length))
    }

    fn slot(&self, batch: usize, pool: &mut Vec<Buffer>) -> Arc<Slot<P::Target>> {
        let layout = self.config.pipeline.layout(&BatchKey {
            seed: self.seed(),
            epoch: self.config.epoch,
            index: batch,
        });
        let memory = |length| self.memory(pool, length);
        Arc::new(Slot::new(self.places(batch).len(), layout, memory))
    }

    /// Waits for room and claims the next image.
    fn claim(&self) -> Option<Claim<P::Target>> {
        let mut guard = self.lock();
        loop {
            let state = &mut *guard;
            let batch = state.next_place / self.config.batch_size;
            // The last batch may be shorter than the others.
            let over = batch >= self.batches || state.next_place >= self.order.len();
            if state.stop || state.error.is_some() || over {
                return None;
            }
            if batch < state.taken + self.config.prefetch.max(1) {
                let item = state.next_place - self.places(batch).start;
                state.next_place += 1;
                let pool = &mut state.pool;
                let slot = state.open.entry(batch);
                let slot = slot.or_insert_with(|| self.slot(batch, pool)).clone();
                return Some(Claim { batch, item, slot });
            }
            guard = self
                .work
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn run(&self) {
        while let Some(claim) = self.claim() {
            if self.make(&claim) {
                let batch = self.batch_of(&claim);
                let mut state = self.lock();
                state.open.remove(&claim.batch);
                state.complete.insert(claim.batch, batch);
                self.ready.notify_all();
            }
        }
    }

    /// Makes one image; true when its batch is complete with it.
    fn make(&self, claim: &Claim<P::Target>) -> bool {
        let started = Instant::now();
        let index = self.order[self.places(claim.batch).start + claim.item];
        let mut job = Job {
            samples: self.config.samples.as_slice(),
            index,
            layout: claim.slot.layout,
            cache: self.config.cache.as_deref(),
            rng: Rng::of(&[self.seed(), self.config.epoch, index as u64, 0x617567]),
            timing: Timing::default(),
        };
        let failed = claim.slot.fill(claim.item, |canvas| {
            match catch_unwind(AssertUnwindSafe(|| {
                self.config.pipeline.run(&mut job, canvas)
            })) {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err("its decoder failed".to_owned()),
            }
        });
        let seconds = started.elapsed().as_secs_f64();
        let mut state = self.lock();
        match failed {
            None => state.stats.add(&job.timing, seconds),
            Some(reason) => self.note_bad(&mut state, index, reason),
        }
        // Counted under the lock, so exactly one thread sees the slot become complete.
        claim.slot.finish_one()
    }

    fn note_bad(&self, state: &mut State<P::Target>, index: usize, reason: String) {
        state.bad += 1;
        state.stats.skipped += 1;
        let allowed = self.config.max_corrupt_fraction * self.order.len() as f64;
        if state.bad as f64 > allowed && state.error.is_none() {
            state.error = Some(DataError::TooManyCorrupt {
                bad: state.bad,
                total: self.order.len(),
                max_fraction: self.config.max_corrupt_fraction,
                last: self.config.samples[index].path().display().to_string(),
                reason,
            });
            self.ready.notify_all();
            self.work.notify_all();
        }
    }

    fn batch_of(&self, claim: &Claim<P::Target>) -> Batch<P::Target> {
        let filled = claim.slot.take();
        let layout = &claim.slot.layout;
        let memory = |length| self.memory(&mut self.lock().pool, length);
        let pixels = assemble(layout, filled.images, &filled.own, memory);
        let mut batch = Batch {
            index: claim.batch,
            images: pixels.images,
            maps: filled.maps,
            n: 0,
            h: pixels.h,
            w: pixels.w,
            channels: layout.channels,
            depth: layout.depth,
            targets: Vec::new(),
            indices: Vec::new(),
            skipped: Vec::new(),
        };
        for (place, outcome) in self.places(claim.batch).zip(filled.outcomes) {
            let index = self.order[place];
            match outcome {
                Ok(target) => {
                    batch.indices.push(index);
                    batch.targets.push(target);
                }
                Err(reason) => {
                    let path = self.config.samples[index].path().to_owned();
                    batch.skipped.push((path, reason));
                }
            }
        }
        batch.n = batch.targets.len();
        batch
    }
}
