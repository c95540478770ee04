//! Segmentation of remote sensing pictures: any number of channels, 8 or 16 bits or floats.

use std::sync::Arc;

use oarlock_imaging::transform::{
    Blur, Clip, Flip, PaddingCrop, Rotate, ScaleAspect, Stretch, Transform,
};
use oarlock_imaging::{
    ImageError, Interpolation, Labeled, Limits, Raster, Samples, decode_raster, read_file,
};

use crate::pipeline::{BatchKey, Canvas, Depth, Job, Layout, Pipeline, Size};
use crate::source::label_map;
use crate::{SegmentSample, SegmentTarget};

/// What is done to the values of a raster before everything else; one pair of limits a channel.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueRange {
    /// Nothing.
    Stored,
    /// Values outside are cut.
    Clip(Vec<(f32, f32)>),
    /// The limits become 0 and 255, in 8 bits.
    Stretch(Vec<(f32, f32)>),
}

/// Geometry of training: resize, scale-aspect crop, blur, padding crop, flips, rotation. `None` or
/// probability 0 = off. Colours of more or fewer than three channels are not changed.
#[derive(Debug, Clone, PartialEq)]
pub struct RasterTrain {
    /// Height and width that every raster is resized to first; `None` = as it is.
    pub resize: Option<(usize, usize)>,
    /// Random part resized back.
    pub scale_aspect: Option<ScaleAspect>,
    /// Height and width of the result: a random part, padded right and below where it is smaller.
    pub crop: (usize, usize),
    /// Chance of a Gaussian blur with a kernel of 3–9.
    pub blur: f32,
    /// Chance of a left-right flip.
    pub horizontal_flip: f32,
    /// Chance of an upside-down flip.
    pub vertical_flip: f32,
    /// Largest angle around the centre in degrees, and chance.
    pub rotate: Option<(f32, f32)>,
    /// Value of the padding, one a channel (the last repeats).
    pub fill: Vec<f32>,
}

/// Transforms of rasters, all of one number of channels and one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct RasterPipeline {
    /// Values of one pixel.
    pub channels: usize,
    /// Kind of the stored values.
    pub depth: Depth,
    /// What is done to them.
    pub range: ValueRange,
    /// Training, or the whole raster resized to a height and width for evaluation.
    pub task: RasterTask,
}

/// Training or evaluation.
#[derive(Debug, Clone, PartialEq)]
pub enum RasterTask {
    /// Random changes, drawn from (seed, epoch, sample index).
    Train(RasterTrain),
    /// The whole raster resized to this height and width; the target holds the label map as stored.
    Eval(usize, usize),
}

impl RasterPipeline {
    fn size(&self) -> (usize, usize) {
        match &self.task {
            RasterTask::Train(train) => train.crop,
            RasterTask::Eval(height, width) => (*height, *width),
        }
    }

    fn ranged(&self, raster: Raster) -> Result<Raster, ImageError> {
        match &self.range {
            ValueRange::Stored => Ok(raster),
            ValueRange::Clip(limits) => Clip {
                limits: limits.clone(),
            }
            .of(&raster),
            ValueRange::Stretch(limits) => Stretch {
                limits: limits.clone(),
            }
            .of(&raster),
        }
    }

    fn checked(&self, raster: Raster) -> Result<Raster, ImageError> {
        let kind = match self.depth {
            Depth::U8 => "uint8",
            Depth::U16 => "uint16",
            Depth::F32 => "float32",
        };
        let (channels, found) = (raster.channels(), raster.samples().kind());
        if (channels, found) == (self.channels, kind) {
            return Ok(raster);
        }
        Err(ImageError::Argument(format!(
            "it has {channels} channels of {found}, the dataset {} of {kind}",
            self.channels
        )))
    }
}

impl Pipeline for RasterPipeline {
    type Sample = SegmentSample;
    type Target = SegmentTarget;

    fn layout(&self, _: &BatchKey) -> Layout {
        let (height, width) = self.size();
        let depth = match self.range {
            ValueRange::Stretch(_) => Depth::U8,
            _ => self.depth,
        };
        Layout {
            size: Size::Fixed {
                height,
                width,
                map: true,
            },
            channels: self.channels,
            depth,
        }
    }

    fn run(
        &self,
        job: &mut Job<'_, SegmentSample>,
        out: &mut Canvas<'_>,
    ) -> Result<SegmentTarget, ImageError> {
        let sample = job.sample();
        let limits = Limits::default();
        let started = std::time::Instant::now();
        let raster = decode_raster(&read_file(&sample.path, &limits)?, &limits)?;
        job.timing.decode_seconds += started.elapsed().as_secs_f64();
        let map = label_map(&sample.map, job.cache, &mut job.timing)?;
        let mut item = Labeled::new(self.ranged(self.checked(raster)?)?);
        let full = (item.image.width(), item.image.height());
        crate::segment::same_size(full, &map)?;
        let (height, width) = self.size();
        let stored = match &self.task {
            RasterTask::Eval(..) => {
                item.label_map = Some((*map).clone());
                item.resize((width, height), Interpolation::Linear)?;
                Some(map)
            }
            RasterTask::Train(train) => {
                item.label_map = Some(Arc::unwrap_or_clone(map));
                train.change(&mut item, &mut job.rng)?;
                None
            }
        };
        let (pixels, labels) = out.with_map(height, width)?;
        copy(item.image.samples(), pixels);
        if let Some(map) = &item.label_map {
            labels.copy_from_slice(map.data());
        }
        Ok(SegmentTarget { full, map: stored })
    }
}

impl RasterTrain {
    fn change(
        &self,
        item: &mut Labeled<Raster>,
        rng: &mut oarlock_imaging::Rng,
    ) -> Result<(), ImageError> {
        if let Some((height, width)) = self.resize {
            item.resize((width, height), Interpolation::Linear)?;
        }
        if let Some(scale_aspect) = &self.scale_aspect {
            scale_aspect.apply(item, rng)?;
        }
        let crop = PaddingCrop {
            to: (self.crop.1, self.crop.0),
            fill: self.fill.clone(),
        };
        crop.apply(item, rng)?;
        Blur { prob: self.blur }.apply(item, rng)?;
        let flip = Flip {
            horizontal: self.horizontal_flip,
            vertical: self.vertical_flip,
        };
        flip.apply(item, rng)?;
        match self.rotate {
            Some((range, prob)) => Rotate {
                range,
                prob,
                grow: false,
                fill: self.fill.clone(),
            }
            .apply(item, rng),
            None => Ok(()),
        }
    }
}

/// Samples as bytes of the machine's order.
fn copy(samples: &Samples, out: &mut [u8]) {
    match samples {
        Samples::U8(v) => out.copy_from_slice(v),
        Samples::U16(v) => {
            let parts = out.as_chunks_mut::<2>().0.iter_mut();
            parts.zip(v).for_each(|(o, v)| *o = v.to_ne_bytes());
        }
        Samples::F32(v) => {
            let parts = out.as_chunks_mut::<4>().0.iter_mut();
            parts.zip(v).for_each(|(o, v)| *o = v.to_ne_bytes());
        }
    }
}
