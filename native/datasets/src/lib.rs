//! Dataset formats: check, import, split, and the loader that feeds training.
//!
//! No torch here: the checker runs inside the API process.

mod cache;
mod check;
mod detect;
mod error;

mod folder;
mod import;
mod index;
mod instances;
mod loader;
mod paste;
mod pipeline;
mod preview;
mod problems;
mod scan;
mod segment;
mod sets;
mod slot;
mod split;
mod text;

pub use cache::ImageCache;
pub use check::check_picture;
pub use detect::DetectTrain;
pub use error::DataError;

pub use folder::SplitDataset;
pub use import::{import, read_index};
pub use index::{Entry, Index};
pub use instances::read_annotation;
pub use loader::{Batch, Loader, LoaderConfig, LoaderStats, Sample, balance_classes, epoch_order};
pub use oarlock_imaging::transform::Jitter;
pub use pipeline::{ClassifyTrain, Pipeline, Timing};
pub use preview::{PreviewOptions, draw_labels};
pub use problems::{Problem, Problems};
pub use scan::is_picture_name;
pub use segment::SegmentTrain;
pub use sets::{CHANNELS_FILE, Channels, Pair, SplitPairs};
pub use split::{SplitOptions, split, write_split};
pub use text::{decode_text, lines, normal_path, read_text};
