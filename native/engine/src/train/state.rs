//! Where a training stands: everything beside weights and optimizer that a resume needs.

use oarlock_jobs::{Metrics, PruneSummary, TrainSpec};
use serde::{Deserialize, Serialize};

/// Raised when the meaning of a field changes.
pub const STATE_VERSION: u32 = 1;

/// The best evaluation so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Epoch, from 1.
    pub epoch: u32,
    /// Its metrics, primary one first.
    pub metrics: Metrics,
}

impl Best {
    /// The primary metric.
    pub fn value(&self) -> f64 {
        self.metrics
            .values()
            .next()
            .copied()
            .flatten()
            .unwrap_or(f64::NEG_INFINITY)
    }
}

/// Sums over the running epoch, for its means.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochSums {
    /// Logged steps in the sums.
    pub count: u32,
    /// Sum of each metric.
    pub sums: Metrics,
}

/// What the last bits of the results depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compute {
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// Number format.
    pub precision: String,
    /// Threads of one operation.
    pub threads: u32,
}

/// Where a training stands. Random numbers need no state: the order of the images, their augmentation and the
/// dropout masks are functions of the seed, the epoch and the step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// Raised by each start that is no continuation, so that leftovers of an earlier run are never taken for newer.
    pub run: u64,
    /// Epochs done completely.
    pub epoch: u32,
    /// Steps done of the epoch after those.
    pub step: u32,
    /// Steps of one epoch.
    pub steps_per_epoch: u32,
    /// Steps done in all.
    pub global_step: u64,
    /// Best evaluation.
    pub best: Option<Best>,
    /// Evaluations since then.
    pub evaluations_without_gain: u32,
    /// Means of the running epoch.
    pub sums: EpochSums,
    /// Seed of the training.
    pub seed: u64,
    /// Images of a step.
    pub batch_size: u32,
    /// Fingerprint of the training list.
    pub dataset: String,
    /// On what it ran.
    pub compute: Compute,
    /// Whether batch norms stay as the start weights had them.
    #[serde(default)]
    pub frozen_norms: bool,
    /// What was pruned before the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned: Option<PruneSummary>,
}

impl TrainState {
    /// The state before the first step.
    pub fn fresh(spec: &TrainSpec, batch_size: u32, steps_per_epoch: u32, dataset: String) -> Self {
        Self {
            version: STATE_VERSION,
            run: 1,
            epoch: 0,
            step: 0,
            steps_per_epoch,
            global_step: 0,
            best: None,
            evaluations_without_gain: 0,
            sums: EpochSums::default(),
            seed: spec.params.seed,
            batch_size,
            dataset,
            compute: Compute::default(),
            frozen_norms: false,
            pruned: None,
        }
    }

    /// Moves to `step` of the running epoch.
    pub fn advance_to(&mut self, step: u32) {
        self.step = step;
        self.global_step =
            u64::from(self.epoch) * u64::from(self.steps_per_epoch) + u64::from(step);
    }
}
