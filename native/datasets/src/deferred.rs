//! Pictures that the trainer's device decodes: the loader reads files and settles the geometry.

use oarlock_imaging::{ImageError, Limits, Rng, is_plain_jpeg, read_file};

use crate::classify::{Area, ClassifyChanges, ClassifyPipeline, Sample};
use crate::pipeline::{BatchKey, Canvas, Job, Layout, Pipeline};
use crate::source::Source;

/// The inputs of a classifier, with their JPEG files left undecoded and everything random drawn.
///
/// Everything else (other formats, turned or unusual JPEGs) is made by the CPU as ever. The images of its batches are
/// placeholders of one pixel; what counts is in the targets.
#[derive(Debug, Clone)]
pub struct Deferred(ClassifyPipeline);

/// An image of a [`Deferred`] batch.
#[derive(Debug, Clone, PartialEq)]
pub struct DeferredTarget {
    /// Class id.
    pub label: i64,
    /// Its picture.
    pub picture: Undecoded,
}

/// A picture on its way to the device.
#[derive(Debug, Clone, PartialEq)]
pub enum Undecoded {
    /// A file for the device's decoder.
    Jpeg(DeferredJpeg),
    /// The finished input, height × width × 3 bytes.
    Pixels(Vec<u8>),
}

/// A JPEG file and what becomes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct DeferredJpeg {
    /// The file.
    pub bytes: Vec<u8>,
    /// Width that its header states.
    pub width: usize,
    /// Height that its header states.
    pub height: usize,
    /// The whole is first shrunk to 1/`denominator` (1, 2, 4 or 8; sides rounded up) by averaging.
    pub denominator: usize,
    /// Then this part of it is resized, bilinear with pixel centres at .5.
    pub view: ViewBox,
    /// Whether the part is cut out before it is resized, so that pixels outside never shine in.
    pub cut: bool,
    /// Then this is made of it.
    pub changes: ClassifyChanges,
}

/// A part of a picture in pixels, fractions allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ViewBox {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Deferred {
    /// For a pipeline that the CPU would run.
    pub fn of(pipeline: &ClassifyPipeline) -> Self {
        Self(pipeline.clone())
    }

    /// What a device makes of a file, whose bytes are still to be put in.
    fn jpeg(&self, source: &Source<'_>, rng: &mut Rng) -> DeferredJpeg {
        let (plan, full) = (source.plan(Some(self.0.cover())), source.full());
        let (view, cut) = match self.0.area((plan.width, plan.height), full, rng) {
            Area::Box {
                left,
                top,
                width,
                height,
            } => {
                let view = ViewBox {
                    left,
                    top,
                    width,
                    height,
                };
                (view, false)
            }
            Area::Pixels(rect) => {
                let [left, top, width, height] =
                    [rect.x, rect.y, rect.width, rect.height].map(|v| v as f64);
                let view = ViewBox {
                    left,
                    top,
                    width,
                    height,
                };
                (view, true)
            }
        };
        let changes = match &self.0 {
            ClassifyPipeline::Train(train) => train.draw(rng),
            ClassifyPipeline::Eval { .. } => ClassifyChanges::default(),
        };
        DeferredJpeg {
            width: full.0,
            height: full.1,
            denominator: plan.denominator,
            view,
            cut,
            changes,
            bytes: Vec::new(),
        }
    }
}

impl Pipeline for Deferred {
    type Sample = Sample;
    type Target = DeferredTarget;

    fn layout(&self, _: &BatchKey) -> Layout {
        Layout::rgb(1, 1)
    }

    fn run(
        &self,
        job: &mut Job<'_, Sample>,
        out: &mut Canvas<'_>,
    ) -> Result<DeferredTarget, ImageError> {
        out.image(1, 1)?.fill(0);
        let sample = job.sample();
        let bytes = read_file(&sample.path, &Limits::default())?;
        let source = Source::of_bytes(&bytes)?;
        let picture = if is_plain_jpeg(&bytes) {
            let mut jpeg = self.jpeg(&source, &mut job.rng);
            drop(source);
            jpeg.bytes = bytes;
            Undecoded::Jpeg(jpeg)
        } else {
            let (height, width) = self.0.output_size();
            let mut pixels = vec![0; height * width * 3];
            let timing = &mut job.timing;
            self.0.make(source, &mut job.rng, timing, &mut pixels)?;
            Undecoded::Pixels(pixels)
        };
        Ok(DeferredTarget {
            label: sample.label,
            picture,
        })
    }
}
