//! Dataset formats: check, import, split, and the loader that feeds training.
//!
//! No torch here: the checker runs inside the API process.

mod cache;
mod error;
mod loader;
mod pipeline;
mod slot;

pub use cache::ImageCache;
pub use error::DataError;
pub use loader::{Batch, Loader, LoaderConfig, LoaderStats, Sample, balance_classes, epoch_order};
pub use pipeline::{ClassifyTrain, Jitter, Pipeline, Timing};
