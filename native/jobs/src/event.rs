//! What a running job reports.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::PruneSummary;

/// Named values in the order they are shown; `None` stands for NaN or infinity.
pub type Metrics = IndexMap<String, Option<f64>>;

/// One report of a running job. Step events may be coalesced by a transport: only the newest counts.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum JobEvent {
    /// The job has its device and begins work.
    Started {
        /// `cpu` or `cuda:0,1`.
        device: String,
        /// `fp32`, `bf16` or `fp16`.
        precision: String,
        /// Remarks for the user: replaced values, skipped weights …
        notes: Vec<String>,
    },
    /// One logged training step (also the heartbeat of training).
    Step {
        /// Running epoch, from 1.
        epoch: u32,
        /// Number of epochs of the whole training.
        num_epochs: u32,
        /// Step within the epoch, from 1.
        step: u32,
        /// Steps of one epoch.
        steps: u32,
        /// Loss first, then the type's own keys, then `lr`.
        metrics: Metrics,
        /// Seconds left, if known.
        eta: Option<f64>,
        /// Seconds of the last step.
        step_seconds: f64,
        /// Seconds of the last step spent waiting for data.
        data_wait_seconds: f64,
        /// Images per second since the last logged step.
        images_per_second: f64,
        /// Share of the epoch's pictures found decoded in memory, 0–1; none without such a cache.
        #[serde(default)]
        #[ts(optional = nullable)]
        cache_hit_rate: Option<f64>,
    },
    /// An evaluation on the validation set finished.
    Eval {
        /// Epoch it belongs to, from 1.
        epoch: u32,
        /// Primary metric first.
        metrics: Metrics,
    },
    /// A checkpoint is complete on disk.
    Saved {
        /// Epoch, from 1.
        epoch: u32,
        /// Absolute folder.
        path: String,
        /// Whether `best_model` was replaced by it.
        best: bool,
    },
    /// Progress of a job that is no training.
    Progress {
        /// Units done.
        #[ts(type = "number")]
        done: u64,
        /// Units in all.
        #[ts(type = "number")]
        total: u64,
        /// What is being done (`checking`, `copying`, `predicting` …).
        stage: String,
        /// Seconds left, where it can be told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[ts(optional)]
        eta: Option<f64>,
    },
    /// A pruned training has its network.
    Pruned(PruneSummary),
    /// Something the user should know that does not end the job.
    Warning {
        /// One sentence.
        message: String,
    },
    /// The job is alive though it has nothing to tell.
    Heartbeat {
        /// What it is doing (`evaluating`, `loading` …).
        stage: String,
    },
}
