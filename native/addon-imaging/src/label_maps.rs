//! Validation pictures with label maps, for measuring exported segmenters.

use std::path::Path;
use std::sync::Arc;

use napi::Result;
use napi::bindgen_prelude::{Float32Array, Uint8Array};
use napi_derive::napi;
use oarlock_datasets::{
    Depth, Loader, LoaderConfig, PixelPipeline, SegmentTarget, read_segment_list,
};
use oarlock_jobs::{ErrorCode, JobError, MeasureSpec, MeasureTask, SampleKind};
use oarlock_metrics::{PixelCounter, nearest, overlap};

use crate::{failure, thrown};

/// Reads validation pictures in the order of their list, and compares the answers of several models with their label
/// maps: at the maps' own sizes, by the nearest neighbour, as the engine's validation does.
#[napi]
pub struct LabelMapBatches {
    loader: Loader<PixelPipeline>,
    spec: MeasureSpec,
    range: Vec<(f32, f32)>,
    counters: Vec<PixelCounter>,
    targets: Vec<SegmentTarget>,
    images: u32,
}

/// Pictures as a network's input.
#[napi(object)]
pub struct InputBatch {
    /// count·channels·height·width values, normalised.
    pub input: Float32Array,
    /// Pictures.
    pub count: u32,
}

#[napi]
impl LabelMapBatches {
    /// Reads the validation list of the dataset that `spec` (a `MeasureSpec` as JSON) names, for `models` models.
    ///
    /// # Errors
    /// `not_ready` when the dataset has no validation images; `invalid_argument` for a spec of something else.
    #[napi(constructor, catch_unwind)]
    pub fn new(spec: String, batch_size: u32, models: u32) -> Result<Self> {
        let refuse = |what: String| thrown(&JobError::new(ErrorCode::InvalidArgument, what));
        let spec: MeasureSpec = serde_json::from_str(&spec)
            .map_err(|e| refuse(format!("the measurement cannot be read: {e}")))?;
        let (MeasureTask::Pixels { raster, range }, Some(root)) = (&spec.task, &spec.dataset)
        else {
            return Err(refuse("no label maps are to be measured".into()));
        };
        let depth = raster.map(|kind| match kind {
            SampleKind::Uint8 => Depth::U8,
            SampleKind::Uint16 => Depth::U16,
            SampleKind::Float32 => Depth::F32,
        });
        let [height, width] = spec.size.map(|side| side as usize);
        let raster = depth.map(|depth| (spec.mean.len(), depth));
        let pipeline = PixelPipeline::eval((height, width), raster, range);
        let samples = read_segment_list(Path::new(root), "val_list.txt")
            .map_err(|e| failure(JobError::from(e)))?;
        if samples.is_empty() {
            let what = "the dataset has no validation images";
            return Err(thrown(&JobError::new(ErrorCode::NotReady, what)));
        }
        let loader = Loader::new(LoaderConfig {
            threads: spec.threads as usize,
            ..LoaderConfig::in_order(Arc::new(samples), batch_size as usize, pipeline)
        });
        let counter = || PixelCounter::new(spec.classes as usize);
        Ok(Self {
            loader: loader.map_err(|e| failure(JobError::from(e)))?,
            range: range.clone(),
            counters: (0..models).map(|_| counter()).collect(),
            targets: Vec::new(),
            images: 0,
            spec,
        })
    }

    /// Number of batches.
    #[napi(getter, catch_unwind)]
    pub fn batches(&self) -> u32 {
        self.loader.batches() as u32
    }

    /// Pictures read so far.
    #[napi(getter, catch_unwind)]
    pub fn images(&self) -> u32 {
        self.images
    }

    /// The next batch, waiting for it; null after the last. Pictures that cannot be read are left out.
    ///
    /// # Errors
    /// `invalid_data` when no picture can be read.
    #[napi(catch_unwind, js_name = "next")]
    pub fn next_batch(&mut self) -> Result<Option<InputBatch>> {
        let Some(batch) = self.loader.next() else {
            return Ok(None);
        };
        let batch = batch.map_err(|e| failure(JobError::from(e)))?;
        let image = batch.h * batch.w * batch.channels;
        let bytes = &batch.images[..batch.n * image * batch.depth.bytes()];
        let mut input = vec![0f32; batch.n * image];
        let planes = input.chunks_exact_mut(batch.h * batch.w).enumerate();
        for (at, plane) in planes {
            let (first, channel) = (at / batch.channels * image, at % batch.channels);
            let places = (first + channel..).step_by(batch.channels);
            self.normalise(
                plane,
                channel,
                places.map(|at| value(bytes, batch.depth, at)),
            );
        }
        self.targets = batch.targets;
        self.images += batch.n as u32;
        Ok(Some(InputBatch {
            input: input.into(),
            count: batch.n as u32,
        }))
    }

    fn normalise(&self, plane: &mut [f32], channel: usize, values: impl Iterator<Item = f32>) {
        let (low, high) = self.range.get(channel).copied().unwrap_or((0.0, 255.0));
        let (mean, std) = (self.spec.mean[channel], self.spec.std[channel]);
        for (out, value) in plane.iter_mut().zip(values) {
            // `max` and `min` take the number of a number and NaN.
            *out = ((value.max(low).min(high) - low) / (high - low) - mean) / std;
        }
    }

    /// Compares a model's class ids for the last batch, the bytes of count·height·width int64 values.
    ///
    /// # Errors
    /// `invalid_argument` for a model that is not there or maps of another size.
    #[napi(catch_unwind)]
    pub fn count(&mut self, model: u32, ids: Uint8Array) -> Result<()> {
        let [height, width] = self.spec.size.map(|side| side as usize);
        let values = ids.as_chunks::<8>().0;
        let counter = self.counters.get_mut(model as usize);
        let (Some(counter), true) = (counter, values.len() == self.targets.len() * height * width)
        else {
            let what = "these are not the label maps of the last batch";
            return Err(thrown(&JobError::new(ErrorCode::InvalidArgument, what)));
        };
        for (ids, target) in values.chunks_exact(height * width).zip(&self.targets) {
            // Ids beyond a byte are no class: 255 is never counted.
            let ids: Vec<u8> = ids
                .iter()
                .map(|id| u8::try_from(i64::from_ne_bytes(*id)).unwrap_or(u8::MAX))
                .collect();
            if let Some(truth) = &target.map {
                let size = (truth.width(), truth.height());
                counter.add(truth.data(), &nearest(&ids, (width, height), size));
            }
        }
        Ok(())
    }

    /// Mean IoU of a model over all that was compared; null for a model that is not there.
    #[napi(catch_unwind)]
    pub fn miou(&mut self, model: u32) -> Option<f64> {
        let counter = self.counters.get_mut(model as usize)?;
        let counter = std::mem::replace(counter, PixelCounter::new(self.spec.classes as usize));
        Some(overlap(&counter.finish()).miou)
    }
}

/// The sample at a place.
fn value(bytes: &[u8], depth: Depth, at: usize) -> f32 {
    match depth {
        Depth::U8 => f32::from(bytes[at]),
        Depth::U16 => f32::from(u16::from_ne_bytes([bytes[2 * at], bytes[2 * at + 1]])),
        Depth::F32 => {
            let four = &bytes[4 * at..4 * at + 4];
            f32::from_ne_bytes([four[0], four[1], four[2], four[3]])
        }
    }
}
