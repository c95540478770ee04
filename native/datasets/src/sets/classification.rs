//! Image folders: every picture of a class folder or list must be readable.

use std::path::Path;

use oarlock_jobs::JobError;

use super::{Set, Work};
use crate::check::{check_picture, remedy};
use crate::import::CHECKING;
use crate::scan::Listing;
use crate::{Problems, folder};

pub fn check(
    root: &Path,
    listing: &Listing,
    work: &Work,
    problems: &mut Problems,
) -> Result<Set, JobError> {
    let index = folder::index(root, listing, problems);
    work.stopped()?;
    let bad = work.each(CHECKING, index.files.len(), &|item| {
        check_picture(&root.join(&index.files[item].picture)).err()
    })?;
    for (item, error) in bad {
        let file = index.files[item].picture.as_str();
        problems.add(file, None, error.to_string(), remedy(&error));
    }
    Ok(Set {
        index,
        ..Set::default()
    })
}
