//! The formats of datasets whose pictures have annotations, and classification folders: what an import
//! checks and what it makes of them.

mod channels;
mod classification;
mod detection;
mod fault;
mod instances;
mod pairs;
mod segmentation;
mod work;

use std::path::Path;

use oarlock_jobs::{JobError, TaskType};

use crate::scan::Listing;
use crate::{Index, Problems};

pub use channels::{CHANNELS_FILE, Channels};
pub(crate) use fault::picture_size;
pub(crate) use instances::whole as whole_coco;
pub(crate) use pairs::{ANNOTATIONS, PICTURES};
pub(crate) use work::Work;

/// A checked dataset.
#[derive(Default)]
pub(crate) struct Set {
    pub index: Index,
    /// Files that the import writes beside the copied ones: name and content.
    pub made: Vec<(String, Vec<u8>)>,
    /// And so many that they are made one after the other.
    pub later: Option<Later>,
}

/// Makes name and content of one file.
type Make = dyn Fn(usize) -> (String, Vec<u8>) + Send + Sync;

/// Files to be made.
pub(crate) struct Later {
    pub count: usize,
    pub make: Box<Make>,
}

/// Checks the folder of one type with every file in it that counts.
pub(crate) fn check(
    (task_type, remote): (TaskType, bool),
    root: &Path,
    listing: &Listing,
    work: &Work,
    problems: &mut Problems,
) -> Result<Set, JobError> {
    match task_type {
        TaskType::Classification => classification::check(root, listing, work, problems),
        TaskType::Segmentation => segmentation::check(root, listing, remote, work, problems),
        TaskType::Detection => detection::check(root, listing, work, problems),
        TaskType::InstanceSegmentation => instances::check(root, listing, work, problems),
    }
}
