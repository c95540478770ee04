//! Dataset formats: check, import, split, and the loader that feeds training.
//!
//! No torch here: the checker runs inside the API process.

mod cache;
mod error;
mod loader;
mod pipeline;

pub use cache::ImageCache;
pub use error::DataError;
pub use loader::{Batch, Loader, LoaderConfig, LoaderStats, Sample};
pub use pipeline::{ClassifyTrain, Jitter, Pipeline};
