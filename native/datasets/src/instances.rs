//! What an import of an instance segmentation set keeps for each picture.

use std::path::Path;

use oarlock_jobs::{ErrorCode, JobError};
use serde_json::Value;

/// Largest annotation of one picture.
const MAX_BYTES: u64 = 256 << 20;

/// An annotation of an instance segmentation set as JSON text. Errors: a file that is something else.
pub fn read_annotation(path: &Path) -> Result<String, JobError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let other = |why: String| JobError::new(ErrorCode::Unsupported, format!("{name} {why}"));
    let size = std::fs::metadata(path)?.len();
    if size > MAX_BYTES {
        return Err(other(format!(
            "has {size} bytes, too many for the annotation of one picture"
        )));
    }
    let text = std::fs::read(path)?;
    let value: Value = serde_json::from_slice(&text)
        .map_err(|_| other("is no instance segmentation annotation".into()))?;
    if value["gt_class"].is_array() && value["gt_bbox"].is_array() {
        Ok(value.to_string())
    } else {
        Err(other("is no instance segmentation annotation".into()))
    }
}
