//! The images of an evaluation, pass after pass: kept where they fit into memory, else read anew.

use std::sync::Arc;

use oarlock_datasets::{self as datasets, BatchKey, ImageCache, Loader, LoaderConfig, Pipeline};
use oarlock_jobs::{ErrorCode, JobError};

use super::evaluation::{Batch, Images};
use crate::exec::network_input;
use crate::records::Preprocessing;
use crate::runtime::{Placement, memory};
use crate::{EngineError, Result};

/// Share of unreadable images that is left out.
const MAX_CORRUPT: f64 = 0.1;

/// How images come to the network, pass after pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Decoded once, kept as bytes, where the budget allows it; else anew each time.
    Once,
    /// Through the loader in each pass, with its cache of decoded files: as training evaluates.
    EachTime,
}

/// How a set is opened.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    /// Images of a batch.
    pub batch_size: usize,
    /// How they become the network's input.
    pub preprocessing: &'a Preprocessing,
    /// Where the network runs.
    pub placement: Placement,
    /// Once or each time.
    pub reading: Reading,
    /// Bytes that pictures and their truth, or the cache of decoded files, may take.
    pub budget: u64,
    /// Called for each batch while the set is opened.
    pub tick: &'a dyn Fn() -> Result<()>,
}

/// Bytes that the pictures of a set may take on this machine: a quarter of what is free.
pub fn memory_budget() -> u64 {
    memory::available().unwrap_or(0) / 4
}

type Loaded<P> = datasets::Batch<<P as Pipeline>::Target>;
/// What is done with a batch, its truth and the places of its images in the list.
type EachVisit<'a, T> = dyn FnMut(&Batch, &[T], &[usize]) -> Result<()> + 'a;
type Visit<'a, P> = dyn FnMut(Loaded<P>) -> Result<Option<Loaded<P>>> + 'a;

/// Images with their truth.
pub(super) struct ImageSet<P: Pipeline> {
    config: LoaderConfig<P>,
    stored: Option<Vec<Loaded<P>>>,
    /// How many can be read.
    images: usize,
    preprocessing: Preprocessing,
    placement: Placement,
    /// Files that could not be read, with the reason.
    skipped: Vec<String>,
}

impl<P: Pipeline> ImageSet<P> {
    /// Reads the images in `samples`; `weight` is how many bytes the truth of one takes.
    ///
    /// # Errors
    /// `InvalidData` when more than a tenth or all of them cannot be read; what `opening.tick` says.
    pub fn open(
        samples: Arc<Vec<P::Sample>>,
        pipeline: P,
        opening: &Opening,
        weight: fn(&P::Target) -> usize,
    ) -> Result<Self> {
        let free = opening.budget;
        let first = BatchKey {
            seed: 0,
            epoch: 0,
            index: 0,
        };
        let pixels = pipeline.layout(&first).image_bytes().unwrap_or(0);
        let mut set = Self {
            images: samples.len(),
            config: LoaderConfig {
                max_corrupt_fraction: MAX_CORRUPT,
                ..LoaderConfig::in_order(samples, opening.batch_size.max(1), pipeline)
            },
            stored: None,
            preprocessing: opening.preprocessing.clone(),
            placement: opening.placement,
            skipped: Vec::new(),
        };
        let fits = set.images as u64 * pixels as u64 <= free;
        let mut stored = (opening.reading == Reading::Once && fits).then(Vec::new);
        let cache = Some(Arc::new(ImageCache::new(free as usize)));
        if stored.is_none() {
            set.config.cache.clone_from(&cache);
        }
        let (mut bytes, mut images, mut skipped) = (0, 0, Vec::new());
        // The first pass also tells which files can be read.
        set.load(&mut |mut batch| {
            (opening.tick)()?;
            images += batch.n;
            let reasons = batch.skipped.iter();
            skipped.extend(reasons.map(|(path, why)| format!("'{}': {why}", path.display())));
            batch.maps = Vec::new();
            bytes += batch.n * pixels + batch.targets.iter().map(weight).sum::<usize>();
            // The truth may be larger than the pictures, which shows only now.
            if bytes as u64 > free {
                stored = None;
            }
            match &mut stored {
                Some(stored) => {
                    stored.push(batch);
                    Ok(None)
                }
                None => Ok(Some(batch)),
            }
        })?;
        if images == 0 {
            return Err(EngineError::new(
                ErrorCode::InvalidData,
                "none of the validation images can be read",
            ));
        }
        if stored.is_none() {
            set.config.cache = cache;
        }
        (set.images, set.skipped, set.stored) = (images, skipped, stored);
        Ok(set)
    }

    /// One pass of the loader; batches that come back from `visit` lend their memory to later ones.
    fn load(&self, visit: &mut Visit<P>) -> Result<()> {
        let mut loader = Loader::new(self.config.clone()).map_err(JobError::from)?;
        while let Some(batch) = loader.next() {
            let batch = batch.map_err(JobError::from)?;
            if batch.n == 0 {
                continue;
            }
            if let Some(batch) = visit(batch)? {
                loader.recycle(batch.images);
            }
        }
        Ok(())
    }

    /// Goes through all batches with their truth.
    ///
    /// # Errors
    /// Unreadable data, and what `visit` says.
    pub fn each(&self, visit: &mut EachVisit<P::Target>) -> Result<()> {
        let mut number = 0;
        let mut one = |batch: &Loaded<P>| {
            let shape = [batch.n, batch.h, batch.w, batch.channels];
            let bytes = shape.iter().product::<usize>() * batch.depth.bytes();
            let input = || {
                network_input(
                    &batch.images[..bytes],
                    batch.depth,
                    shape,
                    &self.preprocessing,
                    self.placement,
                )
            };
            let view = Batch {
                number,
                images: batch.n,
                input: &input,
            };
            number += 1;
            visit(&view, &batch.targets, &batch.indices)
        };
        match &self.stored {
            Some(stored) => stored.iter().try_for_each(one),
            None => self.load(&mut |batch| one(&batch).map(|()| Some(batch))),
        }
    }
}

impl<P: Pipeline> Images for ImageSet<P> {
    fn count(&self) -> usize {
        self.images
    }

    fn skipped(&self) -> &[String] {
        &self.skipped
    }

    fn visit(&self, visit: &mut dyn FnMut(&Batch) -> Result<()>) -> Result<()> {
        self.each(&mut |batch, _, _| visit(batch))
    }
}
