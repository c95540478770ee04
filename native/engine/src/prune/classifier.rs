//! Classification: accuracy on the validation set.

use std::sync::Arc;

use oarlock_datasets::{ClassifyPipeline, Sample};
use oarlock_jobs::ErrorCode;
use tch::{Kind, Tensor};

use super::evaluation::{Evaluation, Images, Outputs};
use super::images::{ImageSet, Opening};
use crate::exec::download;
use crate::records::Resize;
use crate::{EngineError, Result};

/// Name of the metric.
pub const METRIC: &str = "acc1";

/// Labelled images and `acc1` over them.
pub struct ClassifierSet {
    set: ImageSet<ClassifyPipeline>,
    side: usize,
    classes: usize,
}

impl ClassifierSet {
    /// Reads the images in `samples`.
    ///
    /// # Errors
    /// `InvalidData` when more than a tenth or all of them cannot be read; `Unsupported` for transforms that are none of
    /// a classifier.
    pub fn open(samples: Arc<Vec<Sample>>, classes: usize, opening: &Opening) -> Result<Self> {
        let how = opening.preprocessing;
        let (Resize::ShortCrop { short, crop }, Some(_)) = (how.resize, how.rgb()) else {
            return Err(EngineError::new(
                ErrorCode::Unsupported,
                "a classifier takes squares of RGB images",
            ));
        };
        let side = crop as usize;
        let pipeline = ClassifyPipeline::Eval {
            crop: (side, side),
            resize_short: short as usize,
        };
        Ok(Self {
            set: ImageSet::open(samples, pipeline, opening, |_| 0)?,
            side,
            classes,
        })
    }
}

impl Evaluation for ClassifierSet {
    fn image_size(&self) -> [usize; 2] {
        [self.side; 2]
    }

    fn set(&self) -> &dyn Images {
        &self.set
    }

    fn measure(&mut self, outputs: &mut Outputs) -> Result<f64> {
        let (mut scores, mut labels) = (Vec::new(), Vec::new());
        self.set.each(&mut |batch, truth, _| {
            let [logits] = &outputs(batch)?[..] else {
                return Err(EngineError::internal("a classifier has one output"));
            };
            scores.extend(download(&probabilities(logits)?)?.data);
            labels.extend(truth.iter().map(|&l| u32::try_from(l).unwrap_or(u32::MAX)));
            Ok(())
        })?;
        Ok(oarlock_metrics::top_k_accuracy(
            &scores,
            self.classes,
            &labels,
            1,
        ))
    }
}

fn probabilities(logits: &Tensor) -> Result<Tensor> {
    Ok(logits.f_softmax(-1, Kind::Float)?)
}
