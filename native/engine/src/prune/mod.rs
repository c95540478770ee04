//! Sensitivity analysis, and what a pruned training begins from.
//!
//! | file | does |
//! |---|---|
//! | [`evaluation`] | what a network is measured with: images and a metric |
//! | [`classifier`], [`segmenter`], [`detector`] | the same for classification, segmentation and detection |
//! | [`images`] | images kept in memory, or read pass after pass |
//! | [`subject`] | a model made ready: filters judged, batch norms folded |
//! | [`analysis`] | measures every group of layers at every ratio, re-running only what changes |
//! | [`brute`] | the same by masking channels and evaluating everything: the reference |
//! | [`table`] | the measured losses on disk |
//! | [`chart`] | their picture |
//! | [`start`] | from losses to a smaller network |

pub mod analysis;
pub mod brute;
pub mod chart;
pub mod classifier;
pub mod detector;
pub mod evaluation;
mod held;
pub mod images;
pub mod segmenter;
pub mod start;
pub mod subject;
pub mod table;

use oarlock_graph::{Criterion, GraphError, Judges};
use oarlock_jobs::{ErrorCode, TaskType};

use crate::EngineError;

/// Shares of a group's channels that are removed, one after the other.
pub const RATIOS: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// Whose filters are judged: as in PaddleSlim, the first layer of a group.
pub const JUDGES: Judges = Judges::Representative;

/// The measure of a filter's importance, by task, as PaddleX chooses it.
pub fn criterion(task: TaskType) -> Criterion {
    match task {
        TaskType::Classification | TaskType::Segmentation => Criterion::L1Norm,
        TaskType::Detection | TaskType::InstanceSegmentation => Criterion::GeometricMedian,
    }
}

/// Relative loss of the metric; 0 where there is nothing to lose.
pub fn relative_loss(base: f64, pruned: f64) -> f64 {
    if base > 0.0 {
        (base - pruned) / base
    } else {
        0.0
    }
}

/// A network or weights that pruning cannot work with.
fn unusable(error: GraphError) -> EngineError {
    EngineError::new(
        ErrorCode::InvalidData,
        format!("the model cannot be pruned: {error}"),
    )
}
