//! The predict job.

use oarlock_jobs::{ErrorCode, PredictResult, PredictSpec};

use crate::{EngineError, JobContext, Result};

/// Runs the job.
///
/// # Errors
/// `Unsupported`: not available yet.
pub fn run(_spec: &PredictSpec, _context: JobContext) -> Result<PredictResult> {
    Err(EngineError::new(
        ErrorCode::Unsupported,
        "predict is not available yet",
    ))
}
