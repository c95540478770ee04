//! Evaluation on the validation set during training.

use oarlock_datasets::{ClassifyPipeline, Loader, LoaderConfig};
use oarlock_jobs::{ErrorCode, JobError, Metrics};
use tch::Kind;

use super::plan::Plan;
use crate::exec::{Network, download, normalized_input};
use crate::records::EvalDetails;
use crate::runtime::heartbeat::Heart;
use crate::{CancelToken, EngineError, Result};

/// Result of an evaluation.
#[derive(Debug)]
pub struct Validation {
    /// `acc1`, `acc{k}`.
    pub metrics: Metrics,
    /// Scores of every image.
    pub details: EvalDetails,
    /// Images that could not be read.
    pub skipped: usize,
}

/// Scores all validation images with `network` (an inference network). `None` when a stop was asked for.
///
/// # Errors
/// `NonFinite` when scores are NaN; unreadable data; out of memory.
pub fn validate(
    network: &Network,
    plan: &Plan,
    cancel: &CancelToken,
    heart: &Heart,
) -> Result<Option<Validation>> {
    let p = &plan.classifier;
    let mut loader = Loader::new(LoaderConfig {
        samples: plan.data.val.clone(),
        batch_size: plan.params.batch_size as usize,
        pipeline: ClassifyPipeline::eval(p),
        shuffle_seed: None,
        epoch: 0,
        start_batch: 0,
        drop_last: false,
        threads: 0,
        prefetch: 2,
        cache: plan.cache.clone(),
        memory: None,
        max_corrupt_fraction: plan.max_corrupt_fraction,
    })
    .map_err(JobError::from)?;
    let mut details = EvalDetails {
        classes: plan.classes(),
        ..EvalDetails::default()
    };
    let mut skipped = 0;
    loop {
        if cancel.is_cancelled() {
            return Ok(None);
        }
        let Some(batch) = loader.next() else { break };
        let batch = batch.map_err(JobError::from)?;
        skipped += batch.skipped.len();
        if batch.n == 0 {
            continue;
        }
        let input = normalized_input(
            &batch.images,
            [batch.n, batch.h, batch.w],
            p.image_mean,
            p.image_std,
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
        heart.tick();
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
    let accuracy = |k: usize| {
        oarlock_metrics::top_k_accuracy(&details.scores, details.classes, &details.true_labels, k)
    };
    let mut metrics = Metrics::new();
    metrics.insert("acc1".to_owned(), Some(accuracy(1)));
    if plan.topk > 1 {
        metrics.insert(
            format!("acc{}", plan.topk),
            Some(accuracy(plan.topk as usize)),
        );
    }
    Ok(Some(Validation {
        metrics,
        details,
        skipped,
    }))
}
