//! The evaluate job: a report on the validation predictions that a checkpoint carries. The network is not run.

use std::path::Path;

use oarlock_jobs::{ErrorCode, EvaluateResult, EvaluateSpec, TaskType};
use oarlock_metrics::{Confusion, classification_report, segmentation_report};

use super::model;
use crate::records::eval_details::FILE_NAME;
use crate::records::{EvalDetails, PixelDetails};
use crate::runtime::heartbeat::Heart;
use crate::train::checkpoint;
use crate::{EngineError, JobContext, Result};

/// Runs the job.
///
/// # Errors
/// `NotFound` when the checkpoint is not there, `NotReady` when it has no stored predictions,
/// `InvalidData` when it is damaged, `Unsupported` for other task types.
pub fn run(spec: &EvaluateSpec, context: JobContext) -> Result<EvaluateResult> {
    if !matches!(
        spec.task_type,
        TaskType::Classification | TaskType::Segmentation
    ) {
        return Err(EngineError::new(
            ErrorCode::Unsupported,
            "evaluation of this task type is not available yet",
        ));
    }
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
            _ => {
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
