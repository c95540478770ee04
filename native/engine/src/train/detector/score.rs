//! Scoring of detectors: one picture after the other, compared in its own pixels.

use std::sync::Arc;

use oarlock_datasets::coco::CocoTruth;
use oarlock_datasets::{DetectPipeline, DetectSample, DetectTarget, Loader, LoaderConfig};
use oarlock_jobs::{ErrorCode, JobError, Metrics};
use oarlock_metrics::{
    CocoParameters, ImageResult, Region, ReportError, coco_evaluate, voc_evaluate,
};

use super::super::family::{Supply, Validation, Watch};
use super::data::Measure;
use crate::detect::{Detected, Frame, detect};
use crate::exec::{Network, network_input};
use crate::records::{BoxDetails, Details, Preprocessing};
use crate::{EngineError, Result};

/// Overlap from which a box is right in `bbox_map`.
const VOC_OVERLAP: f64 = 0.5;

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

/// The metrics that the contract names, the primary one first; 0 where nothing was there to be found.
///
/// # Errors
/// `Internal` for classes from `classes` on.
pub fn average_precision(
    images: &[ImageResult],
    classes: usize,
    measure: Measure,
    masks: bool,
) -> Result<Metrics> {
    let failed = |e: ReportError| EngineError::internal(e.to_string());
    if measure == Measure::Voc {
        let result = voc_evaluate(&with_corners(images), classes, VOC_OVERLAP).map_err(failed)?;
        let percent = 100.0 * result.eleven_point().unwrap_or(0.0);
        return Ok([("bbox_map".to_owned(), Some(percent))]
            .into_iter()
            .collect());
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let average = |region: Region| -> Result<Option<f64>> {
        let parameters = CocoParameters {
            areas: vec![[0.0, 1e10]],
            detections: vec![100],
            ..CocoParameters::default()
        };
        let result = coco_evaluate(images, classes, region, parameters, threads).map_err(failed)?;
        Ok(Some(result.average_precision(None, 0, 0).unwrap_or(0.0)))
    };
    let mut metrics = Metrics::new();
    metrics.insert("bbox_mmap".to_owned(), average(Region::Box)?);
    if masks {
        metrics.insert("segm_mmap".to_owned(), average(Region::Mask)?);
    }
    Ok(metrics)
}

/// In a training PaddleX takes the edges of a box as the pixels at its corners; [`voc_evaluate`] takes those of its width.
fn with_corners(images: &[ImageResult]) -> Vec<ImageResult> {
    let mut images = images.to_vec();
    for image in &mut images {
        let truths = image.truths.iter_mut().map(|t| &mut t.bbox);
        let boxes = truths.chain(image.detections.iter_mut().map(|d| &mut d.bbox));
        boxes.for_each(|[_, _, width, height]| {
            *width += 1.0;
            *height += 1.0;
        });
    }
    images
}
