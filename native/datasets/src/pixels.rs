//! Segmentation of pictures of either kind: 8-bit RGB, or rasters with all their channels and bits.

use oarlock_imaging::ImageError;

use crate::pipeline::{BatchKey, Canvas, Depth, Job, Layout, Pipeline};
use crate::{
    RasterPipeline, RasterTask, SegmentPipeline, SegmentSample, SegmentTarget, ValueRange,
};

/// Transforms of a segmentation network, whatever its pictures are.
#[derive(Debug, Clone, PartialEq)]
pub enum PixelPipeline {
    /// 8-bit RGB.
    Rgb(SegmentPipeline),
    /// Remote sensing.
    Raster(RasterPipeline),
}

impl PixelPipeline {
    /// Validation transforms: the whole picture resized to `size` (height, width), the label map kept as stored.
    /// `raster` is the number of channels and their kind, `None` for 8-bit RGB; `range` (one pair a channel, or none)
    /// is what a raster's values are cut to.
    pub fn eval(
        size: (usize, usize),
        raster: Option<(usize, Depth)>,
        range: &[(f32, f32)],
    ) -> Self {
        let Some((channels, depth)) = raster else {
            return Self::Rgb(SegmentPipeline::Eval {
                size,
                keep_maps: true,
            });
        };
        Self::Raster(RasterPipeline {
            channels,
            depth,
            range: match range {
                [] => ValueRange::Stored,
                range => ValueRange::Clip(range.to_vec()),
            },
            task: RasterTask::Eval(size.0, size.1),
        })
    }
}

impl Pipeline for PixelPipeline {
    type Sample = SegmentSample;
    type Target = SegmentTarget;

    fn layout(&self, batch: &BatchKey) -> Layout {
        match self {
            Self::Rgb(pipeline) => pipeline.layout(batch),
            Self::Raster(pipeline) => pipeline.layout(batch),
        }
    }

    fn run(
        &self,
        job: &mut Job<'_, SegmentSample>,
        out: &mut Canvas<'_>,
    ) -> Result<SegmentTarget, ImageError> {
        match self {
            Self::Rgb(pipeline) => pipeline.run(job, out),
            Self::Raster(pipeline) => pipeline.run(job, out),
        }
    }
}
