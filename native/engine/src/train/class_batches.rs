//! Batches of a classifier, decoded and changed by the CPU or, where that is faster, by the GPU.

use std::path::PathBuf;
use std::time::Instant;

use oarlock_datasets::{
    ClassifyPipeline, Deferred, Loader, LoaderConfig, LoaderStats, Pipeline, Sample,
};
use oarlock_jobs::{ErrorCode, JobError};
use tch::{Device, Tensor};

use super::decode_choice::{DecodeChoice, Way};
use super::family::{EpochPart, Supply};
use super::validate::ClassSet;
use crate::exec::{batch_input, batch_memory, decoded_input};
use crate::runtime::Placement;
use crate::runtime::nvjpeg::{self, Decoder};
use crate::{EngineError, Result};

/// Network input with what belongs to it.
#[derive(Debug)]
pub struct ClassBatch {
    /// Network input.
    pub input: Tensor,
    /// Class id of each image.
    pub labels: Vec<i64>,
    /// Files that could not be read, with the reason.
    pub skipped: Vec<(PathBuf, String)>,
    /// Number within the pass, from 0.
    pub index: usize,
}

/// In which order the images of a set come.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// Each once, in the order of the list.
    AsListed,
    /// A part of an epoch: shuffled, whole batches only.
    Shuffled(EpochPart),
}

impl Order {
    fn start(self) -> usize {
        match self {
            Self::AsListed => 0,
            Self::Shuffled(part) => part.start_batch as usize,
        }
    }
}

/// The batches of a set.
pub struct ClassBatches {
    set: ClassSet,
    supply: Supply,
    order: Order,
    placement: Placement,
    source: Source,
    decoder: Option<(Deferred, Decoder)>,
    choice: DecodeChoice,
    /// Number of the next batch.
    next: usize,
    /// The batch handed over last: its images, and since when it was waited for.
    last: Option<(usize, Instant)>,
    failure: Option<String>,
    /// What loaders that are no more have done.
    before: LoaderStats,
}

enum Source {
    /// Not yet begun.
    None,
    Cpu(Loader<ClassifyPipeline>),
    Device(Loader<Deferred>),
}

impl ClassBatches {
    /// Starts reading for a network at `placement`; a GPU gets its chance to decode.
    ///
    /// # Errors
    /// An empty list; threads that cannot be started.
    pub fn new(set: ClassSet, supply: &Supply, order: Order, placement: Placement) -> Result<Self> {
        let on_gpu = matches!(placement.device, Device::Cuda(_));
        if !on_gpu || batches(&set, supply, order) < DecodeChoice::WORTHWHILE {
            return Self::with(set, supply, order, placement, None);
        }
        match nvjpeg::decoder(placement.device) {
            Ok(decoder) => Self::with(set, supply, order, placement, Some(decoder)),
            Err(error) => {
                let reason = error.to_string();
                let mut this = Self::with(set, supply, order, placement, None)?;
                this.failure = nvjpeg::give_up(&reason).then_some(reason);
                Ok(this)
            }
        }
    }

