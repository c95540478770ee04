//! The evaluate job.

use oarlock_jobs::{ErrorCode, EvaluateResult, EvaluateSpec};

use crate::{EngineError, JobContext, Result};

/// Runs the job.
///
/// # Errors
/// `Unsupported`: not available yet.
pub fn run(_spec: &EvaluateSpec, _context: JobContext) -> Result<EvaluateResult> {
    Err(EngineError::new(
        ErrorCode::Unsupported,
        "evaluate is not available yet",
    ))
}
