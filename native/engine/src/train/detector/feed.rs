//! Training batches of detectors.

use std::sync::Arc;

use oarlock_datasets::{DetectPipeline, DetectSample, Loader, LoaderConfig, LoaderStats};
use oarlock_jobs::JobError;

use super::super::family::{EpochPart, Fed, Feed, Supply};
use crate::Result;
use crate::exec::{batch_input, batch_memory};
use crate::runtime::Placement;

/// Batches with their objects.
struct BoxFeed {
    loader: Loader<DetectPipeline>,
    mean: [f32; 3],
    std: [f32; 3],
    placement: Placement,
}

/// Opens the batches of one epoch.
///
/// # Errors
/// What the loader says.
pub fn open(
    pipeline: DetectPipeline,
    samples: Arc<Vec<DetectSample>>,
    (mean, std): ([f32; 3], [f32; 3]),
    part: EpochPart,
    supply: &Supply,
) -> Result<Box<dyn Feed>> {
    let listed = LoaderConfig {
        cache: supply.cache.clone(),
        memory: batch_memory(supply.placement),
        max_corrupt_fraction: supply.max_corrupt_fraction,
        ..LoaderConfig::in_order(samples, supply.batch_size as usize, pipeline)
    };
    let loader = Loader::new(supply.shuffled(part, listed)).map_err(JobError::from)?;
    Ok(Box::new(BoxFeed {
        loader,
        mean,
        std,
        placement: supply.placement,
    }))
}

impl Feed for BoxFeed {
    fn next(&mut self) -> Result<Option<Fed>> {
        let Some(batch) = self.loader.next() else {
            return Ok(None);
        };
        let mut batch = batch.map_err(JobError::from)?;
        let size = [batch.n, batch.h, batch.w];
        let input = batch_input(&mut batch.images, size, self.mean, self.std, self.placement)?;
        self.loader.recycle(batch.images);
        Ok(Some(Fed {
            index: batch.index,
            images: batch.n,
            skipped: batch.skipped,
            input,
            targets: Vec::new(),
            objects: batch.targets,
        }))
    }

    fn stats(&self) -> LoaderStats {
        self.loader.stats()
    }
}
