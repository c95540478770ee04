//! Training of segmenters: one label per pixel.

use std::collections::HashMap;
use std::sync::Arc;

use oarlock_datasets::{
    Depth, Loader, LoaderConfig, LoaderStats, Pipeline, RasterPipeline, RasterTask, RasterTrain,
    SegmentPipeline, SegmentSample, SegmentTarget, SegmentTrain, ValueRange,
};
use oarlock_graph::Graph;
use oarlock_imaging::transform::{Distort, Jitter, ScaleAspect};
use oarlock_jobs::{DatasetRef, ErrorCode, JobError, SegmentationParams};
use oarlock_zoo::{Origin, PaddleWeight};
use tch::{Kind, Tensor};

use super::data::{self, DataSplit};
use super::family::{EpochPart, Family, Fed, Feed, Supply, Validation, Watch};
use super::learner::Learned;
use super::losses::PixelLoss;
use super::pictures::{self, Pictures};
use super::pixels;
use super::plan::wrong;
use crate::exec::{Network, network_input};
use crate::records::{Preprocessing, Resize};
use crate::runtime::Placement;
use crate::{EngineError, Result};

/// A checked training of a segmenter.
#[derive(Debug)]
pub struct Segmenter {
    params: SegmentationParams,
    data: DataSplit<SegmentSample>,
    /// What the pictures have in common.
    pictures: Pictures,
    preprocessing: Preprocessing,
    loss: PixelLoss,
}

impl Segmenter {
    /// Reads the lists and some pictures, and checks the parameters; what is changed is told in `notes`.
    ///
    /// # Errors
    /// `InvalidArgument` naming the parameter; what [`data::read_pairs`] says; `InvalidData` when the pictures cannot
    /// be read.
    pub fn new(
        params: &SegmentationParams,
        dataset: &DatasetRef,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let params = params.clone();
        let data = data::read_pairs(dataset)?;
        let classes = data.labels.len();
        check(&params, classes)?;
        let [height, width] = params.common.image_shape;
        let objection = oarlock_zoo::input_size(&params.common.model)
            .and_then(|size| size.objection(height as usize, width as usize));
        if let Some(objection) = objection {
            return Err(wrong("image_shape", &format!("does not fit: {objection}")));
        }
        let pictures = pictures::look_at(&data.train)?;
        let per_channel = |values: &[f32], field: &str| {
            pictures::per_channel(values, pictures.channels).ok_or_else(|| {
                wrong(
                    field,
                    &format!(
                        "must have {} values, one for each channel of the pictures",
                        pictures.channels
                    ),
                )
            })
        };
        let mean = per_channel(&params.image_mean, "image_mean")?;
        let std = per_channel(&params.image_std, "image_std")?;
        super::plan::check_normalisation(&mean, &std)?;
        let range = match (params.min_val.as_slice(), params.max_val.as_slice()) {
            ([], []) if pictures.depth == Depth::U8 => Vec::new(),
            ([], []) => {
                let range = pictures::value_range(&data.train)?;
                notes.push(format!(
                    "min_val and max_val are not given; values are clipped to those of some training pictures: {range:?}"
                ));
                range
            }
            (min, max) => {
                let (min, max) = (per_channel(min, "min_val")?, per_channel(max, "max_val")?);
                min.into_iter().zip(max).collect()
            }
        };
        if range
            .iter()
            .any(|(l, h)| !(l.is_finite() && h.is_finite() && l < h))
        {
            return Err(wrong("max_val", "must be above min_val in each channel"));
        }
        let preprocessing = Preprocessing {
            resize: Resize::Exact { height, width },
            mean,
            std,
            // The range of 8 bits is said by none.
            range: if range.iter().all(|r| *r == (0.0, 255.0)) {
                Vec::new()
            } else {
                range
            },
            image_size: Some(pictures.size),
        };
        let loss = PixelLoss::new(&params.losses, &params.class_weights, classes)?;
        Ok(Self {
            params,
            data,
            pictures,
            preprocessing,
            loss,
        })
    }

    /// Whether pictures are read with all their channels and bits.
    fn raster(&self) -> bool {
        self.pictures.raster
    }

    fn raster_pipeline(&self, task: RasterTask) -> RasterPipeline {
        RasterPipeline {
            channels: self.pictures.channels,
            depth: self.pictures.depth,
            range: match self.preprocessing.range.as_slice() {
                [] => ValueRange::Stored,
                range => ValueRange::Clip(range.to_vec()),
            },
            task,
        }
    }
}

