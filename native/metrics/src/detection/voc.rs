//! Average precision of the VOC challenge.

use super::accumulate::PrCurve;
use super::{ImageResult, box_iou_inclusive, by_score, check};
use crate::report::ReportError;

/// One class at one overlap.
#[derive(Debug, Clone, PartialEq)]
pub struct VocClass {
    /// Objects to be found: without crowds and difficult ones.
    pub truths: u64,
    /// Detections that count: those that matched a difficult object do not.
    pub detections: u64,
    /// Mean of the best precision at recall 0, 0.1 … 1 and beyond (VOC 2007); 0 without truths.
    pub eleven_point: f64,
    /// Area below the curve of the best precision at each recall and beyond (VOC 2010); 0 without truths.
    pub area: f64,
    /// Precision over recall.
    pub curve: PrCurve,
}

/// All classes at one overlap.
#[derive(Debug, Clone, PartialEq)]
pub struct VocResult {
    /// By class id.
    pub classes: Vec<VocClass>,
}

impl VocResult {
    fn mean(&self, value: impl Fn(&VocClass) -> f64) -> Option<f64> {
        let valid: Vec<f64> = self
            .classes
            .iter()
            .filter(|c| c.truths > 0)
            .map(value)
            .collect();
        (!valid.is_empty()).then(|| valid.iter().sum::<f64>() / valid.len() as f64)
    }

    /// Mean of the 11-point average precision over classes with truths.
    pub fn eleven_point(&self) -> Option<f64> {
        self.mean(|c| c.eleven_point)
    }

    /// Mean of the area average precision over classes with truths.
    pub fn area(&self) -> Option<f64> {
        self.mean(|c| c.area)
    }
}

/// The truths that reports count, with the pixels at their corners: inside the picture, with an area, no
/// crowds. Corners have the accuracy of `f32`, as PaddleX keeps them.
pub(super) fn truths_with_corners(image: &ImageResult) -> Vec<(&super::Truth, [f64; 4])> {
    let limits = image.size.map_or([f64::INFINITY; 2], |(w, h)| {
        [f64::from(w) - 1.0, f64::from(h) - 1.0]
    });
    let corners = |t: &super::Truth| {
        let [x1, y1] = [t.bbox[0].max(0.0), t.bbox[1].max(0.0)];
        let end = |from: f64, length: f64, limit: f64| limit.min(from + (length - 1.0).max(0.0));
        let x2 = end(x1, t.bbox[2], limits[0]);
        let y2 = end(y1, t.bbox[3], limits[1]);
        let kept = !t.crowd && t.area > 0.0 && x2 >= x1 && y2 >= y1;
        kept.then(|| [x1, y1, x2, y2].map(|v| f64::from(v as f32)))
    };
    image
        .truths
        .iter()
        .filter_map(|t| Some((t, corners(t)?)))
        .collect()
}

/// The pixels at the corners of a detection.
pub(super) fn corners(bbox: &[f64; 4]) -> [f64; 4] {
    let [x, y, w, h] = *bbox;
    [x, y, x + w - 1.0, y + h - 1.0]
}

/// Average precision at one overlap: the detections of an image, highest score first, each go to the truth of
/// their class that they overlap most with, when by more than `overlap`; the first one there is correct.
///
/// This is PaddleX's count: pixels at the corners belong to a box, and a detection is `bbox` less its last
/// row and column.
///
/// # Errors
/// [`ReportError::Shape`] for classes from `classes` on and scores that are no numbers.
pub fn voc_evaluate(
    images: &[ImageResult],
    classes: usize,
    overlap: f64,
) -> Result<VocResult, ReportError> {
    check(images, classes)?;
    let mut truths = vec![0; classes];
    let mut found: Vec<Vec<(f64, bool)>> = vec![Vec::new(); classes];
    for image in images {
        let with_corners = truths_with_corners(image);
        for (truth, _) in with_corners.iter().filter(|(t, _)| !t.difficult) {
            truths[truth.class] += 1;
        }
        let mut visited = vec![false; with_corners.len()];
        for i in by_score(image.detections.iter().map(|d| d.score)) {
            let detection = &image.detections[i as usize];
            let own = corners(&detection.bbox);
            let mut best: Option<(usize, f64)> = None;
            for (i, (truth, corners)) in with_corners.iter().enumerate() {
                if truth.class == detection.class {
                    let shared = box_iou_inclusive(&own, corners);
                    if best.is_none_or(|(_, most)| shared > most) {
                        best = Some((i, shared));
                    }
                }
            }
            let correct = match best {
                Some((i, shared)) if shared > overlap => {
                    if with_corners[i].0.difficult {
                        continue;
                    }
                    !std::mem::replace(&mut visited[i], true)
                }
                _ => false,
            };
            found[detection.class].push((detection.score, correct));
        }
    }
    let classes = truths.into_iter().zip(found);
    Ok(VocResult {
        classes: classes
            .map(|(truths, found)| class(truths, &found))
            .collect(),
    })
}

fn class(truths: u64, found: &[(f64, bool)]) -> VocClass {
    let order = by_score(found.iter().map(|f| f.0));
    let sorted: Vec<(f64, bool)> = order.into_iter().map(|i| found[i as usize]).collect();
    let hits: Vec<(f64, u64)> = (1..)
        .zip(&sorted)
        .filter(|(_, f)| f.1 && truths > 0)
        .map(|(seen, f)| (f.0, seen))
        .collect();
    // Best precision from each hit on.
    let mut precision: Vec<f64> = (1..)
        .zip(&hits)
        .map(|(correct, hit)| f64::from(correct) / hit.1 as f64)
        .collect();
    for i in (1..precision.len()).rev() {
        precision[i - 1] = precision[i - 1].max(precision[i]);
    }
    let recall = |hit: usize| (hit + 1) as f64 / truths as f64;
    let at = |level: f64| {
        let first = (0..hits.len()).find(|&i| recall(i) >= level);
        first.map_or(0.0, |i| precision[i])
    };
    let area = precision.iter().sum::<f64>() / truths.max(1) as f64;
    VocClass {
        truths,
        detections: found.len() as u64,
        eleven_point: (0..11).map(|j| at(f64::from(j) / 10.0)).sum::<f64>() / 11.0,
        area,
        curve: PrCurve::new(&hits, truths, sorted.first().map(|f| f.0)),
    }
}
