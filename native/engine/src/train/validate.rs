//! Scoring of labelled images with a classifier.

use std::sync::Arc;

use oarlock_datasets::{ClassifyPipeline, Sample};
use oarlock_jobs::ErrorCode;
use tch::Kind;

use super::class_batches::{ClassBatches, Order};
use super::family::{Supply, Watch};
use crate::exec::{Network, download};
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

/// How a set was scored.
#[derive(Debug)]
pub struct Scored {
    /// The scores.
    pub details: EvalDetails,
    /// Unreadable images.
    pub skipped: usize,
    /// What the log should say of the decoding.
    pub remark: Option<String>,
}

/// Scores all images of `set` with `network` (an inference network). `None` when a stop was asked for.
///
/// # Errors
/// `NonFinite` when scores are NaN; unreadable data; out of memory.
pub fn classes(
    network: &Network,
    set: &ClassSet,
    supply: &Supply,
    watch: Watch,
) -> Result<Option<Scored>> {
    let mut batches = ClassBatches::new(set.clone(), supply, Order::AsListed, network.placement())?;
    let mut details = EvalDetails {
        classes: set.classes,
        ..EvalDetails::default()
    };
    let mut skipped = 0;
    loop {
        if watch.cancel.is_cancelled() {
            return Ok(None);
        }
        let Some(batch) = batches.next()? else { break };
        skipped += batch.skipped.len();
        let scores = network
            .forward(&batch.input, false)?
            .f_softmax(-1, Kind::Float)?;
        details.scores.extend(download(&scores)?.data);
        let labels = batch.labels.iter();
        details
            .true_labels
            .extend(labels.map(|&l| u32::try_from(l).unwrap_or(u32::MAX)));
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
    Ok(Some(Scored {
        details,
        skipped,
        remark: batches.remark(),
    }))
}
