//! Detection in the loader: samples, targets, mixup, a size for each batch.

use std::path::{Path, PathBuf};

use oarlock_imaging::transform::mixup;
use oarlock_imaging::{Image, ImageError, Interpolation, Labeled, Object, Rng};

use crate::detect::{DetectTrain, Fit, resized};
use crate::pipeline::{BatchKey, Canvas, Depth, Job, Layout, Listed, Pipeline, Size, Timing};
use crate::source::Source;

/// One picture of a list with the things in it.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectSample {
    /// Absolute file.
    pub path: PathBuf,
    /// Boxes, and polygons or masks for instance segmentation, in pixels of the picture as displayed;
    /// their weight is 1.
    pub objects: Vec<Object>,
}

impl Listed for DetectSample {
    fn path(&self) -> &Path {
        &self.path
    }
}

/// What belongs to an input of a detector.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectTarget {
    /// In training: what is left of the things, in pixels of the input. In evaluation: all of them, in
    /// pixels of the stored picture.
    pub objects: Vec<Object>,
    /// Width and height of the stored picture as displayed.
    pub full: (usize, usize),
    /// Width and height of the image within the input; the rest is padding.
    pub shown: (usize, usize),
}

/// Transforms of a detector.
#[derive(Debug, Clone, PartialEq)]
pub enum DetectPipeline {
    /// Random changes, drawn from (seed, epoch, sample index).
    Train(DetectTrain),
    /// The whole picture resized.
    Eval {
        /// Size of the result.
        fit: Fit,
        /// How; single-stage detectors: cubic.
        interpolation: Interpolation,
        /// Colour of the padding of batches.
        fill: [u8; 3],
    },
}

impl DetectPipeline {
    fn fit(&self) -> (&Fit, [u8; 3]) {
        match self {
            Self::Train(train) => (&train.fit, train.fill),
            Self::Eval { fit, fill, .. } => (fit, *fill),
        }
    }
}

impl DetectPipeline {
    /// [`DetectPipeline::Eval`] on a picture in memory: the input with its padding, and how the picture lies in it.
    /// Errors: what is wrong with the picture; a pipeline of training.
    pub fn eval_bytes(&self, bytes: &[u8]) -> Result<(Image, DetectTarget), ImageError> {
        let (mut image, target) = self.evaluated(bytes, None)?;
        if let (Fit::Short { multiple, .. }, fill) = self.fit() {
            let (w, h) = (
                image.width().next_multiple_of(*multiple),
                image.height().next_multiple_of(*multiple),
            );
            let mut padded = Image::filled(w, h, fill);
            padded.paste(&image, 0, 0);
            image = padded;
        }
        Ok((image, target))
    }

    /// The same for a network that takes one `size` (height, width): a picture that would be larger is made to fit. Without
    /// padding.
    pub fn eval_within(
        &self,
        bytes: &[u8],
        size: (usize, usize),
    ) -> Result<(Image, DetectTarget), ImageError> {
        self.evaluated(bytes, Some(size))
    }

    fn evaluated(
        &self,
        bytes: &[u8],
        most: Option<(usize, usize)>,
    ) -> Result<(Image, DetectTarget), ImageError> {
        let Self::Eval {
            fit,
            interpolation,
            fill,
        } = self
        else {
            return Err(ImageError::Argument("a pipeline of training".into()));
        };
        let source = Source::of_bytes(bytes)?;
        let full = source.full();
        let mut shown = fit.target(None, full);
        if let Some(most) = most {
            shown = no_larger(shown, most);
        }
        let mut image = Image::filled(shown.0, shown.1, *fill);
        let canvas = &mut Canvas::fixed(shown.1, shown.0, image.data_mut(), &mut []);
        resized(
            source,
            shown,
            *interpolation,
            &mut Timing::default(),
            canvas,
        )?;
        let target = DetectTarget {
            objects: Vec::new(),
            full,
            shown,
        };
        Ok((image, target))
    }
}

