//! Pictures of the project's dataset as the network's input: they calibrate, and are compared in another runtime.

use std::sync::Arc;

use oarlock_datasets::coco::TruthSet;
use oarlock_datasets::{
    ClassifyPipeline, Depth, DetectTarget, Loader, LoaderConfig, Pipeline, Sample, SegmentSample,
};
use oarlock_jobs::{DatasetRef, ErrorCode, JobError, MeasureTask, SampleKind};
use tch::Tensor;

use super::Folded;
use crate::detect::Frame;
use crate::exec::network_input;
use crate::records::{Preprocessing, Resize};
use crate::runtime::Placement;
use crate::train::data::{self, DataSplit};
use crate::train::detector::data::{self as boxes, BoxData, Measure};
use crate::train::detector::params::eval_pipeline;
use crate::train::detector::score::frame;
use crate::train::pictures::{self, Pictures};
use crate::train::pixels;
use crate::{EngineError, Result};

/// A dataset's lists, by what is known of its pictures.
pub(super) enum Images {
    /// Pictures with a class.
    Classes(DataSplit<Sample>),
    /// Pictures with a label map.
    Pixels(DataSplit<SegmentSample>, Pictures),
    /// Pictures with boxes, and masks maybe.
    Boxes(BoxData),
}

/// Batches of pictures as the network's input, with the validation transforms; unreadable ones are left out.
pub(super) struct Inputs<'a> {
    /// Number of batches, empty ones counted.
    pub batches: usize,
    /// The batches.
    pub each: Box<dyn Iterator<Item = Result<Input>> + 'a>,
}

/// A batch of pictures.
pub(super) struct Input {
    /// Images of it.
    pub images: usize,
    /// The network's input.
    pub values: Tensor,
    /// How each picture lies in it; none where that does not matter.
    pub frames: Vec<Frame>,
}

impl Images {
    /// Reads the lists of a dataset that must fit the model; with `masks` those of things that have one.
    ///
    /// # Errors
    /// What reading the lists says; `InvalidData` when the classes or channels are others.
    pub fn read(
        dataset: &DatasetRef,
        labels: &[String],
        how: &Preprocessing,
        masks: bool,
    ) -> Result<Self> {
        let images = match how.resize {
            Resize::ShortCrop { .. } => Self::Classes(data::read(dataset)?),
            Resize::Exact { .. } => {
                let data = data::read_pairs(dataset)?;
                let pictures = pictures::look_at(&data.train)?;
                pictures.fit(how)?;
                Self::Pixels(data, pictures)
            }
            // What the notes say was said by the training.
            Resize::Cubic { .. } | Resize::Capped { .. } => {
                Self::Boxes(boxes::read(dataset, masks, &mut Vec::new())?)
            }
        };
        let theirs = match &images {
            Self::Classes(data) => data.labels.len(),
            Self::Pixels(data, _) => data.labels.len(),
            Self::Boxes(data) => data.split.labels.len(),
        };
        if theirs == labels.len() {
            return Ok(images);
        }
        let what = format!(
            "the project's dataset has {theirs} classes, the model {}",
            labels.len()
        );
        Err(EngineError::new(ErrorCode::InvalidData, what)
            .hint("bind the dataset that the model was trained with"))
    }

    /// Number of training images.
    pub fn training(&self) -> usize {
        match self {
            Self::Classes(data) => data.train.len(),
            Self::Pixels(data, _) => data.train.len(),
            Self::Boxes(data) => data.split.train.len(),
        }
    }

