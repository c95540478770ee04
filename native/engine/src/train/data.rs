//! The images of a training, from the dataset's list files.

use std::path::Path;
use std::sync::Arc;

use oarlock_datasets::{Sample, SegmentSample, lines, normal_path, read_segment_list, read_text};
use oarlock_jobs::{DatasetRef, ErrorCode, JobError};
use sha2::{Digest, Sha256};

use crate::{EngineError, Result};

/// A split dataset in lists.
#[derive(Debug, Clone)]
pub struct DataSplit<S> {
    /// Class names in the order of their ids.
    pub labels: Vec<String>,
    /// Training images.
    pub train: Arc<Vec<S>>,
    /// Validation images.
    pub val: Arc<Vec<S>>,
    /// Hash over the training list, to notice a new split on resume.
    pub fingerprint: String,
}

/// Reads `labels.txt`, `train_list.txt` and `val_list.txt`.
///
/// # Errors
/// `NotReady` when a list is missing or empty, `InvalidData` naming a faulty line.
pub fn read(dataset: &DatasetRef) -> Result<DataSplit<Sample>> {
    let root = Path::new(&dataset.root);
    let labels = labels(root)?;
    let train = list(root, "train_list.txt", labels.len())?;
    let val = list(root, "val_list.txt", labels.len())?;
    split(labels, train, val, |hash, sample| {
        hash.update(relative(root, &sample.path));
        hash.update(sample.label.to_le_bytes());
    })
}

/// Reads `labels.txt`, `train_list.txt` and `val_list.txt` of pictures with label maps.
///
/// # Errors
/// As [`read`].
pub fn read_pairs(dataset: &DatasetRef) -> Result<DataSplit<SegmentSample>> {
    let root = Path::new(&dataset.root);
    let labels = labels(root)?;
    let list = |name: &str| -> Result<Vec<SegmentSample>> {
        text(root, name)?;
        Ok(read_segment_list(root, name).map_err(JobError::from)?)
    };
    let (train, val) = (list("train_list.txt")?, list("val_list.txt")?);
    split(labels, train, val, |hash, sample| {
        hash.update(relative(root, &sample.path));
        hash.update(b" ");
        hash.update(relative(root, &sample.map));
        hash.update(b"\n");
    })
}

/// Class names in the order of their ids.
pub(super) fn labels(root: &Path) -> Result<Vec<String>> {
    let labels: Vec<String> = lines(&text(root, "labels.txt")?)
        .map(|(_, name)| name.to_owned())
        .collect();
    if labels.is_empty() {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            "labels.txt names no class",
        ));
    }
    Ok(labels)
}

/// Checks that both parts have images; `add` puts what identifies a sample into the fingerprint.
pub(super) fn split<S>(
    labels: Vec<String>,
    train: Vec<S>,
    val: Vec<S>,
    add: impl Fn(&mut Sha256, &S),
) -> Result<DataSplit<S>> {
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
    train.iter().for_each(|sample| add(&mut hash, sample));
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

pub(super) fn relative<'a>(root: &Path, path: &'a Path) -> &'a [u8] {
    path.strip_prefix(root)
        .unwrap_or(path)
        .as_os_str()
        .as_encoded_bytes()
}

pub(super) fn text(root: &Path, name: &str) -> Result<String> {
    let path = root.join(name);
    if !path.exists() {
        return Err(
            EngineError::new(ErrorCode::NotReady, format!("the dataset has no {name}"))
                .with("path", path.display().to_string())
                .hint("split the dataset first"),
        );
    }
    Ok(read_text(&path).map_err(JobError::from)?)
}

fn list(root: &Path, name: &str, classes: usize) -> Result<Vec<Sample>> {
    let text = text(root, name)?;
    let mut samples = Vec::new();
    for (number, line) in lines(&text) {
        let wrong = |what: &str| {
            EngineError::new(
                ErrorCode::InvalidData,
                format!("{name}, line {number}: {what}: `{line}`"),
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
            path: root.join(normal_path(file.trim())),
            label,
        });
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use oarlock_jobs::DatasetFormat;

    use super::*;

    #[test]
    fn lists_of_other_systems_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let gb = |text: &[u8]| text.to_vec();
        // "花" in GB18030, and backslashes as Windows writes them.
        fs::write(dir.path().join("labels.txt"), gb(b"\xbb\xa8\r\nrose\r\n")).unwrap();
        fs::write(
            dir.path().join("train_list.txt"),
            gb(b"\xbb\xa8\\my 1.jpg 0\r\n.\\rose\\2.jpg 1\r\n"),
        )
        .unwrap();
        fs::write(dir.path().join("val_list.txt"), "rose/3.jpg 1\n").unwrap();
        let data = read(&DatasetRef {
            format: DatasetFormat::ImageFolder,
            root: dir.path().display().to_string(),
        })
        .unwrap();
        assert_eq!(data.labels, ["花", "rose"]);
        let paths: Vec<_> = data.train.iter().map(|s| s.path.clone()).collect();
        assert_eq!(
            paths,
            [
                dir.path().join("花/my 1.jpg"),
                dir.path().join("rose/2.jpg")
            ]
        );
    }
}
