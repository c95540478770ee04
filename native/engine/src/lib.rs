//! The compute core: networks run on libtorch, are trained, evaluated, applied and exported.
//!
//! Entry point is [`run_job`]. A network is an [`oarlock_graph`] value that [`exec::Network`]
//! executes forward and backward on any device; there is no second forward pass anywhere.
//!
//! * [`runtime`]: devices, threads, memory and number formats
//! * [`exec`]: the graph executor
//! * [`detect`]: from the outputs of detectors to boxes and masks
//! * [`train`]: the training loop, its state and checkpoints
//! * [`prune`]: sensitivity analysis and the start of pruned trainings
//! * [`records`]: what a training leaves behind for people (logs, curves, `model.yml`)
//! * [`jobs`]: one file per kind of job

pub mod bench;
pub mod detect;
pub mod error;
pub mod exec;
mod ffi;
pub mod job;
pub mod jobs;
pub mod prune;
pub mod records;
pub mod runtime;
pub mod train;

pub use error::{EngineError, Result};
pub use job::{CancelToken, EventSink, JobContext, run_job};
