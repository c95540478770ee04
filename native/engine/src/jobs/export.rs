//! The export job.

use oarlock_jobs::{ErrorCode, ExportResult, ExportSpec};

use crate::{EngineError, JobContext, Result};

/// Runs the job.
///
/// # Errors
/// `Unsupported`: not available yet.
pub fn run(_spec: &ExportSpec, _context: JobContext) -> Result<ExportResult> {
    Err(EngineError::new(
        ErrorCode::Unsupported,
        "export is not available yet",
    ))
}
