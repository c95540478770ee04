//! The formats of datasets whose pictures have annotations, and classification folders: what an import
//! checks and what it makes of them.

mod channels;
mod classification;
mod pairs;
mod segmentation;
mod work;

use std::path::Path;

use oarlock_jobs::{JobError, TaskType};

use crate::scan::Listing;
use crate::{Index, Problems};

pub use channels::{CHANNELS_FILE, Channels};
pub(crate) use work::Work;

/// A checked dataset.
#[derive(Default)]
pub(crate) struct Set {
    pub index: Index,
    /// Files that the import writes beside the copied ones: name and content.
    pub made: Vec<(String, Vec<u8>)>,
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
        _ => Err(JobError::new(
            oarlock_jobs::ErrorCode::Unsupported,
            "not available yet",
        )),
    }
}
