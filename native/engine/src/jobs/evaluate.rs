//! The evaluate job: a report on the validation predictions that a checkpoint carries. The network is not run.

use std::path::Path;

use oarlock_jobs::{ErrorCode, EvaluateResult, EvaluateSpec, TaskType};
use oarlock_metrics::{
    Confusion, DetectionSettings, classification_report, detection_report, instance_report,
    segmentation_report,
};

use super::model;
use crate::records::eval_details::FILE_NAME;
use crate::records::{BoxDetails, EvalDetails, PixelDetails};
use crate::runtime::heartbeat::Heart;
use crate::train::checkpoint;
use crate::{EngineError, JobContext, Result};

/// Runs the job.
///
/// # Errors
/// `NotFound` when the checkpoint is not there, `NotReady` when it has no stored predictions,
/// `InvalidData` when it is damaged, `InvalidArgument` for thresholds outside 0–1.
pub fn run(spec: &EvaluateSpec, context: JobContext) -> Result<EvaluateResult> {
    let settings = settings(spec)?;
    Heart::default().beat_during(context.sink, |heart| {
        heart.stage("evaluating");
        let dir = Path::new(&spec.source.checkpoint);
        checkpoint::verify(dir)?;
        let yml = model::describe(dir)?;
        model::of_type(&yml, spec.task_type)?;
        let (labels, path) = (yml.labels, dir.join(FILE_NAME));
        context.cancel.check()?;
        heart.tick();
        let epoch = spec.source.epoch;
        let report = match spec.task_type {
            TaskType::Segmentation => {
                let matrix = PixelDetails::read(&path, labels.len())?.confusion_matrix;
                let confusion = Confusion::from_counts(labels.len(), matrix.concat());
                segmentation_report(&labels, &confusion, epoch)
            }
            TaskType::Detection => {
                let images = BoxDetails::read(&path, labels.len())?.images()?;
                detection_report(&labels, &images, &settings)
            }
            TaskType::InstanceSegmentation => {
                let images = BoxDetails::read(&path, labels.len())?.images()?;
                instance_report(&labels, &images, &settings)
            }
            TaskType::Classification => {
                let details = EvalDetails::read(&path, labels.len())?;
                classification_report(
                    &labels,
                    &details.true_labels,
                    &details.scores,
                    epoch,
                    spec.topk as usize,
                )
            }
        }
        .map_err(|e| {
            EngineError::new(
                ErrorCode::NotReady,
                format!("this checkpoint cannot be evaluated: {e}"),
            )
        })?;
        Ok(EvaluateResult { report })
    })
}

/// Thresholds of detectors; without a choice those of the API's documentation.
fn settings(spec: &EvaluateSpec) -> Result<DetectionSettings> {
    let overlap = match spec.task_type {
        TaskType::InstanceSegmentation => 0.3,
        _ => 0.5,
    };
    let settings = DetectionSettings {
        epoch: spec.source.epoch,
        score_thresh: spec.score_thresh.unwrap_or(0.5),
        overlap_thresh: spec.overlap_thresh.unwrap_or(overlap),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    for (value, field) in [
        (settings.score_thresh, "score_thresh"),
        (settings.overlap_thresh, "overlap_thresh"),
    ] {
        if !(0.0..=1.0).contains(&value) {
            let what = format!("{field} must lie between 0 and 1");
            return Err(EngineError::new(ErrorCode::InvalidArgument, what).with("field", field));
        }
    }
    Ok(settings)
}