impl Family for Segmenter {
    fn model_type(&self) -> &'static str {
        "segmenter"
    }

    fn model(&self, _: &Graph) -> String {
        let name = &self.params.common.model;
        oarlock_zoo::canonical_segmenter(name).map_or_else(|| name.clone(), str::to_owned)
    }

    fn backbone(&self) -> Option<String> {
        let name = &self.params.common.model;
        let known = oarlock_zoo::segmenter_backbones(name).first()?;
        let asked = self.params.backbone.as_deref().unwrap_or("");
        Some(
            oarlock_zoo::canonical_backbone(name, asked)
                .unwrap_or(known)
                .to_owned(),
        )
    }

    fn labels(&self) -> &[String] {
        &self.data.labels
    }

    fn images(&self) -> usize {
        self.data.train.len()
    }

    fn fingerprint(&self) -> &str {
        &self.data.fingerprint
    }

    fn network(&self, origin: Origin) -> Result<(Graph, Vec<PaddleWeight>)> {
        let p = &self.params;
        oarlock_zoo::segmenter_of(
            &p.common.model,
            p.backbone.as_deref(),
            self.data.labels.len(),
            self.pictures.channels,
            origin,
        )
        .map_err(|e| EngineError::new(ErrorCode::InvalidArgument, e.to_string()))
    }

    fn backbone_names(&self, origin: Origin) -> Result<HashMap<String, String>> {
        let p = &self.params;
        oarlock_zoo::backbone_names(&p.common.model, p.backbone.as_deref(), origin)
            .map_err(|e| EngineError::new(ErrorCode::InvalidArgument, e.to_string()))
    }

    fn feed(&self, part: EpochPart, supply: &Supply) -> Result<Box<dyn Feed>> {
        let samples = self.data.train.clone();
        if self.raster() {
            let pipeline = self.raster_pipeline(RasterTask::Train(raster_train(self)));
            let loader = Loader::new(training(pipeline, samples, part, supply));
            return Ok(Box::new(PixelFeed {
                loader: loader.map_err(JobError::from)?,
                preprocessing: self.preprocessing.clone(),
                placement: supply.placement,
            }));
        }
        let pipeline = SegmentPipeline::Train(segment_train(self));
        let loader = Loader::new(training(pipeline, samples, part, supply));
        Ok(Box::new(PixelFeed {
            loader: loader.map_err(JobError::from)?,
            preprocessing: self.preprocessing.clone(),
            placement: supply.placement,
        }))
    }

    fn learn(&self, network: &Network, batch: &Fed, _: u64) -> Result<Learned> {
        let [map] = batch.targets.as_slice() else {
            return Err(EngineError::internal(
                "a label map for each image is needed",
            ));
        };
        let weights = network.graph().loss_weights();
        Learned::of_outputs(network, &batch.input, |outputs| {
            self.loss.of_outputs(outputs, &weights, map)
        })
    }

    /// In 16 bits the borders of objects move: the mean IoU differs in its third digit from that of the exported network.
    fn validation_kind(&self, _: Kind) -> Kind {
        Kind::Float
    }

    fn validate(
        &self,
        network: &Network,
        supply: &Supply,
        watch: Watch,
    ) -> Result<Option<Validation>> {
        let input = &self.preprocessing;
        let pipeline = pixels::eval_pipeline(input, &self.pictures);
        let (samples, classes) = (self.data.val.clone(), self.data.labels.len());
        pixels::validate(network, pipeline, samples, classes, input, supply, watch)
    }

    fn preprocessing(&self) -> Preprocessing {
        self.preprocessing.clone()
    }
}

fn training<P: Pipeline>(
    pipeline: P,
    samples: Arc<Vec<P::Sample>>,
    part: EpochPart,
    supply: &Supply,
) -> LoaderConfig<P> {
    let listed = LoaderConfig {
        cache: supply.cache.clone(),
        max_corrupt_fraction: supply.max_corrupt_fraction,
        ..LoaderConfig::in_order(samples, supply.batch_size as usize, pipeline)
    };
    supply.shuffled(part, listed)
}

/// Batches with their label maps.
struct PixelFeed<P: Pipeline> {
    loader: Loader<P>,
    preprocessing: Preprocessing,
    placement: Placement,
}

