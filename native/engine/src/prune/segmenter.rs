//! Segmentation: mean IoU on the validation set, at the label maps' own sizes, as validation computes it.

use std::sync::Arc;

use oarlock_datasets::{PixelPipeline, SegmentSample, SegmentTarget};
use oarlock_jobs::ErrorCode;
use oarlock_metrics::{PixelCounter, overlap};

use super::evaluation::{Evaluation, Images, Outputs};
use super::images::{ImageSet, Opening};
use crate::train::{pictures, pixels};
use crate::{EngineError, Result};

/// Name of the metric.
pub const METRIC: &str = "miou";

/// Pictures with label maps and `miou` over them.
pub struct SegmenterSet {
    set: ImageSet<PixelPipeline>,
    size: [usize; 2],
    classes: usize,
}

impl SegmenterSet {
    /// Reads the pictures in `samples`, of the kind of the first that can be read.
    ///
    /// # Errors
    /// `InvalidData` when more than a tenth or all of them cannot be read, or they have other channels than the
    /// network takes.
    pub fn open(
        samples: Arc<Vec<SegmentSample>>,
        classes: usize,
        opening: &Opening,
    ) -> Result<Self> {
        let how = opening.preprocessing;
        let pictures = pictures::look_at(&samples)?;
        pictures.fit(how)?;
        let pipeline = pixels::eval_pipeline(how, &pictures);
        let weight = |target: &SegmentTarget| target.map.as_ref().map_or(0, |m| m.data().len());
        Ok(Self {
            set: ImageSet::open(samples, pipeline, opening, weight)?,
            size: how.size().map(|s| s as usize),
            classes,
        })
    }
}

impl Evaluation for SegmenterSet {
    fn image_size(&self) -> [usize; 2] {
        self.size
    }

    fn set(&self) -> &dyn Images {
        &self.set
    }

    fn measure(&mut self, outputs: &mut Outputs) -> Result<f64> {
        let mut counter = PixelCounter::new(self.classes);
        let [height, width] = self.size;
        self.set.each(&mut |batch, targets, _| {
            let [logits] = &outputs(batch)?[..] else {
                return Err(EngineError::internal("a segmenter has one output here"));
            };
            match pixels::label_maps(logits) {
                Ok(maps) => pixels::count(&mut counter, &maps, (width, height), targets),
                Err(error) if error.code() == ErrorCode::NonFinite => {
                    miss(&mut counter, targets, self.classes);
                    Ok(())
                }
                Err(error) => Err(error),
            }
        })?;
        Ok(overlap(&counter.finish()).miou)
    }
}

/// Counts every pixel as another class.
fn miss(counter: &mut PixelCounter, targets: &[SegmentTarget], classes: usize) {
    for map in targets.iter().filter_map(|target| target.map.as_ref()) {
        let other = |id: &u8| {
            if usize::from(*id) + 1 < classes {
                id + 1
            } else {
                0
            }
        };
        let wrong: Vec<u8> = map.data().iter().map(other).collect();
        counter.add(map.data(), &wrong);
    }
}
