//! Pictures of the project's dataset as the network's input: they calibrate, and are compared in another runtime.

use std::sync::Arc;

use oarlock_datasets::{
    ClassifyPipeline, Depth, Loader, LoaderConfig, Pipeline, Sample, SegmentSample,
};
use oarlock_jobs::{DatasetRef, ErrorCode, JobError, MeasureTask, SampleKind};
use tch::Tensor;

use super::Folded;
use crate::exec::network_input;
use crate::records::{Preprocessing, Resize};
use crate::runtime::Placement;
use crate::train::data::{self, DataSplit};
use crate::train::pictures::{self, Pictures};
use crate::train::pixels;
use crate::{EngineError, Result};

/// A dataset's lists, by what is known of its pictures.
pub(super) enum Images {
    /// Pictures with a class.
    Classes(DataSplit<Sample>),
    /// Pictures with a label map.
    Pixels(DataSplit<SegmentSample>, Pictures),
}

/// Batches of pictures as the network's input, with the validation transforms; unreadable ones are left out.
pub(super) struct Inputs<'a> {
    /// Number of batches, empty ones counted.
    pub batches: usize,
    /// Images of each batch, and the input.
    pub each: Box<dyn Iterator<Item = Result<(usize, Tensor)>> + 'a>,
}

impl Images {
    /// Reads the lists of a dataset that must fit the model.
    ///
    /// # Errors
    /// What reading the lists says; `InvalidData` when the classes or channels are others.
    pub fn read(dataset: &DatasetRef, labels: &[String], how: &Preprocessing) -> Result<Self> {
        let images = match how.resize {
            Resize::ShortCrop { .. } => Self::Classes(data::read(dataset)?),
            Resize::Exact { .. } => {
                let data = data::read_pairs(dataset)?;
                let pictures = pictures::look_at(&data.train)?;
                pictures.fit(how)?;
                Self::Pixels(data, pictures)
            }
            Resize::Cubic { .. } | Resize::Capped { .. } => return Err(no_detectors()),
        };
        let theirs = match &images {
            Self::Classes(data) => data.labels.len(),
            Self::Pixels(data, _) => data.labels.len(),
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
                inputs(pick(&data.train, at), pipeline, batch, network)
            }
        }
    }

    /// The first validation images, in one batch.
    ///
    /// # Errors
    /// `Internal` for settings that make no sense.
    pub fn first<'a>(&self, count: usize, network: &'a Folded) -> Result<Inputs<'a>> {
        match self {
            Self::Classes(data) => {
                let samples = data.val.iter().take(count).cloned().collect();
                classes(samples, count, network)
            }
            Self::Pixels(data, pictures) => {
                let samples = data.val.iter().take(count).cloned().collect();
                let pipeline = pixels::eval_pipeline(network.how, pictures);
                inputs(samples, pipeline, count, network)
            }
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

/// How another runtime is to read the pictures of `images`, and what it measures; `topk` beside top-1.
///
/// # Errors
/// `Unsupported` for detectors.
pub(super) fn measure_task(
    images: Option<&Images>,
    how: &Preprocessing,
    topk: u32,
) -> Result<MeasureTask> {
    Ok(match how.resize {
        Resize::ShortCrop { short, .. } => MeasureTask::Classes {
            resize_short: short,
            topk,
        },
        Resize::Exact { .. } => MeasureTask::Pixels {
            raster: images.and_then(Images::raster),
            range: how.range.clone(),
        },
        Resize::Cubic { .. } | Resize::Capped { .. } => return Err(no_detectors()),
    })
}

fn no_detectors() -> EngineError {
    EngineError::new(
        ErrorCode::Unsupported,
        "detectors cannot be measured in another runtime yet",
    )
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
    inputs(samples, pipeline, batch, network)
}

fn inputs<'a, P: Pipeline>(
    samples: Vec<P::Sample>,
    pipeline: P,
    batch_size: usize,
    network: &'a Folded,
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
            let input = network_input(&batch.images[..bytes], batch.depth, shape, how, placement)?;
            Ok((batch.n, input))
        })),
    })
}
