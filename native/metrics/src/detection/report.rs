//! The evaluation reports of detectors and instance segmenters, as PaddleX's clients read them.

use oarlock_imaging::Rle;
use serde_json::{Map, Value, json};

use super::accumulate::{PrCurve, level};
use super::coco::{CocoParameters, Region, coco_evaluate};
use super::confusion::DetectionConfusion;
use super::voc::{corners, truths_with_corners, voc_evaluate};
use super::{ImageResult, box_iou_inclusive, by_score, check};
use crate::report::ReportError;

/// What stands for a ratio that is undefined.
const UNDEFINED: f64 = -1.0;

/// What a report is made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectionSettings {
    /// The epoch evaluated; none for the best one.
    pub epoch: Option<u32>,
    /// Detections below do not count in the confusion matrix, precision and recall.
    pub score_thresh: f64,
    /// Intersection over union that makes a match.
    pub overlap_thresh: f64,
    /// Threads to use; the report does not depend on it.
    pub threads: usize,
}

/// The report on a detector: `Confusion_Matrix` (a row and a column more than classes), `mAP` and `PRAP` by
/// the 11 points of VOC, `pr_curves`.
///
/// `AP` is null for a class without truths or without detections; the latter count as 0 in `mAP`.
///
/// # Errors
/// [`ReportError`] without images or classes, or when the results do not belong to them.
pub fn detection_report(
    names: &[String],
    images: &[ImageResult],
    settings: &DetectionSettings,
) -> Result<Value, ReportError> {
    let confusion = box_confusion(names, images, settings)?;
    let voc = voc_evaluate(images, names.len(), settings.overlap_thresh)?;
    let value = |class: usize| {
        let class = &voc.classes[class];
        (class.truths > 0 && class.detections > 0).then_some(class.eleven_point)
    };
    let curve = |class: usize| {
        let class = &voc.classes[class];
        (class.truths > 0).then_some(&class.curve)
    };
    let mut report = head(names, settings);
    report.insert("Confusion_Matrix".into(), json!(confusion.rows()));
    report.insert("mAP".into(), voc.eleven_point().unwrap_or(0.0).into());
    report.insert("PRAP".into(), ratios(names, &confusion, value));
    report.insert("pr_curves".into(), pr_curves(names, curve));
    Ok(report.into())
}

/// The report on an instance segmenter, all measures twice: `BBox_…` and `Mask_…`, with `Confusion_Matrix`,
/// `mAP`, `PRAP`, `pr_curves`. Average precision is COCO's at one overlap.
///
/// `mAP` is null without any detection, −1 when no class has a truth; `AP` is null for a class without
/// truths.
///
/// # Errors
/// [`ReportError`] without images or classes, or when the results do not belong to them.
pub fn instance_report(
    names: &[String],
    images: &[ImageResult],
    settings: &DetectionSettings,
) -> Result<Value, ReportError> {
    let boxes = box_confusion(names, images, settings)?;
    let masks = mask_confusion(names, images, settings);
    let mut report = head(names, settings);
    let sides = [("BBox", Region::Box, boxes), ("Mask", Region::Mask, masks)];
    for (prefix, region, confusion) in sides {
        let mut put = |key: &str, value: Value| report.insert(format!("{prefix}_{key}"), value);
        put("Confusion_Matrix", json!(confusion.rows()));
        let mut detections = images.iter().flat_map(|i| &i.detections);
        let any = detections.any(|d| region == Region::Box || d.mask.is_some());
        let parameters = CocoParameters::single(settings.overlap_thresh);
        let coco = coco_evaluate(images, names.len(), region, parameters, settings.threads)?;
        let mean = coco.average_precision(None, 0, 0).unwrap_or(UNDEFINED);
        put("mAP", any.then_some(mean).into());
        let value = |class: usize| {
            let value = coco.class_average_precision(class, Some(0));
            value.filter(|_| any)
        };
        put("PRAP", ratios(names, &confusion, value));
        put("pr_curves", pr_curves(names, |class| coco.curve(class, 0)));
    }
    Ok(report.into())
}