    fn with(
        set: ClassSet,
        supply: &Supply,
        order: Order,
        placement: Placement,
        decoder: Option<Decoder>,
    ) -> Result<Self> {
        let next = order.start();
        let mut this = Self {
            choice: DecodeChoice::new(batches(&set, supply, order), decoder.is_some()),
            decoder: decoder.map(|decoder| (Deferred::of(&set.pipeline), decoder)),
            source: Source::None,
            set,
            supply: supply.clone(),
            order,
            placement,
            next,
            last: None,
            failure: None,
            before: LoaderStats::default(),
        };
        this.turn()?;
        Ok(this)
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// Too many unreadable images; out of memory.
    pub fn next(&mut self) -> Result<Option<ClassBatch>> {
        if let Some((images, since)) = self.last.take() {
            self.choice.took(images, since.elapsed().as_secs_f64());
        }
        let since = Instant::now();
        self.turn()?;
        let batch = match self.source {
            Source::Device(_) => self.by_device()?,
            _ => self.by_cpu()?,
        };
        if let Some(batch) = &batch {
            self.last = Some((batch.labels.len(), since));
        }
        Ok(batch)
    }

    /// Goes over to the chosen way of decoding.
    fn turn(&mut self) -> Result<()> {
        let source = match (self.choice.way(), &self.source, &self.decoder) {
            (Way::Device, Source::Cpu(_), Some((pipeline, _))) => {
                Source::Device(self.loader(pipeline.clone())?)
            }
            (Way::Cpu, Source::None | Source::Device(_), _) => {
                Source::Cpu(self.loader(self.set.pipeline.clone())?)
            }
            _ => return Ok(()),
        };
        self.before = self.stats();
        self.source = source;
        Ok(())
    }

    /// Reads from the next batch on.
    fn loader<P: Pipeline<Sample = Sample>>(&self, pipeline: P) -> Result<Loader<P>> {
        let supply = &self.supply;
        let listed = LoaderConfig {
            start_batch: self.next,
            cache: supply.cache.clone(),
            memory: batch_memory(self.placement),
            max_corrupt_fraction: supply.max_corrupt_fraction,
            ..LoaderConfig::in_order(
                self.set.samples.clone(),
                supply.batch_size as usize,
                pipeline,
            )
        };
        let config = match self.order {
            Order::AsListed => listed,
            Order::Shuffled(part) => LoaderConfig {
                start_batch: self.next,
                ..supply.shuffled(part, listed)
            },
        };
        Ok(Loader::new(config).map_err(JobError::from)?)
    }

    /// What was read and waited for so far.
    pub fn stats(&self) -> LoaderStats {
        let now = match &self.source {
            Source::None => LoaderStats::default(),
            Source::Cpu(loader) => loader.stats(),
            Source::Device(loader) => loader.stats(),
        };
        now.after(&self.before)
    }

    fn by_cpu(&mut self) -> Result<Option<ClassBatch>> {
        let Source::Cpu(loader) = &mut self.source else {
            return Ok(None);
        };
        let Some(batch) = loader.next() else {
            return Ok(None);
        };
        let mut batch = batch.map_err(JobError::from)?;
        self.next = batch.index + 1;
        let input = batch_input(
            &mut batch.images,
            [batch.n, batch.h, batch.w],
            self.set.mean,
            self.set.std,
            self.placement,
        )?;
        loader.recycle(batch.images);
        Ok(Some(ClassBatch {
            input,
            labels: batch.targets,
            skipped: batch.skipped,
            index: batch.index,
        }))
    }

    /// The device's batch; after its failure the same one by the CPU.
    fn by_device(&mut self) -> Result<Option<ClassBatch>> {
        let (Source::Device(loader), Some((_, decoder))) = (&mut self.source, &mut self.decoder)
        else {
            return Ok(None);
        };
        let Some(batch) = loader.next() else {
            return Ok(None);
        };
        let batch = batch.map_err(JobError::from)?;
        let input = decoded_input(
            decoder,
            &batch.targets,
            self.set.pipeline.output_size(),
            self.set.mean,
            self.set.std,
            self.placement,
        );
        match input {
            Ok(input) => {
                self.next = batch.index + 1;
                Ok(Some(ClassBatch {
                    input,
                    labels: batch.targets.iter().map(|t| t.label).collect(),
                    skipped: batch.skipped,
                    index: batch.index,
                }))
            }
            Err(error) => {
                self.failed(&error);
                self.turn()?;
                self.by_cpu()
            }
        }
    }

    fn failed(&mut self, error: &EngineError) {
        // A faulty or unusual file says nothing of the device: the next validation may try again.
        if !matches!(
            error.code(),
            ErrorCode::InvalidData | ErrorCode::Unsupported
        ) {
            nvjpeg::give_up(&error.to_string());
        }
        self.failure = Some(error.to_string());
        self.choice.fail();
    }

    /// Who decoded, where there was a choice; for the log.
    pub fn remark(&self) -> Option<String> {
        if let Some(reason) = &self.failure {
            return Some(format!("the CPU decodes the images: {reason}"));
        }
        let (cpu, gpu) = self.choice.rates()?;
        let way = match self.choice.way() {
            Way::Cpu => "CPU",
            Way::Device => "GPU",
        };
        Some(format!(
            "the {way} decodes the images ({cpu:.0} images/s by the CPU, {gpu:.0} by the GPU)"
        ))
    }
}

/// How many batches are to come.
fn batches(set: &ClassSet, supply: &Supply, order: Order) -> usize {
    let batches = set
        .samples
        .len()
        .div_ceil(supply.batch_size.max(1) as usize);
    batches.saturating_sub(order.start())
}

#[cfg(test)]
#[path = "class_batches_tests.rs"]
mod tests;
