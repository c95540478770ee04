//! One-stage detection: average precision of boxes on the validation set, as validation computes it.

use std::sync::Arc;

use oarlock_datasets::{DetectPipeline, DetectSample, DetectTarget};
use oarlock_graph::Head;
use oarlock_jobs::ErrorCode;

use super::evaluation::{Batch, Evaluation, Outputs};
use super::images::{ImageSet, Opening};
use crate::detect::{Frame, detect_in};
use crate::records::BoxDetails;
use crate::train::detector::data::{BoxData, Measure};
use crate::train::detector::params::eval_pipeline;
use crate::train::detector::score::{average_precision, frame, leave_out, record};
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
    samples: Arc<Vec<DetectSample>>,
    data: BoxData,
}

impl DetectorSet {
    /// Reads the validation pictures of `data` for a network with this head.
    ///
    /// # Errors
    /// `Unsupported` for two-stage detectors; `InvalidData` when more than a tenth or all of the pictures cannot be read.
    pub fn open(data: BoxData, head: Option<&Head>, opening: &Opening) -> Result<Self> {
        let head = one_stage(head)?.clone();
        let pipeline = eval_pipeline(opening.preprocessing)?;
        let samples = data.split.val.clone();
        Ok(Self {
            set: ImageSet::open(samples.clone(), pipeline, opening, |_| 0)?,
            head,
            size: opening.preprocessing.size().map(|s| s as usize),
            samples,
            data,
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

    fn images(&self) -> usize {
        self.set.images
    }

    fn skipped(&self) -> &[String] {
        &self.set.skipped
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&Batch) -> Result<()>) -> Result<()> {
        self.set.each(&mut |batch, _, _| visit(batch))
    }

    fn measure(&mut self, outputs: &mut Outputs) -> Result<f64> {
        let mut details = BoxDetails::new(self.data.truth.clone(), false);
        let mut read = vec![false; self.samples.len()];
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
                    record(&mut details, place, found, target)?;
                    read[place] = true;
                }
                Ok(())
            })?;
        leave_out(&mut details.gt, &read);
        let classes = self.data.split.labels.len();
        let metrics = average_precision(&details.images()?, classes, self.data.measure, false)?;
        Ok(metrics.values().next().copied().flatten().unwrap_or(0.0))
    }
}