fn head(names: &[String], settings: &DetectionSettings) -> Map<String, Value> {
    let mut labels: Vec<&str> = names.iter().map(String::as_str).collect();
    labels.push("back_ground");
    let mut report = Map::new();
    report.insert("label_list".into(), json!(labels));
    report.insert("epoch".into(), json!(settings.epoch));
    report.insert("score_thresh".into(), settings.score_thresh.into());
    report.insert("overlap_thresh".into(), settings.overlap_thresh.into());
    report
}

/// `precision`, `recall`, `AP` of every class.
fn ratios(
    names: &[String],
    confusion: &DetectionConfusion,
    average_precision: impl Fn(usize) -> Option<f64>,
) -> Value {
    let class = |(i, name): (usize, &String)| {
        let ratios = confusion.ratios(i);
        let entry = json!({
            "precision": ratios.precision.unwrap_or(UNDEFINED),
            "recall": ratios.recall.unwrap_or(UNDEFINED),
            "AP": average_precision(i),
        });
        (name.clone(), entry)
    };
    names
        .iter()
        .enumerate()
        .map(class)
        .collect::<Map<_, _>>()
        .into()
}

/// `recall`, `precision` and `score` of every class with truths.
fn pr_curves<'a>(names: &[String], curve: impl Fn(usize) -> Option<&'a PrCurve>) -> Value {
    let entry = |curve: &PrCurve| {
        let recall: Vec<f64> = (0..curve.precision.len()).map(level).collect();
        json!({ "recall": recall, "precision": curve.precision, "score": curve.score })
    };
    let class = |(i, name): (usize, &String)| (name.clone(), curve(i).map_or(Value::Null, entry));
    names
        .iter()
        .enumerate()
        .map(class)
        .collect::<Map<_, _>>()
        .into()
}

/// Detections that reach the score, from the highest on.
fn sure(image: &ImageResult, least: f64) -> Vec<&super::Detection> {
    by_score(image.detections.iter().map(|d| d.score))
        .into_iter()
        .map(|i| &image.detections[i as usize])
        .filter(|d| d.score >= least)
        .collect()
}

fn box_confusion(
    names: &[String],
    images: &[ImageResult],
    settings: &DetectionSettings,
) -> Result<DetectionConfusion, ReportError> {
    if names.is_empty() || images.is_empty() {
        return Err(ReportError::Empty);
    }
    check(images, names.len())?;
    let mut confusion = DetectionConfusion::new(names.len(), settings.overlap_thresh);
    for image in images {
        let truths = truths_with_corners(image);
        let kinds: Vec<_> = truths.iter().map(|(t, _)| (t.class, t.difficult)).collect();
        let sure = sure(image, settings.score_thresh);
        let classes: Vec<usize> = sure.iter().map(|d| d.class).collect();
        let boxes: Vec<[f64; 4]> = sure.iter().map(|d| corners(&d.bbox)).collect();
        confusion.add(&kinds, &classes, |d, t| {
            box_iou_inclusive(&boxes[d], &truths[t].1)
        });
    }
    Ok(confusion)
}

fn mask_confusion(
    names: &[String],
    images: &[ImageResult],
    settings: &DetectionSettings,
) -> DetectionConfusion {
    let mut confusion = DetectionConfusion::new(names.len(), settings.overlap_thresh);
    for image in images {
        let truths = truths_with_corners(image);
        let kinds: Vec<_> = truths.iter().map(|(t, _)| (t.class, false)).collect();
        let sure = sure(image, settings.score_thresh);
        let masks: Vec<(usize, &Rle)> = sure
            .iter()
            .filter_map(|d| Some((d.class, d.mask.as_ref()?)))
            .collect();
        let classes: Vec<usize> = masks.iter().map(|m| m.0).collect();
        confusion.add(&kinds, &classes, |d, t| {
            let truth = truths[t].0.mask.as_ref();
            truth.map_or(0.0, |truth| masks[d].1.iou(truth, false))
        });
    }
    confusion
}
