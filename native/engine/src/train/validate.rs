//! Scoring of labelled images with a classifier.

use std::sync::Arc;

use oarlock_datasets::{ClassifyPipeline, Loader, LoaderConfig, Sample};
use oarlock_jobs::{ErrorCode, JobError};
use tch::Kind;

use super::family::{Supply, Watch};
use crate::exec::{Network, batch_input, batch_memory, download};
use crate::records::EvalDetails;
use crate::{EngineError, Result};

/// Labelled images and how they become input.
#[derive(Debug, Clone)]
pub struct ClassSet {
    /// The images.
    pub samples: Arc<Vec<Sample>>,
    /// Number of classes.
    pub classes: usize,
    /// Validation transforms.
    pub pipeline: ClassifyPipeline,
    /// Of R, G, B.
    pub mean: [f32; 3],
    /// Of R, G, B.
    pub std: [f32; 3],
}

/// Scores all images of `set` with `network` (an inference network); also the number of unreadable images. `None` when
/// a stop was asked for.
///
/// # Errors
/// `NonFinite` when scores are NaN; unreadable data; out of memory.
pub fn classes(
    network: &Network,
    set: &ClassSet,
    supply: &Supply,
    watch: Watch,
) -> Result<Option<(EvalDetails, usize)>> {
    let mut loader = Loader::new(LoaderConfig {
        samples: set.samples.clone(),
        batch_size: supply.batch_size as usize,
        pipeline: set.pipeline.clone(),
        shuffle_seed: None,
        epoch: 0,
        start_batch: 0,
        drop_last: false,
        threads: 0,
        prefetch: 2,
        cache: supply.cache.clone(),
        memory: batch_memory(network.placement()),
        max_corrupt_fraction: supply.max_corrupt_fraction,
    })
    .map_err(JobError::from)?;
    let mut details = EvalDetails {
        classes: set.classes,
        ..EvalDetails::default()
    };
    let mut skipped = 0;
    loop {
        if watch.cancel.is_cancelled() {
            return Ok(None);
        }
        let Some(batch) = loader.next() else { break };
        let mut batch = batch.map_err(JobError::from)?;
        skipped += batch.skipped.len();
        if batch.n == 0 {
            continue;
        }
        let input = batch_input(
            &mut batch.images,
            [batch.n, batch.h, batch.w],
            set.mean,
            set.std,
            network.placement(),
        )?;
        let scores = network.forward(&input, false)?.f_softmax(-1, Kind::Float)?;
        details.scores.extend(download(&scores)?.data);
        details.true_labels.extend(
            batch
                .targets
                .iter()
                .map(|&l| u32::try_from(l).unwrap_or(u32::MAX)),
        );
        watch.heart.tick();
    }
    if details.true_labels.is_empty() {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            "none of the validation images can be read",
        ));
    }
    if details.scores.iter().any(|s| !s.is_finite()) {
        return Err(EngineError::new(
            ErrorCode::NonFinite,
            "the network gives NaN on the validation images",
        )
        .hint("lower learning_rate or use a warm-up; earlier checkpoints are kept"));
    }
    Ok(Some((details, skipped)))
}
