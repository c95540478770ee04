//! Values that an analysis keeps.

use oarlock_graph::NodeId;
use oarlock_jobs::ErrorCode;
use tch::Tensor;

use super::evaluation::Batch;
use crate::{EngineError, Result};

/// Values of the unpruned network, kept for every batch.
#[derive(Default)]
pub(super) struct Held {
    pub nodes: Vec<NodeId>,
    pub batches: Vec<Vec<Tensor>>,
}

impl Held {
    /// The values `wanted` for a batch.
    pub fn of(&self, batch: &Batch, wanted: &[NodeId]) -> Result<Vec<(NodeId, Tensor)>> {
        let changed = || {
            EngineError::new(
                ErrorCode::InvalidData,
                "the validation images changed while the analysis ran",
            )
            .hint("run it again")
        };
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let values = self.batches.get(batch.number).ok_or_else(changed)?;
        let pairs = self.nodes.iter().zip(values);
        let values: Vec<(NodeId, Tensor)> = pairs
            .filter(|(id, _)| wanted.contains(id))
            .map(|(&id, value)| (id, value.shallow_clone()))
            .collect();
        let fits = |(_, value): &(NodeId, Tensor)| {
            value.size().first().copied() == i64::try_from(batch.images).ok()
        };
        if values.iter().all(fits) {
            Ok(values)
        } else {
            Err(changed())
        }
    }
}
