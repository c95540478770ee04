//! One file per kind of job.

mod detect_picture;
pub mod evaluate;
pub mod export;
pub(crate) mod model;
pub mod predict;
mod segment;
mod segment_picture;
pub mod sensitivity;

use oarlock_jobs::{ErrorCode, JobOutcome, JobSpec};

use crate::{EngineError, JobContext, Result, train};

/// Runs a job on the calling thread.
///
/// # Errors
/// What the job's own module says; `Unsupported` for kinds that belong to the light addon.
pub fn dispatch(spec: JobSpec, context: JobContext) -> Result<JobOutcome> {
    match spec {
        JobSpec::Train(spec) => train::run(&spec, context).map(JobOutcome::Train),
        JobSpec::Evaluate(spec) => evaluate::run(&spec, context).map(JobOutcome::Evaluate),
        JobSpec::Predict(spec) => predict::run(&spec, context).map(JobOutcome::Predict),
        JobSpec::Export(spec) => {
            export::run(&spec, context).map(|result| JobOutcome::Export(Box::new(result)))
        }
        JobSpec::Sensitivity(spec) => sensitivity::run(&spec, context).map(JobOutcome::Sensitivity),
        _ => Err(EngineError::new(
            ErrorCode::Unsupported,
            "the compute host does not run this kind of job",
        )),
    }
}
