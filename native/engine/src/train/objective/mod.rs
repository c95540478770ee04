//! Losses of detectors, chosen by the [`Head`] of the graph.

mod two_stage;

use std::fmt::Debug;

use oarlock_datasets::DetectTarget;
use oarlock_graph::Head;
use oarlock_jobs::ErrorCode;
use tch::Tensor;

use super::learner::Learned;
use crate::exec::Network;
use crate::{EngineError, Result};

/// What a detector is trained for.
pub trait Objective: Debug {
    /// Forward pass in training and its losses; their sum is minimised, each is logged.
    ///
    /// `input` is N×3×h×w as made by [`crate::exec::network_input`]; `objects` has one entry for each image, in
    /// pixels of the input. Images without objects are allowed.
    ///
    /// # Errors
    /// Out of memory, device failures.
    fn learn(
        &self,
        network: &Network,
        input: &Tensor,
        objects: &[DetectTarget],
        seed: u64,
    ) -> Result<Learned>;
}

/// The objective of the model `model` (a name of the zoo), whose graph ends with `head`.
///
/// # Errors
/// `Unsupported` for a head that cannot be trained.
pub fn objective(model: &str, head: &Head) -> Result<Box<dyn Objective>> {
    if let Head::TwoStage(head) = head {
        return Ok(Box::new(two_stage::TwoStage::new(head)));
    }
    let what = format!("{model} cannot be trained yet ({} classes)", head.classes());
    Err(EngineError::new(ErrorCode::Unsupported, what))
}
