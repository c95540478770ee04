//! The images of a training, from the dataset's list files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use oarlock_datasets::Sample;
use oarlock_jobs::{DatasetRef, ErrorCode};
use sha2::{Digest, Sha256};

use crate::{EngineError, Result};

/// A split dataset in lists.
#[derive(Debug, Clone)]
pub struct DataSplit {
    /// Class names in the order of their ids.
    pub labels: Vec<String>,
    /// Training images.
    pub train: Arc<Vec<Sample>>,
    /// Validation images.
    pub val: Arc<Vec<Sample>>,
    /// Hash over the training list, to notice a new split on resume.
    pub fingerprint: String,
}

/// Reads `labels.txt`, `train_list.txt` and `val_list.txt`.
///
/// # Errors
/// `NotReady` when a list is missing or empty, `InvalidData` naming a faulty line.
pub fn read(dataset: &DatasetRef) -> Result<DataSplit> {
    let root = Path::new(&dataset.root);
    let labels: Vec<String> = text(root, "labels.txt")?
        .lines()
        .map(|l| l.trim().to_owned())
        .filter(|l| !l.is_empty())
        .collect();
    if labels.is_empty() {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            "labels.txt names no class",
        ));
    }
    let train = list(root, "train_list.txt", labels.len())?;
    let val = list(root, "val_list.txt", labels.len())?;
    for (samples, what) in [(&train, "training"), (&val, "validation")] {
        if samples.is_empty() {
            return Err(EngineError::new(
                ErrorCode::NotReady,
                format!("the dataset has no {what} images"),
            )
            .hint("split the dataset so that each part gets images"));
        }
    }
    let mut hash = Sha256::new();
    for sample in &train {
        hash.update(
            sample
                .path
                .strip_prefix(root)
                .unwrap_or(&sample.path)
                .as_os_str()
                .as_encoded_bytes(),
        );
        hash.update(sample.label.to_le_bytes());
    }
    let fingerprint = hash
        .finalize()
        .iter()
        .take(16)
        .map(|b| format!("{b:02x}"))
        .collect();
    Ok(DataSplit {
        labels,
        train: Arc::new(train),
        val: Arc::new(val),
        fingerprint,
    })
}

fn text(root: &Path, name: &str) -> Result<String> {
    let path = root.join(name);
    match fs::read(&path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes)
            .trim_start_matches('\u{feff}')
            .to_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(EngineError::new(
            ErrorCode::NotReady,
            format!("the dataset has no {name}"),
        )
        .with("path", path.display().to_string())
        .hint("split the dataset first")),
        Err(e) => Err(EngineError::from(e).with("path", path.display().to_string())),
    }
}

fn list(root: &Path, name: &str, classes: usize) -> Result<Vec<Sample>> {
    let text = text(root, name)?;
    let mut samples = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end_matches(['\r', ' ', '\t']);
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |what: &str| {
            EngineError::new(
                ErrorCode::InvalidData,
                format!("{name}, line {}: {what}: `{line}`", number + 1),
            )
        };
        // Names may hold blanks: the class id is what follows the last one.
        let (file, label) = line
            .rsplit_once([' ', '\t'])
            .ok_or_else(|| wrong("expected `file class`"))?;
        let label: i64 = label.parse().map_err(|_| wrong("the class is no number"))?;
        if !(0..classes as i64).contains(&label) {
            return Err(wrong(&format!(
                "labels.txt names {classes} classes, counted from 0"
            )));
        }
        samples.push(Sample {
            path: root.join(file.trim().replace('\\', "/")),
            label,
        });
    }
    Ok(samples)
}
