//! The evaluate job: a report on the validation predictions that a checkpoint carries. The network is not run.

use std::path::Path;

use oarlock_jobs::{ErrorCode, EvaluateResult, EvaluateSpec, TaskType};
use oarlock_metrics::classification_report;

use super::model;
use crate::records::EvalDetails;
use crate::records::eval_details::FILE_NAME;
use crate::runtime::heartbeat::Heart;
use crate::train::checkpoint;
use crate::{EngineError, JobContext, Result};

/// Runs the job.
///
/// # Errors
/// `NotFound` when the checkpoint is not there, `NotReady` when it has no stored predictions,
/// `InvalidData` when it is damaged, `Unsupported` for other task types.
pub fn run(spec: &EvaluateSpec, context: JobContext) -> Result<EvaluateResult> {
    if spec.task_type != TaskType::Classification {
        return Err(EngineError::new(
            ErrorCode::Unsupported,
            "evaluation of this task type is not available yet",
        ));
    }
    Heart::default().beat_during(context.sink, |heart| {
        heart.stage("evaluating");
        let dir = Path::new(&spec.source.checkpoint);
        checkpoint::verify(dir)?;
        let labels = model::describe(dir)?.labels;
        let details = EvalDetails::read(&dir.join(FILE_NAME), labels.len())?;
        context.cancel.check()?;
        heart.tick();
        let report = classification_report(
            &labels,
            &details.true_labels,
            &details.scores,
            spec.source.epoch,
            spec.topk as usize,
        )
        .map_err(|e| {
            EngineError::new(
                ErrorCode::NotReady,
                format!("this checkpoint cannot be evaluated: {e}"),
            )
        })?;
        Ok(EvaluateResult { report })
    })
}
