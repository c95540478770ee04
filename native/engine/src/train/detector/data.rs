//! The pictures and objects of a detection or instance segmentation set.

use std::path::Path;

use oarlock_datasets::coco::{self, CocoTruth, PARTS, PICTURES};
use oarlock_datasets::{DetectSample, voc};
use oarlock_jobs::{DatasetFormat, DatasetRef, ErrorCode, JobError};
pub use oarlock_metrics::Measure;

use super::super::data::{DataSplit, labels, relative, split, text};
use crate::{EngineError, Result};

/// A split dataset with objects.
#[derive(Debug)]
pub struct BoxData {
    /// Pictures: those of training have objects, those of validation maybe.
    pub split: DataSplit<DetectSample>,
    /// What is in the validation pictures, in their order.
    pub truth: CocoTruth,
    /// How it is compared.
    pub measure: Measure,
    /// Whether masks are.
    pub masks: bool,
}

/// Reads a dataset: MSCOCO where it is one, else VOC lists. Pictures without objects are left out of training.
///
/// # Errors
/// `NotReady` when a part is missing or empty; `InvalidData` naming a faulty line or entry, and when no training
/// picture has an object.
pub fn read(dataset: &DatasetRef, masks: bool, notes: &mut Vec<String>) -> Result<BoxData> {
    let root = Path::new(&dataset.root);
    let [train, val, _] = PARTS;
    let has_parts = [PICTURES, train, val].iter().all(|n| root.join(n).exists());
    let data = if dataset.format == DatasetFormat::Coco || has_parts {
        if dataset.format != DatasetFormat::Coco {
            notes.push(format!(
                "the dataset has {train} and {val}: they are used, not the lists"
            ));
        }
        read_coco(root, masks)?
    } else {
        read_voc(root)?
    };
    with_objects(root, data, notes)
}

fn read_voc(root: &Path) -> Result<BoxData> {
    let labels = labels(root)?;
    let list = |name: &str| -> Result<Vec<DetectSample>> {
        text(root, name)?;
        Ok(voc::read_list(root, name, &labels).map_err(JobError::from)?)
    };
    let (train, val) = (list("train_list.txt")?, list("val_list.txt")?);
    Ok(BoxData {
        truth: CocoTruth::of_samples(&labels, &val),
        split: part(root, labels, train, val)?,
        measure: Measure::Voc,
        masks: false,
    })
}

fn read_coco(root: &Path, masks: bool) -> Result<BoxData> {
    let read = |name: &str| -> Result<coco::Coco> {
        let path = root.join(name);
        if !path.exists() {
            let what = format!("the dataset has no {name}");
            return Err(EngineError::new(ErrorCode::NotReady, what)
                .with("path", path.display().to_string())
                .hint("split the dataset first"));
        }
        Ok(coco::read_whole_part(root, name).map_err(JobError::from)?)
    };
    let (train, mut val) = (read(PARTS[0])?, read(PARTS[1])?);
    let labels = train.labels();
    if labels.is_empty() {
        let what = format!("{} names no category", PARTS[0]);
        return Err(EngineError::new(ErrorCode::InvalidData, what));
    }
    val.order_categories(&labels).map_err(|missing| {
        let what = format!(
            "{}: its category {missing} is not in {}",
            PARTS[1], PARTS[0]
        );
        EngineError::new(ErrorCode::InvalidData, what).hint("give both files the same categories")
    })?;
    let samples = val.samples(root, masks);
    Ok(BoxData {
        truth: CocoTruth::of(&val, masks),
        split: part(root, labels, train.samples(root, masks), samples)?,
        measure: Measure::Coco,
        masks,
    })
}

fn part(
    root: &Path,
    labels: Vec<String>,
    train: Vec<DetectSample>,
    val: Vec<DetectSample>,
) -> Result<DataSplit<DetectSample>> {
    split(labels, train, val, |hash, sample| {
        use sha2::Digest;
        hash.update(relative(root, &sample.path));
        for object in &sample.objects {
            let b = object.bbox;
            hash.update(object.class.to_le_bytes());
            [b.x1, b.y1, b.x2, b.y2]
                .iter()
                .for_each(|v| hash.update(v.to_le_bytes()));
        }
        hash.update(b"\n");
    })
}

/// Leaves pictures without objects out of training, and tells of classes that do not occur.
fn with_objects(root: &Path, mut data: BoxData, notes: &mut Vec<String>) -> Result<BoxData> {
    let all = &data.split.train;
    let used: Vec<DetectSample> = all
        .iter()
        .filter(|sample| !sample.objects.is_empty())
        .cloned()
        .collect();
    let empty = all.len() - used.len();
    if used.is_empty() {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            format!("none of the {empty} training images has an object to learn"),
        )
        .with("path", root.display().to_string())
        .hint("annotate objects, or split the dataset anew"));
    }
    if empty > 0 {
        notes.push(format!(
            "{empty} training images have no objects and are left out"
        ));
    }
    for (samples, what) in [(&used, "training"), (&data.split.val, "validation")] {
        let mut seen = vec![false; data.split.labels.len()];
        for object in samples.iter().flat_map(|s| &s.objects) {
            seen[object.class] = true;
        }
        let absent = data
            .split
            .labels
            .iter()
            .zip(&seen)
            .filter(|(_, seen)| !**seen);
        let absent: Vec<&str> = absent.map(|(name, _)| name.as_str()).collect();
        if !absent.is_empty() {
            let shown = absent[..absent.len().min(10)].join(", ");
            let more = absent.len().saturating_sub(10);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            notes.push(format!("no {what} image shows {shown}{more}"));
        }
    }
    data.split.train = used.into();
    Ok(data)
}
