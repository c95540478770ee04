//! The evaluation report of a classifier.

use serde_json::{Map, Value, json};

use crate::classification::Confusion;
use crate::ranking::{argmax, auc, top_k_accuracy};

/// Why no report can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportError {
    /// There are no images.
    Empty,
    /// Scores, labels and class names do not belong together.
    Shape(String),
}

impl std::fmt::Display for ReportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("there are no predictions to report on"),
            Self::Shape(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ReportError {}

/// What stands for a ratio that is undefined.
const UNDEFINED: f64 = -1.0;

/// The report on predictions: `label_list`, `epoch`, `topk`, `Confusion_Matrix`, `PRF1`,
/// `PRF1_average`, `Acc1`, `Acck`.
///
/// `scores` holds one row of `names.len()` values for each of `labels`; `topk` is capped at the
/// number of classes. A class without images has −1 in all four measures, as has `auc` when every
/// image is of one class; a class never predicted has precision 0.
///
/// # Errors
/// [`ReportError`] when there is nothing to report on or the sizes disagree.
pub fn classification_report(
    names: &[String],
    labels: &[u32],
    scores: &[f32],
    epoch: Option<u32>,
    topk: usize,
) -> Result<Value, ReportError> {
    let classes = names.len();
    if labels.is_empty() || classes == 0 {
        return Err(ReportError::Empty);
    }
    if scores.len() != labels.len() * classes {
        return Err(ReportError::Shape(format!(
            "{} scores do not belong to {} images of {classes} classes",
            scores.len(),
            labels.len()
        )));
    }
    if let Some(label) = labels.iter().find(|&&l| l as usize >= classes) {
        return Err(ReportError::Shape(format!(
            "label {label}, but there are {classes} classes"
        )));
    }
    let topk = topk.clamp(1, classes);
    let mut confusion = Confusion::new(classes);
    for (row, &label) in scores.chunks_exact(classes).zip(labels) {
        confusion.add(label as usize, argmax(row));
    }
    let mut per_class = Map::new();
    for (class, name) in names.iter().enumerate() {
        let entry = match confusion.class(class) {
            None => prf(UNDEFINED, UNDEFINED, UNDEFINED, Some(UNDEFINED)),
            Some(m) => {
                let column = scores.iter().skip(class).step_by(classes).copied();
                let area = auc(column, labels.iter().map(|&l| l as usize == class));
                prf(m.precision, m.recall, m.f1, Some(area.unwrap_or(UNDEFINED)))
            }
        };
        per_class.insert(name.clone(), entry);
    }
    let mean = confusion.weighted();
    Ok(json!({
        "label_list": names,
        "epoch": epoch,
        "topk": topk,
        "Confusion_Matrix": confusion.rows().collect::<Vec<_>>(),
        "PRF1": per_class,
        "PRF1_average": { "over_all": prf(mean.precision, mean.recall, mean.f1, None) },
        "Acc1": confusion.accuracy(),
        "Acck": top_k_accuracy(scores, classes, labels, topk),
    }))
}

fn prf(precision: f64, recall: f64, f1: f64, auc: Option<f64>) -> Value {
    let mut entry = json!({ "precision": precision, "recall": recall, "F1": f1 });
    if let (Some(auc), Some(entry)) = (auc, entry.as_object_mut()) {
        entry.insert("auc".into(), auc.into());
    }
    entry
}
