//! The figures by which trainings choose their best epoch.

use super::{CocoParameters, ImageResult, Region, coco_evaluate, voc_evaluate};
use crate::report::ReportError;

/// Overlap from which a box is right in `bbox_map`.
const VOC_OVERLAP: f64 = 0.5;

/// What decides on the best epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// `bbox_map`: mean of VOC's 11-point average precision, in percent.
    Voc,
    /// `bbox_mmap`, `segm_mmap`: COCO's average precision over overlaps, 0–1.
    Coco,
}

/// The metrics that PaddleX's API names, the primary one first; 0 where nothing was there to be found. `masks` adds
/// that of masks to COCO's.
///
/// # Errors
/// Objects of classes from `classes` on, scores that are no numbers.
pub fn average_precision(
    images: &[ImageResult],
    classes: usize,
    measure: Measure,
    masks: bool,
) -> Result<Vec<(&'static str, f64)>, ReportError> {
    if measure == Measure::Voc {
        let result = voc_evaluate(&with_corners(images), classes, VOC_OVERLAP)?;
        let percent = 100.0 * result.eleven_point().unwrap_or(0.0);
        return Ok(vec![("bbox_map", percent)]);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let average = |region: Region| -> Result<f64, ReportError> {
        let parameters = CocoParameters {
            areas: vec![[0.0, 1e10]],
            detections: vec![100],
            ..CocoParameters::default()
        };
        let result = coco_evaluate(images, classes, region, parameters, threads)?;
        Ok(result.average_precision(None, 0, 0).unwrap_or(0.0))
    };
    let mut metrics = vec![("bbox_mmap", average(Region::Box)?)];
    if masks {
        metrics.push(("segm_mmap", average(Region::Mask)?));
    }
    Ok(metrics)
}

/// In a training PaddleX takes the edges of a box as the pixels at its corners; [`voc_evaluate`] takes those of its width.
fn with_corners(images: &[ImageResult]) -> Vec<ImageResult> {
    let mut images = images.to_vec();
    for image in &mut images {
        let truths = image.truths.iter_mut().map(|t| &mut t.bbox);
        let boxes = truths.chain(image.detections.iter_mut().map(|d| &mut d.bbox));
        boxes.for_each(|[_, _, width, height]| {
            *width += 1.0;
            *height += 1.0;
        });
    }
    images
}