/// Width and height, shrunk in their proportion to fit into `height` and `width`.
fn no_larger(
    (width, height): (usize, usize),
    (most_height, most_width): (usize, usize),
) -> (usize, usize) {
    let share = |most: usize, side: usize| most as f64 / side.max(1) as f64;
    let factor = share(most_width, width).min(share(most_height, height));
    if factor >= 1.0 {
        return (width, height);
    }
    let scaled =
        |side: usize, most: usize| ((side as f64 * factor).round() as usize).clamp(1, most);
    (scaled(width, most_width), scaled(height, most_height))
}

impl Pipeline for DetectPipeline {
    type Sample = DetectSample;
    type Target = DetectTarget;

    fn layout(&self, batch: &BatchKey) -> Layout {
        match self.fit() {
            (Fit::Exact(sizes), _) => {
                let keys = [
                    batch.seed,
                    batch.epoch,
                    batch.index as u64,
                    0x0073_697a_6500,
                ];
                let place = Rng::of(&keys).below(sizes.len());
                let (height, width) = sizes.get(place).copied().unwrap_or((0, 0));
                Layout::rgb(height, width)
            }
            (Fit::Short { multiple, .. }, fill) => Layout {
                size: Size::Largest {
                    multiple: *multiple,
                    fill,
                },
                channels: 3,
                depth: Depth::U8,
            },
        }
    }

    fn run(
        &self,
        job: &mut Job<'_, DetectSample>,
        out: &mut Canvas<'_>,
    ) -> Result<DetectTarget, ImageError> {
        let sample = job.sample();
        let size = match job.layout.size {
            Size::Fixed { height, width, .. } => Some((height, width)),
            Size::Largest { .. } => None,
        };
        let source = Source::open(&sample.path, job.cache, &mut job.timing)?;
        let full = source.full();
        match self {
            Self::Train(train) => {
                let (source, objects) = match train.mixup {
                    Some(shape) => mixed(job, source, shape)?,
                    None => (source, None),
                };
                let objects = objects.as_ref().unwrap_or(&sample.objects);
                let (objects, shown) =
                    train.make(source, objects, size, &mut job.rng, &mut job.timing, out)?;
                Ok(DetectTarget {
                    objects,
                    full,
                    shown,
                })
            }
            Self::Eval {
                fit, interpolation, ..
            } => {
                let shown = fit.target(size, full);
                resized(source, shown, *interpolation, &mut job.timing, out)?;
                Ok(DetectTarget {
                    objects: sample.objects.clone(),
                    full,
                    shown,
                })
            }
        }
    }
}

/// The picture mixed with a second one of the list, and the objects of both. A second one that cannot
/// be read is left out: it is counted when its own turn comes.
fn mixed<'a>(
    job: &mut Job<'a, DetectSample>,
    source: Source<'a>,
    (alpha, beta): (f32, f32),
) -> Result<(Source<'a>, Option<Vec<Object>>), ImageError> {
    let share = job.rng.beta(alpha.into(), beta.into()) as f32;
    let other = job.rng.below(job.samples.len().saturating_sub(1));
    let other = other + usize::from(other >= job.index);
    let Some(other) = job.samples.get(other) else {
        return Ok((source, None));
    };
    let second = Source::open(&other.path, job.cache, &mut job.timing)
        .and_then(|second| second.whole(&mut job.timing));
    let Ok(second) = second else {
        return Ok((source, None));
    };
    let labeled = |part: crate::source::Part, objects: &[Object]| {
        let mut item = Labeled::new(part.into_image());
        item.objects = objects.to_vec();
        item
    };
    let first = labeled(source.whole(&mut job.timing)?, &job.sample().objects);
    let mixed = mixup(first, labeled(second, &other.objects), share);
    Ok((Source::ready(mixed.image), Some(mixed.objects)))
}
