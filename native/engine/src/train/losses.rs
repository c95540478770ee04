//! Losses on the network's outputs.

use tch::{Reduction, Tensor};

use crate::{EngineError, Result};

/// Cross-entropy of a classifier: `outputs` [N×classes], `targets` [N class ids]; `smoothing` is the share of the
/// target that is spread over all classes.
///
/// # Errors
/// Out of memory.
pub fn classification(outputs: &[Tensor], targets: &[Tensor], smoothing: f64) -> Result<Tensor> {
    let ([logits, ..], [labels]) = (outputs, targets) else {
        return Err(EngineError::internal(
            "the loss needs an output and class ids",
        ));
    };
    Ok(logits.f_cross_entropy_loss::<&Tensor>(labels, None, Reduction::Mean, -100, smoothing)?)
}
