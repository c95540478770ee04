//! Dataset formats: check, import, split, and the loader that feeds training.
//!
//! No torch here: the checker runs inside the API process.

mod cache;
mod check;
mod classify;
pub mod coco;
mod convert;
mod deferred;
mod detect;
mod detect_pipeline;
mod error;

mod folder;
mod import;
mod index;
mod instances;
mod lists;
mod loader;
mod params;
mod paste;
mod pipeline;
mod pixels;
mod preview;
mod problems;
mod raster;
mod scan;
mod segment;
mod sets;
mod source;
mod split;
mod text;
pub mod voc;

pub use cache::ImageCache;
pub use check::check_picture;
pub use classify::{ClassifyChanges, ClassifyPipeline, ClassifyTrain, Sample};
pub use deferred::{Deferred, DeferredJpeg, DeferredTarget, Undecoded, ViewBox};
pub use detect::{DetectTrain, Fit};
pub use detect_pipeline::{DetectPipeline, DetectSample, DetectTarget};
pub use error::DataError;

pub use folder::{SplitDataset, read_class_names};
pub use import::{import, read_index};
pub use index::{Entry, Index};
pub use instances::read_annotation;
pub use lists::{read_segment_list, split_pair};
pub use loader::{
    Batch, BatchMemory, Buffer, Loader, LoaderConfig, LoaderStats, balance_classes, epoch_order,
};
pub use oarlock_imaging::transform::{ColourKind, Jitter};
pub use params::{CommonAugment, DetectFamily, DetectionParams, SegmentationParams, Switch};
pub use pipeline::{BatchKey, Canvas, Depth, Job, Layout, Listed, Pipeline, Size, Timing};
pub use pixels::PixelPipeline;
pub use preview::{PreviewOptions, draw_labels};
pub use problems::{Problem, Problems};
pub use raster::{RasterPipeline, RasterTask, RasterTrain, ValueRange};
pub use scan::is_picture_name;
pub use segment::{SegmentPipeline, SegmentSample, SegmentTarget, SegmentTrain};
pub use sets::{CHANNELS_FILE, Channels};
pub use split::{SplitOptions, split, write_split};
pub use text::{decode_text, lines, normal_path, read_text};
