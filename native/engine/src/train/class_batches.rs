//! Validation batches of a classifier, decoded by the CPU or, where that is faster, by the GPU.

use std::time::Instant;

use oarlock_datasets::{ClassifyPipeline, Deferred, Loader, LoaderConfig, Pipeline, Sample};
use oarlock_jobs::{ErrorCode, JobError};
use tch::{Device, Tensor};

use super::decode_choice::{DecodeChoice, Way};
use super::family::Supply;
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
    /// Images that could not be read.
    pub skipped: usize,
}

/// The batches of a set in order.
pub struct ClassBatches<'a> {
    set: &'a ClassSet,
    supply: &'a Supply,
    placement: Placement,
    source: Source,
    decoder: Option<(Deferred, Decoder)>,
    choice: DecodeChoice,
    /// Number of the next batch.
    next: usize,
    /// The batch handed over last: its images, and since when it was waited for.
    last: Option<(usize, Instant)>,
    failure: Option<String>,
}

enum Source {
    Cpu(Loader<ClassifyPipeline>),
    Device(Loader<Deferred>),
}

impl<'a> ClassBatches<'a> {
    /// Starts reading for a network at `placement`; a GPU gets its chance to decode.
    ///
    /// # Errors
    /// An empty list; threads that cannot be started.
    pub fn new(set: &'a ClassSet, supply: &'a Supply, placement: Placement) -> Result<Self> {
        let batches = set
            .samples
            .len()
            .div_ceil(supply.batch_size.max(1) as usize);
        let on_gpu = matches!(placement.device, Device::Cuda(_));
        if !on_gpu || batches < DecodeChoice::WORTHWHILE {
            return Self::with(set, supply, placement, None);
        }
        match nvjpeg::decoder(placement.device) {
            Ok(decoder) => Self::with(set, supply, placement, Some(decoder)),
            Err(error) => {
                let reason = error.to_string();
                let mut this = Self::with(set, supply, placement, None)?;
                this.failure = nvjpeg::give_up(&reason).then_some(reason);
                Ok(this)
            }
        }
    }

    fn with(
        set: &'a ClassSet,
        supply: &'a Supply,
        placement: Placement,
        decoder: Option<Decoder>,
    ) -> Result<Self> {
        let decoder = Deferred::of(&set.pipeline).zip(decoder);
        let batches = set
            .samples
            .len()
            .div_ceil(supply.batch_size.max(1) as usize);
        Ok(Self {
            set,
            supply,
            placement,
            source: Source::Cpu(loader(set, supply, set.pipeline.clone(), placement, 0)?),
            choice: DecodeChoice::new(batches, decoder.is_some()),
            decoder,
            next: 0,
            last: None,
            failure: None,
        })
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
            Source::Cpu(_) => self.by_cpu()?,
        };
        if let Some(batch) = &batch {
            self.last = Some((batch.labels.len(), since));
        }
        Ok(batch)
    }

    /// Goes over to the chosen way of decoding.
    fn turn(&mut self) -> Result<()> {
        let (set, supply, placement, next) = (self.set, self.supply, self.placement, self.next);
        match (self.choice.way(), &self.source, &self.decoder) {
            (Way::Device, Source::Cpu(_), Some((pipeline, _))) => {
                self.source =
                    Source::Device(loader(set, supply, pipeline.clone(), placement, next)?);
            }
            (Way::Cpu, Source::Device(_), _) => {
                self.source =
                    Source::Cpu(loader(set, supply, set.pipeline.clone(), placement, next)?);
            }
            _ => {}
        }
        Ok(())
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
        Ok(Some(ClassBatch {
            input,
            labels: batch.targets,
            skipped: batch.skipped.len(),
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
                    skipped: batch.skipped.len(),
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
            return Some(format!("the CPU decodes the validation images: {reason}"));
        }
        let (cpu, gpu) = self.choice.rates()?;
        let way = match self.choice.way() {
            Way::Cpu => "CPU",
            Way::Device => "GPU",
        };
        Some(format!(
            "the {way} decodes the validation images ({cpu:.0} images/s by the CPU, {gpu:.0} by the GPU)"
        ))
    }
}

/// Reads from batch `start` on.
fn loader<P: Pipeline<Sample = Sample>>(
    set: &ClassSet,
    supply: &Supply,
    pipeline: P,
    placement: Placement,
    start: usize,
) -> Result<Loader<P>> {
    let config = LoaderConfig {
        start_batch: start,
        cache: supply.cache.clone(),
        memory: batch_memory(placement),
        max_corrupt_fraction: supply.max_corrupt_fraction,
        ..LoaderConfig::in_order(set.samples.clone(), supply.batch_size as usize, pipeline)
    };
    Ok(Loader::new(config).map_err(JobError::from)?)
}

#[cfg(test)]
#[path = "class_batches_tests.rs"]
mod tests;
