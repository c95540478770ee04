//! One-stage detection: average precision of boxes on the validation set, as validation computes it.

use oarlock_datasets::{DetectPipeline, DetectTarget};
use oarlock_graph::Head;
use oarlock_jobs::ErrorCode;

use super::evaluation::{Evaluation, Images, Outputs};
use super::images::{ImageSet, Opening};
use crate::detect::{Frame, detect_in};
use crate::records::BoxDetails;
use crate::train::detector::data::{BoxData, Measure};
use crate::train::detector::params::eval_pipeline;
use crate::train::detector::score::{average_precision, frame, record};
use crate::{EngineError, Result};

/// Name of the metric.
pub fn metric(measure: Measure) -> &'static str {
    match measure {
        Measure::Voc => "bbox_map",
        Measure::Coco => "bbox_mmap",
    }
}

/// Pictures with boxes and their average precision.
pub struct DetectorSet {
    set: ImageSet<DetectPipeline>,
    head: Head,
    size: [usize; 2],
    /// What is in the pictures, and what was found in the last pass.
    details: BoxDetails,
    measure: Measure,
}

impl DetectorSet {
    /// Reads the validation pictures of `data` for a network with this head.
    ///
    /// # Errors
    /// `Unsupported` for two-stage detectors; `InvalidData` when more than a tenth or all of the pictures cannot be read.
    pub fn open(data: BoxData, head: Option<&Head>, opening: &Opening) -> Result<Self> {
        let head = one_stage(head)?.clone();
        let pipeline = eval_pipeline(opening.preprocessing)?;
        Ok(Self {
            set: ImageSet::open(data.split.val, pipeline, opening, |_| 0)?,
            head,
            size: opening.preprocessing.size().map(|s| s as usize),
            details: BoxDetails::new(data.truth, false),
            measure: data.measure,
        })
    }
}

/// The head of a network that can be analysed.
///
/// # Errors
/// `Unsupported` for others.
pub fn one_stage(head: Option<&Head>) -> Result<&Head> {
    match head {
        Some(head @ (Head::Yolo(_) | Head::Pico(_))) => Ok(head),
        _ => Err(EngineError::new(
            ErrorCode::Unsupported,
            "two-stage detectors cannot be pruned: their stages share feature maps whose channels must stay",
        )
        .hint("YOLOv3, PPYOLO and PicoDet can be pruned")),
    }
}

impl Evaluation for DetectorSet {
    fn image_size(&self) -> [usize; 2] {
        self.size
    }

    fn set(&self) -> &dyn Images {
        &self.set
    }

    fn measure(&mut self, outputs: &mut Outputs) -> Result<f64> {
        let details = &mut self.details;
        details.bbox.clear();
        let mut read = vec![false; details.gt.images.len()];
        let input = (self.size[0], self.size[1]);
        self.set
            .each(&mut |batch, targets: &[DetectTarget], places| {
                let frames: Vec<Frame> = targets.iter().map(frame).collect();
                let found = match detect_in(&self.head, &outputs(batch)?, input, &frames) {
                    // What is no number finds nothing.
                    Err(error) if error.code() == ErrorCode::NonFinite => {
                        vec![Vec::new(); targets.len()]
                    }
                    other => other?,
                };
                for ((found, target), &place) in found.iter().zip(targets).zip(places) {
                    record(details, place, found, target)?;
                    read[place] = true;
                }
                Ok(())
            })?;
        let mut images = details.images()?;
        let mut read = read.into_iter();
        images.retain(|_| read.next() == Some(true));
        let classes = details.gt.categories.len();
        let metrics = average_precision(&images, classes, self.measure, false)?;
        Ok(metrics.values().next().copied().flatten().unwrap_or(0.0))
    }
}