impl<P: Pipeline<Sample = SegmentSample, Target = SegmentTarget>> Feed for PixelFeed<P> {
    fn next(&mut self) -> Result<Option<Fed>> {
        let Some(batch) = self.loader.next() else {
            return Ok(None);
        };
        let batch = batch.map_err(JobError::from)?;
        let shape = [batch.n, batch.h, batch.w, batch.channels];
        let input = network_input(
            &batch.images,
            batch.depth,
            shape,
            &self.preprocessing,
            self.placement,
        )?;
        let size = [batch.n, batch.h, batch.w].map(|s| s as i64);
        let map = Tensor::f_from_slice(&batch.maps)?
            .f_reshape(size)?
            .f_to_device(self.placement.device)?
            .f_to_kind(Kind::Int64)?;
        self.loader.recycle(batch.images);
        Ok(Some(Fed {
            index: batch.index,
            images: batch.n,
            skipped: batch.skipped,
            input,
            objects: Vec::new(),
            targets: vec![map],
        }))
    }

    fn stats(&self) -> LoaderStats {
        self.loader.stats()
    }
}

fn chance(on: bool, prob: f32) -> f32 {
    if on { prob } else { 0.0 }
}

fn scale_aspect(p: &SegmentationParams) -> Option<ScaleAspect> {
    p.scale_aspect.then_some(ScaleAspect {
        min_ratio: p.min_ratio,
        aspect: p.aspect_ratio,
    })
}

/// Value of the padding: what normalises to 0.
fn fill(input: &Preprocessing) -> Vec<f32> {
    let range = |c: usize| input.range.get(c).copied().unwrap_or((0.0, 255.0));
    let value = |(c, mean): (usize, &f32)| range(c).0 + mean * (range(c).1 - range(c).0);
    input.mean.iter().enumerate().map(value).collect()
}

fn segment_train(of: &Segmenter) -> SegmentTrain {
    let (p, a) = (&of.params, &of.params.augment);
    let [height, width] = p.common.image_shape.map(|s| s as usize);
    let jitter = |on: bool, range: f32, prob: f32| on.then_some(Jitter { range, prob });
    let distort = Distort {
        brightness: jitter(a.brightness, a.brightness_range, a.brightness_prob),
        contrast: jitter(a.contrast, a.contrast_range, a.contrast_prob),
        saturation: jitter(a.saturation, a.saturation_range, a.saturation_prob),
        hue: jitter(a.hue, a.hue_range, a.hue_prob),
    };
    let colour = fill(&of.preprocessing);
    SegmentTrain {
        scale_aspect: scale_aspect(p),
        blur: chance(p.blur, p.blur_prob),
        horizontal_flip: chance(a.horizontal_flip, a.horizontal_flip_prob),
        vertical_flip: chance(a.vertical_flip, a.vertical_flip_prob),
        rotate: jitter(a.rotate, a.rotate_range, a.rotate_prob),
        fill: std::array::from_fn(|c| colour.get(c).map_or(128, |v| v.round() as u8)),
        ..SegmentTrain::resized(height, width, distort)
    }
}

fn raster_train(of: &Segmenter) -> RasterTrain {
    let (p, a) = (&of.params, &of.params.augment);
    let [height, width] = p.common.image_shape.map(|s| s as usize);
    RasterTrain {
        resize: Some((height, width)),
        scale_aspect: scale_aspect(p),
        crop: (height, width),
        blur: chance(p.blur, p.blur_prob),
        horizontal_flip: chance(a.horizontal_flip, a.horizontal_flip_prob),
        vertical_flip: chance(a.vertical_flip, a.vertical_flip_prob),
        rotate: a.rotate.then_some((a.rotate_range, a.rotate_prob)),
        fill: fill(&of.preprocessing),
    }
}

fn check(p: &SegmentationParams, classes: usize) -> Result<()> {
    if !(2..=255).contains(&classes) {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            format!("labels.txt names {classes} classes; segmentation takes 2 to 255"),
        ));
    }
    if !p.class_weights.is_empty() && p.class_weights.len() != classes {
        return Err(wrong(
            "class_weights",
            &format!("must have {classes} values, one a class"),
        ));
    }
    if p.scale_aspect && !(p.min_ratio > 0.0 && p.min_ratio <= 1.0) {
        return Err(wrong("min_ratio", "must lie above 0 and up to 1"));
    }
    if p.scale_aspect && !(p.aspect_ratio > 0.0 && p.aspect_ratio <= 1.0) {
        return Err(wrong("aspect_ratio", "must lie above 0 and up to 1"));
    }
    let finite = |term: &oarlock_jobs::LossTerm| term.weight.is_finite() && term.weight > 0.0;
    if p.losses.is_empty() || !p.losses.iter().all(finite) {
        return Err(wrong(
            "losses",
            "must name at least one loss, each with a weight above 0",
        ));
    }
    Ok(())
}
