//! Training of classifiers.

pub mod learner;
pub mod optimizer;

use oarlock_jobs::{ErrorCode, TrainResult, TrainSpec};

use crate::{EngineError, JobContext, Result};

/// Trains a model from its spec to its last epoch or to a stop.
///
/// # Errors
/// `InvalidData`/`NotFound` for unusable data, `NonFinite` when the loss explodes, `ResourceExhausted` when memory
/// or disk run out; the last good checkpoint stays.
pub fn run(_spec: &TrainSpec, _context: JobContext) -> Result<TrainResult> {
    Err(EngineError::new(
        ErrorCode::Unsupported,
        "training is not available yet",
    ))
}
