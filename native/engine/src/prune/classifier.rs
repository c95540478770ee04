//! Classification: accuracy on the validation set.

use std::sync::Arc;

use oarlock_datasets::{
    self as datasets, ClassifyPipeline, ImageCache, Loader, LoaderConfig, Sample,
};
use oarlock_jobs::{ErrorCode, JobError};
use tch::{Kind, Tensor};

use super::evaluation::{Batch, Evaluation, Outputs};
use crate::exec::{download, normalized_input};
use crate::records::{Preprocessing, Resize};
use crate::runtime::{Placement, memory};
use crate::{EngineError, Result};

/// Name of the metric.
pub const METRIC: &str = "acc1";
/// Share of unreadable images that is left out.
const MAX_CORRUPT: f64 = 0.1;

/// How images come to the network, pass after pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Decoded once, kept as bytes, where that takes at most a quarter of the free memory; else anew each time.
    Once,
    /// Through the loader in each pass, with its cache of decoded files: as training evaluates.
    EachTime,
}

type Visit<'a> = dyn FnMut(datasets::Batch<i64>) -> Result<Option<datasets::Batch<i64>>> + 'a;

/// Labelled images and `acc1` over them.
pub struct ClassifierSet {
    config: LoaderConfig<ClassifyPipeline>,
    stored: Option<Vec<datasets::Batch<i64>>>,
    images: usize,
    side: usize,
    /// Mean and standard deviation.
    normal: ([f32; 3], [f32; 3]),
    classes: usize,
    placement: Placement,
    /// Files that could not be read, with the reason.
    pub skipped: Vec<String>,
}

impl ClassifierSet {
    /// Reads the images in `samples`, `batch_size` at a time, for a model with this preprocessing.
    ///
    /// # Errors
    /// `InvalidData` when more than a tenth or all of them cannot be read.
    pub fn open(
        samples: Arc<Vec<Sample>>,
        classes: usize,
        preprocessing: &Preprocessing,
        batch_size: usize,
        placement: Placement,
        reading: Reading,
        tick: &dyn Fn() -> Result<()>,
    ) -> Result<Self> {
        let (Resize::ShortCrop { short, crop }, Some(normal)) =
            (preprocessing.resize, preprocessing.rgb())
        else {
            return Err(EngineError::new(
                ErrorCode::Unsupported,
                "a classifier takes squares of RGB images",
            ));
        };
        let side = crop as usize;
        let free = memory::available().unwrap_or(0) / 4;
        let bytes = samples.len() as u64 * (side * side * 3) as u64;
        let mut set = Self {
            images: samples.len(),
            config: LoaderConfig {
                samples,
                batch_size: batch_size.max(1),
                pipeline: ClassifyPipeline::Eval {
                    crop: (side, side),
                    resize_short: short as usize,
                },
                shuffle_seed: None,
                epoch: 0,
                start_batch: 0,
                drop_last: false,
                threads: 0,
                prefetch: 2,
                cache: None,
                memory: None,
                max_corrupt_fraction: MAX_CORRUPT,
            },
            stored: None,
            side,
            normal,
            classes,
            placement,
            skipped: Vec::new(),
        };
        let keep = reading == Reading::Once && bytes <= free;
        if !keep {
            set.config.cache = Some(Arc::new(ImageCache::new(free as usize)));
        }
        let (mut stored, mut images, mut skipped) = (Vec::new(), 0, Vec::new());
        // The first pass also tells which files can be read.
        set.load(&mut |batch| {
            tick()?;
            images += batch.n;
            let reasons = batch.skipped.iter();
            skipped.extend(reasons.map(|(path, why)| format!("'{}': {why}", path.display())));
            if keep {
                stored.push(batch);
                return Ok(None);
            }
            Ok(Some(batch))
        })?;
        if images == 0 {
            return Err(EngineError::new(
                ErrorCode::InvalidData,
                "none of the validation images can be read",
            ));
        }
        (set.images, set.skipped) = (images, skipped);
        set.stored = keep.then_some(stored);
        Ok(set)
    }

    /// One pass of the loader; batches that come back from `visit` lend their memory to later ones.
    fn load(&self, visit: &mut Visit) -> Result<()> {
        let mut loader = Loader::new(self.config.clone()).map_err(JobError::from)?;
        while let Some(batch) = loader.next() {
            let batch = batch.map_err(JobError::from)?;
            if batch.n == 0 {
                continue;
            }
            if let Some(batch) = visit(batch)? {
                loader.recycle(batch.images);
            }
        }
        Ok(())
    }

    fn each(&self, visit: &mut dyn FnMut(&Batch, &[i64]) -> Result<()>) -> Result<()> {
        let mut number = 0;
        let mut one = |batch: &datasets::Batch<i64>| {
            let input = || {
                normalized_input(
                    &batch.images,
                    [batch.n, batch.h, batch.w],
                    self.normal.0,
                    self.normal.1,
                    self.placement,
                )
            };
            let view = Batch {
                number,
                images: batch.n,
                input: &input,
            };
            number += 1;
            visit(&view, &batch.targets)
        };
        match &self.stored {
            Some(stored) => stored.iter().try_for_each(one),
            None => self.load(&mut |batch| one(&batch).map(|()| Some(batch))),
        }
    }
}

impl Evaluation for ClassifierSet {
    fn image_size(&self) -> [usize; 2] {
        [self.side; 2]
    }

    fn images(&self) -> usize {
        self.images
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&Batch) -> Result<()>) -> Result<()> {
        self.each(&mut |batch, _| visit(batch))
    }

    fn measure(&mut self, outputs: &mut Outputs) -> Result<f64> {
        let (mut scores, mut labels) = (Vec::new(), Vec::new());
        self.each(&mut |batch, truth| {
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