    /// Training images at these places of their list.
    ///
    /// # Errors
    /// `Internal` for settings that make no sense.
    pub fn train<'a>(&self, at: &[usize], batch: usize, network: &'a Folded) -> Result<Inputs<'a>> {
        match self {
            Self::Classes(data) => classes(pick(&data.train, at), batch, network),
            Self::Pixels(data, pictures) => {
                let pipeline = pixels::eval_pipeline(network.how, pictures);
                inputs(pick(&data.train, at), pipeline, batch, network, |_| None)
            }
            Self::Boxes(data) => {
                let samples = pick(&data.split.train, at);
                let place = |target: &DetectTarget| Some(frame(target));
                inputs(samples, eval_pipeline(network.how)?, batch, network, place)
            }
        }
    }

    /// The first validation images, in one batch.
    ///
    /// # Errors
    /// `Internal` for settings that make no sense, and for detectors.
    pub fn first<'a>(&self, count: usize, network: &'a Folded) -> Result<Inputs<'a>> {
        match self {
            Self::Classes(data) => {
                let samples = data.val.iter().take(count).cloned().collect();
                classes(samples, count, network)
            }
            Self::Pixels(data, pictures) => {
                let samples = data.val.iter().take(count).cloned().collect();
                let pipeline = pixels::eval_pipeline(network.how, pictures);
                inputs(samples, pipeline, count, network, |_| None)
            }
            Self::Boxes(_) => Err(EngineError::internal(
                "detectors see one picture after the other",
            )),
        }
    }

    /// Kind of a raster's values; `None` for 8-bit RGB.
    fn raster(&self) -> Option<SampleKind> {
        match self {
            Self::Pixels(_, pictures) if pictures.raster => Some(match pictures.depth {
                Depth::U8 => SampleKind::Uint8,
                Depth::U16 => SampleKind::Uint16,
                Depth::F32 => SampleKind::Float32,
            }),
            _ => None,
        }
    }
}

/// How another runtime is to read the pictures of `images`, and what it measures; `topk` beside top-1. Of a detector
/// `truth` is the file with what is in them.
pub(super) fn measure_task(
    images: Option<&Images>,
    how: &Preprocessing,
    topk: u32,
    truth: Option<String>,
) -> MeasureTask {
    let objects = |resize| {
        let data = match images {
            Some(Images::Boxes(data)) => Some(data),
            _ => None,
        };
        MeasureTask::Boxes {
            resize,
            coco: data.is_some_and(|data| data.measure == Measure::Coco),
            masks: data.is_some_and(|data| data.masks),
            truth,
        }
    };
    match how.resize {
        Resize::ShortCrop { short, .. } => MeasureTask::Classes {
            resize_short: short,
            topk,
        },
        Resize::Exact { .. } => MeasureTask::Pixels {
            raster: images.and_then(Images::raster),
            range: how.range.clone(),
        },
        Resize::Cubic { .. } => objects(None),
        Resize::Capped { short, long, .. } => objects(Some([short, long])),
    }
}

/// The validation pictures of detectors with what is in them.
pub(super) fn truth_set(images: Option<&Images>) -> Option<TruthSet> {
    let Some(Images::Boxes(data)) = images else {
        return None;
    };
    Some(TruthSet {
        pictures: data.split.val.iter().map(|s| s.path.clone()).collect(),
        truth: data.truth.clone(),
    })
}

fn pick<S: Clone>(samples: &[S], at: &[usize]) -> Vec<S> {
    at.iter().map(|&i| samples[i].clone()).collect()
}

fn classes<'a>(samples: Vec<Sample>, batch: usize, network: &'a Folded) -> Result<Inputs<'a>> {
    let Resize::ShortCrop { short, crop } = network.how.resize else {
        return Err(EngineError::internal("a classifier takes squares"));
    };
    let pipeline = ClassifyPipeline::Eval {
        crop: (crop as usize, crop as usize),
        resize_short: short as usize,
    };
    inputs(samples, pipeline, batch, network, |_| None)
}

fn inputs<'a, P: Pipeline>(
    samples: Vec<P::Sample>,
    pipeline: P,
    batch_size: usize,
    network: &'a Folded,
    place: impl Fn(&P::Target) -> Option<Frame> + 'a,
) -> Result<Inputs<'a>> {
    let loader = Loader::new(LoaderConfig {
        threads: network.threads,
        ..LoaderConfig::in_order(Arc::new(samples), batch_size, pipeline)
    })
    .map_err(JobError::from)?;
    let (how, placement): (&Preprocessing, Placement) = (network.how, network.placement);
    Ok(Inputs {
        batches: loader.batches(),
        each: Box::new(loader.map(move |batch| {
            let batch = batch.map_err(JobError::from)?;
            let shape = [batch.n, batch.h, batch.w, batch.channels];
            let bytes = shape.iter().product::<usize>() * batch.depth.bytes();
            let pixels = &batch.images[..bytes];
            Ok(Input {
                images: batch.n,
                values: network_input(pixels, batch.depth, shape, how, placement)?,
                frames: batch.targets.iter().filter_map(&place).collect(),
            })
        })),
    })
}
