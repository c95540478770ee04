//! Scoring of detectors: one picture after the other, compared in its own pixels.

use std::sync::Arc;

use oarlock_datasets::coco::CocoTruth;
use oarlock_datasets::{DetectPipeline, DetectSample, DetectTarget, Loader, LoaderConfig};
use oarlock_jobs::{ErrorCode, JobError, Metrics};
use oarlock_metrics::{ImageResult, Measure};

use super::super::family::{Supply, Validation, Watch};
use crate::detect::{Detected, Frame, detect};
use crate::exec::{Network, network_input};
use crate::records::{BoxDetails, Details, Preprocessing};
use crate::{EngineError, Result};

/// Pictures with objects, and how they become input.
pub struct BoxSet<'a> {
    /// The pictures.
    pub samples: Arc<Vec<DetectSample>>,
    /// What is in them, in their order.
    pub truth: &'a CocoTruth,
    /// How it is compared.
    pub measure: Measure,
    /// Whether masks are.
    pub masks: bool,
    /// Validation transforms.
    pub pipeline: DetectPipeline,
    /// How pictures become input.
    pub preprocessing: &'a Preprocessing,
}

/// Runs `network` (an inference network) on the pictures; `None` when a stop was asked for.
///
/// # Errors
/// `NonFinite` when the network gives NaN; unreadable data; out of memory.
pub fn validate(
    network: &Network,
    set: &BoxSet,
    supply: &Supply,
    watch: Watch,
) -> Result<Option<Validation>> {
    let Some((details, skipped)) = found(network, set, supply, watch)? else {
        return Ok(None);
    };
    let images = details.images()?;
    let classes = details.gt.categories.len();
    let metrics = average_precision(&images, classes, set.measure, set.masks)?;
    let truths = images.iter().flat_map(|i| &i.truths);
    let remark = (truths.count() == 0)
        .then(|| "the validation images have no objects: there is nothing to measure".to_owned());
    Ok(Some(Validation {
        metrics,
        per_class: Vec::new(),
        details: Details::Boxes(details),
        skipped,
        remark,
    }))
}

/// What the network finds, and how many pictures could not be read; those are left out.
fn found(
    network: &Network,
    set: &BoxSet,
    supply: &Supply,
    watch: Watch,
) -> Result<Option<(BoxDetails, usize)>> {
    let mut loader = Loader::new(LoaderConfig {
        cache: supply.cache.clone(),
        max_corrupt_fraction: supply.max_corrupt_fraction,
        ..LoaderConfig::in_order(set.samples.clone(), 1, set.pipeline.clone())
    })
    .map_err(JobError::from)?;
    let mut details = BoxDetails::new(set.truth.clone(), set.masks);
    let mut read = vec![false; set.samples.len()];
    loop {
        if watch.cancel.is_cancelled() {
            return Ok(None);
        }
        let Some(batch) = loader.next() else { break };
        let batch = batch.map_err(JobError::from)?;
        let shape = [batch.n, batch.h, batch.w, batch.channels];
        let place = network.placement();
        let input = network_input(&batch.images, batch.depth, shape, set.preprocessing, place)?;
        let frames: Vec<Frame> = batch.targets.iter().map(frame).collect();
        let boxes = detect(network, &input, &frames).map_err(not_finite)?;
        for ((found, &index), target) in boxes.iter().zip(&batch.indices).zip(&batch.targets) {
            record(&mut details, index, found, target)?;
            read[index] = true;
        }
        loader.recycle(batch.images);
        watch.heart.tick();
    }
    let skipped = read.iter().filter(|read| !**read).count();
    if skipped == read.len() {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            "none of the validation images can be read",
        ));
    }
    if skipped > 0 {
        leave_out(&mut details.gt, &read);
    }
    Ok(Some((details, skipped)))
}

/// How the loader placed a picture in its input.
pub fn frame(target: &DetectTarget) -> Frame {
    Frame {
        full: target.full,
        shown: target.shown,
    }
}

/// Keeps what was found in the picture with the place `index` in its list.
///
/// # Errors
/// As [`BoxDetails::add`].
pub fn record(
    details: &mut BoxDetails,
    index: usize,
    found: &[Detected],
    target: &DetectTarget,
) -> Result<()> {
    let image = &mut details.gt.images[index];
    // VOC lists say no size.
    if image.width < 1.0 || image.height < 1.0 {
        (image.width, image.height) = (target.full.0 as f32, target.full.1 as f32);
    }
    details.add(index, found)
}

/// Removes pictures that could not be read, with what is in them.
pub fn leave_out(truth: &mut CocoTruth, read: &[bool]) {
    let mut flags = read.iter();
    let mut gone = std::collections::HashSet::new();
    truth.images.retain(|image| {
        let keep = flags.next().copied().unwrap_or(true);
        if !keep {
            gone.insert(image.id.clone());
        }
        keep
    });
    truth.annotations.retain(|a| !gone.contains(&a.image_id));
}

fn not_finite(error: EngineError) -> EngineError {
    if error.code() != ErrorCode::NonFinite {
        return error;
    }
    EngineError::new(
        ErrorCode::NonFinite,
        "the network gives NaN on the validation images",
    )
    .hint("lower learning_rate or use a warm-up; earlier checkpoints are kept")
}

/// The metrics that the contract names, the primary one first.
///
/// # Errors
/// `Internal` for classes from `classes` on.
pub fn average_precision(
    images: &[ImageResult],
    classes: usize,
    measure: Measure,
    masks: bool,
) -> Result<Metrics> {
    let metrics = oarlock_metrics::average_precision(images, classes, measure, masks)
        .map_err(|e| EngineError::internal(e.to_string()))?;
    let metrics = metrics.into_iter();
    Ok(metrics
        .map(|(name, value)| (name.to_owned(), Some(value)))
        .collect())
}
