//! Detection and instance segmentation: overlap, average precision, confusion, reports.
//!
//! Average precision follows the VOC development kit (Everingham et al. 2010, "The Pascal Visual Object
//! Classes Challenge") and COCO (Lin et al. 2014, "Microsoft COCO"; its evaluation code is what the tests
//! compare with). Boxes are x, y, width, height in pixels, as in COCO files.

mod accumulate;
mod coco;
mod confusion;
mod headline;
mod overlap;
mod report;
mod voc;

use oarlock_imaging::Rle;

use crate::report::ReportError;

pub use accumulate::{CocoResult, CocoSummary, PrCurve};
pub use coco::{CocoParameters, Region, coco_evaluate};
pub use headline::{Measure, average_precision};
pub use overlap::{box_iou, box_iou_inclusive};
pub use report::{DetectionSettings, detection_report, instance_report};
pub use voc::{VocClass, VocResult, voc_evaluate};

/// An annotated object.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// Class id.
    pub class: usize,
    /// x, y, width, height.
    pub bbox: [f64; 4],
    /// Area as annotated, which decides on the range of sizes an object belongs to.
    pub area: f64,
    /// Stands for many objects: may be matched often and in part, and need not be found.
    pub crowd: bool,
    /// Does not count in VOC's average precision.
    pub difficult: bool,
    /// Its pixels, for instance segmentation.
    pub mask: Option<Rle>,
}

/// A predicted object.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Class id.
    pub class: usize,
    /// Confidence; greater is surer.
    pub score: f64,
    /// x, y, width, height.
    pub bbox: [f64; 4],
    /// Its pixels, for instance segmentation.
    pub mask: Option<Rle>,
}

/// What is in one image and what was found there. Equal scores count in the order given, images too.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImageResult {
    /// Width and height, where known.
    pub size: Option<(u32, u32)>,
    /// Annotated objects.
    pub truths: Vec<Truth>,
    /// Predicted objects.
    pub detections: Vec<Detection>,
}

/// Refuses classes that do not exist and scores that have no order.
fn check(images: &[ImageResult], classes: usize) -> Result<(), ReportError> {
    let shape = |text: String| Err(ReportError::Shape(text));
    for (i, image) in images.iter().enumerate() {
        let of_truths = image.truths.iter().map(|t| t.class);
        let of_detections = image.detections.iter().map(|d| d.class);
        if let Some(class) = of_truths.chain(of_detections).find(|&c| c >= classes) {
            return shape(format!(
                "image {i} has an object of class {class}, but there are {classes} classes"
            ));
        }
        if let Some(at) = image.detections.iter().position(|d| d.score.is_nan()) {
            return shape(format!(
                "the score of detection {at} of image {i} is no number"
            ));
        }
    }
    Ok(())
}

/// Indices of scores, highest first, equal ones in their order.
fn by_score(scores: impl Iterator<Item = f64>) -> Vec<u32> {
    // Flipped so that the order of the bits is the reverse of that of the numbers.
    let key = |score: f64| {
        let bits = (score + 0.0).to_bits(); // −0 becomes 0
        if bits >> 63 == 0 {
            !bits ^ (1 << 63)
        } else {
            bits
        }
    };
    let mut keys: Vec<(u64, u32)> = (0..).zip(scores).map(|(i, s)| (key(s), i)).collect();
    keys.sort_unstable();
    keys.into_iter().map(|(_, i)| i).collect()
}

/// `work` on pieces of 0..`count` in as many threads; results in the order of the pieces.
fn in_pieces<T: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(std::ops::Range<usize>) -> T + Sync,
) -> Vec<T> {
    let pieces = threads.clamp(1, count.max(1));
    let piece = |i: usize| count * i / pieces..count * (i + 1) / pieces;
    if pieces == 1 {
        return vec![work(0..count)];
    }
    std::thread::scope(|scope| {
        let work = &work;
        let started: Vec<_> = (0..pieces)
            .map(|i| scope.spawn(move || work(piece(i))))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, T>| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        started.into_iter().map(join).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_sorted_stably_from_the_highest() {
        let order = |scores: &[f64]| by_score(scores.iter().copied());
        assert_eq!(
            order(&[0.1, 0.9, -0.5, 0.9, 0.0, -0.0, 2.0]),
            [6, 1, 3, 0, 4, 5, 2]
        );
        assert_eq!(order(&[f64::NEG_INFINITY, -1.0, f64::INFINITY]), [2, 1, 0]);
        assert!(order(&[]).is_empty());
    }

    #[test]
    fn pieces_cover_everything_once() {
        for threads in [0, 1, 3, 50] {
            let parts = in_pieces(10, threads, |range| range.collect::<Vec<_>>());
            assert_eq!(parts.concat(), (0..10).collect::<Vec<_>>());
        }
        assert_eq!(in_pieces(0, 4, |range| range.len()), [0]);
    }
}
