//! What is wrong with one file, found by a thread that checks it.

use std::path::Path;

use oarlock_imaging::{ImageError, Limits, decode_region, plan, read_file};

use crate::Problems;
use crate::check::remedy;

pub struct Fault {
    pub file: String,
    pub reason: String,
    pub remedy: String,
}

impl Fault {
    pub fn new(file: &str, reason: impl Into<String>, remedy: &str) -> Self {
        Self {
            file: file.to_owned(),
            reason: reason.into(),
            remedy: remedy.to_owned(),
        }
    }

    pub fn of(file: &str, error: &ImageError) -> Self {
        Self::new(file, error.to_string(), remedy(error))
    }

    pub fn tell(self, problems: &mut Problems) {
        problems.add(self.file, None, self.reason, self.remedy);
    }
}

/// Reads a whole picture and returns its width and height as displayed. JPEG is decoded at 1/8: every
/// coded bit is still read, but hardly any pixel computed.
pub fn picture_size(root: &Path, name: &str) -> Result<(usize, usize), Fault> {
    let limits = Limits::default();
    let look = || {
        let bytes = read_file(&root.join(name), &limits)?;
        let plan = plan(&bytes, &limits, Some((1, 1)))?;
        decode_region(&bytes, &plan, None)?;
        Ok(plan.info.display_size())
    };
    look().map_err(|e| Fault::of(name, &e))
}
