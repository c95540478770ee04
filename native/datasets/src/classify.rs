//! From a file to one input of a classifier.

use std::path::{Path, PathBuf};

use oarlock_imaging::transform::{Distort, Drawn, Jitter};
use oarlock_imaging::{
    DecodePlan, Image, ImageError, Rect, Rng, centre_rect, flip_horizontal, flip_vertical,
    random_crop_rect, resize_box_into, resize_into, rotate, short_side_size,
};
use oarlock_jobs::ClassificationParams;

use crate::pipeline::{BatchKey, Canvas, Job, Layout, Listed, Pipeline, Timing};
use crate::source::Source;

/// One image of a list with its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Absolute file.
    pub path: PathBuf,
    /// Class id.
    pub label: i64,
}

impl Listed for Sample {
    fn path(&self) -> &Path {
        &self.path
    }
}

/// Training transforms of a classifier, in PaddleX's order: random resized crop, flips, colour
/// jitter, rotation. `None` or probability 0 = off.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifyTrain {
    /// Height and width of the result.
    pub crop: (usize, usize),
    /// Side scale of the random crop (PaddleX: 0.88–1).
    pub scale: (f32, f32),
    /// Aspect ratio of the random crop, width / height (PaddleX: 3/4–4/3).
    pub aspect: (f32, f32),
    /// Chance of a left-right flip.
    pub horizontal_flip: f32,
    /// Chance of an upside-down flip.
    pub vertical_flip: f32,
    /// Factor 1 ± range.
    pub brightness: Option<Jitter>,
    /// Factor 1 ± range around the image's mean grey.
    pub contrast: Option<Jitter>,
    /// Factor 1 ± range against the grey image.
    pub saturation: Option<Jitter>,
    /// ± degrees on the colour wheel.
    pub hue: Option<Jitter>,
    /// ± degrees around the centre.
    pub rotate: Option<Jitter>,
}

/// Transforms of one image; the result is always RGB of 8 bits and one size per pipeline.
#[derive(Debug, Clone, PartialEq)]
pub enum ClassifyPipeline {
    /// Random crop and colour changes, drawn from (seed, epoch, sample index).
    Train(ClassifyTrain),
    /// Short side to `resize_short`, then the centre `crop`.
    Eval {
        /// Height and width of the result.
        crop: (usize, usize),
        /// Length of the short side before the crop.
        resize_short: usize,
    },
}

impl ClassifyPipeline {
    /// The training transforms that these parameters ask for.
    pub fn train(params: &ClassificationParams) -> Self {
        let [height, width] = params.common.image_shape;
        let params = &params.augment;
        let jitter = |on: bool, range: f32, prob: f32| on.then_some(Jitter { range, prob });
        let chance = |on: bool, prob: f32| if on { prob } else { 0.0 };
        Self::Train(ClassifyTrain {
            crop: (height as usize, width as usize),
            scale: (0.88, 1.0),
            aspect: (3.0 / 4.0, 4.0 / 3.0),
            horizontal_flip: chance(params.horizontal_flip, params.horizontal_flip_prob),
            vertical_flip: chance(params.vertical_flip, params.vertical_flip_prob),
            brightness: jitter(
                params.brightness,
                params.brightness_range,
                params.brightness_prob,
            ),
            contrast: jitter(params.contrast, params.contrast_range, params.contrast_prob),
            saturation: jitter(
                params.saturation,
                params.saturation_range,
                params.saturation_prob,
            ),
            hue: jitter(params.hue, params.hue_range, params.hue_prob),
            rotate: jitter(params.rotate, params.rotate_range, params.rotate_prob),
        })
    }

    /// The validation transforms that belong to these parameters.
    pub fn eval(params: &ClassificationParams) -> Self {
        let [height, width] = params.common.image_shape;
        Self::eval_of(height as usize, width as usize)
    }

    /// Validation transforms for a crop of this size: short side int(1.143 · crop), centre crop.
    pub fn eval_of(height: usize, width: usize) -> Self {
        Self::Eval {
            crop: (height, width),
            resize_short: (height.max(width) as f64 * 1.143) as usize,
        }
    }

    /// Height and width of every image that comes out.
    pub fn output_size(&self) -> (usize, usize) {
        match self {
            Self::Train(train) => train.crop,
            Self::Eval { crop, .. } => *crop,
        }
    }

    /// (width, height) that a decoded image must cover so that scaling in the decoder costs no
    /// sharpness: no crop drawn by this pipeline is then enlarged that would not have been before.
    pub(crate) fn cover(&self) -> (usize, usize) {
        match self {
            Self::Train(train) => {
                let s = f64::from(train.scale.0).clamp(0.01, 1.0);
                // Narrowest and flattest crop, see `random_crop_rect`.
                let narrow = s * f64::from(train.aspect.0).max(s * s).sqrt();
                let flat = s / f64::from(train.aspect.1).min(1.0 / (s * s)).sqrt();
                let (height, width) = train.crop;
                (
                    (width as f64 / narrow).ceil() as usize,
                    (height as f64 / flat).ceil() as usize,
                )
            }
            Self::Eval { .. } => {
                let short = self.short_side();
                (short, short)
            }
        }
    }

    /// Short side before the centre crop; never smaller than the crop itself.
    fn short_side(&self) -> usize {
        match self {
            Self::Eval { crop, resize_short } => (*resize_short).max(crop.0).max(crop.1),
            Self::Train(train) => train.crop.0.max(train.crop.1),
        }
    }

    /// One image that is in memory, e.g. sent by a client, into `out` (`h·w·3` bytes, RGB).
    /// `rng` decides everything random.
    pub fn run_bytes(&self, bytes: &[u8], rng: &mut Rng, out: &mut [u8]) -> Result<(), ImageError> {
        let source = Source::of_bytes(bytes)?;
        self.make(source, rng, &mut Timing::default(), out)
    }

    /// [`ClassifyPipeline::run_bytes`] for a file.
    pub fn run_file(&self, path: &Path, rng: &mut Rng, out: &mut [u8]) -> Result<(), ImageError> {
        let mut timing = Timing::default();
        let source = Source::open(path, None, &mut timing)?;
        self.make(source, rng, &mut timing, out)
    }

    pub(crate) fn make(
        &self,
        source: Source<'_>,
        rng: &mut Rng,
        timing: &mut Timing,
        out: &mut [u8],
    ) -> Result<(), ImageError> {
        let plan = source.plan(Some(self.cover()));
        let area = self.area((plan.width, plan.height), source.full(), rng);
        let part = source.decode(&plan, area.needed(&plan), timing)?;
        self.transform(&part, part.corner, &area, rng, out)?;
        part.recycle();
        Ok(())
    }

    /// Which part of an image of `size`, on disk of size `full`, becomes the result.
    pub(crate) fn area(&self, size: (usize, usize), full: (usize, usize), rng: &mut Rng) -> Area {
        match self {
            Self::Train(train) => Area::Pixels(random_crop_rect(
                size.0,
                size.1,
                train.scale,
                train.aspect,
                rng,
            )),
            Self::Eval { crop, .. } => {
                let resized = short_side_size(full.0, full.1, self.short_side());
                let cut = centre_rect(resized.0, resized.1, crop.1, crop.0);
                let (sx, sy) = (
                    size.0 as f64 / resized.0 as f64,
                    size.1 as f64 / resized.1 as f64,
                );
                Area::Box {
                    left: cut.x as f64 * sx,
                    top: cut.y as f64 * sy,
                    width: crop.1 as f64 * sx,
                    height: crop.0 as f64 * sy,
                }
            }
        }
    }

    /// From the decoded image, whose top left pixel is `corner` of the planned one, to the result.
    fn transform(
        &self,
        image: &Image,
        corner: (usize, usize),
        area: &Area,
        rng: &mut Rng,
        out: &mut [u8],
    ) -> Result<(), ImageError> {
        let (height, width) = self.output_size();
        match *area {
            Area::Pixels(rect) => {
                let rect = Rect {
                    x: rect.x - corner.0,
                    y: rect.y - corner.1,
                    ..rect
                };
                resize_into(image, Some(rect), width, height, out)?;
            }
            Area::Box {
                left,
                top,
                width: w,
                height: h,
            } => {
                let place = (left - corner.0 as f64, top - corner.1 as f64, w, h);
                resize_box_into(image, place, (width, height), out)?;
            }
        }
        if let Self::Train(train) = self {
            train.draw(rng).apply(out, train.crop);
        }
        Ok(())
    }
}

impl Pipeline for ClassifyPipeline {
    type Sample = Sample;
    /// Class id.
    type Target = i64;

    fn layout(&self, _: &BatchKey) -> Layout {
        let (height, width) = self.output_size();
        Layout::rgb(height, width)
    }

    fn run(&self, job: &mut Job<'_, Sample>, out: &mut Canvas<'_>) -> Result<i64, ImageError> {
        let sample = job.sample();
        let source = Source::open(&sample.path, job.cache, &mut job.timing)?;
        let (height, width) = self.output_size();
        let out = out.image(height, width)?;
        self.make(source, &mut job.rng, &mut job.timing, out)?;
        Ok(sample.label)
    }
}

/// The part of a decoded image that becomes the result.
pub(crate) enum Area {
    /// Cut out, then resized: nothing outside it counts.
    Pixels(Rect),
    /// A part of the resized whole: neighbours count at its edges.
    Box {
        left: f64,
        top: f64,
        width: f64,
        height: f64,
    },
}

impl Area {
    /// The pixels that must be decoded for it.
    fn needed(&self, plan: &DecodePlan) -> Rect {
        match *self {
            Self::Pixels(rect) => rect,
            Self::Box {
                left,
                top,
                width,
                height,
            } => {
                // Two taps reach at most one pixel over the edge; one more against rounding.
                let start = |from: f64| (from.floor() as usize).saturating_sub(2);
                let (x, y) = (start(left), start(top));
                let end = |to: f64| to.ceil() as usize + 2;
                let (right, bottom) = (end(left + width), end(top + height));
                Rect {
                    x,
                    y,
                    width: right - x,
                    height: bottom - y,
                }
                .clamped(plan.width, plan.height)
            }
        }
    }
}

impl ClassifyTrain {
    /// Draws flips, colour jitter in random order and rotation. Every number is drawn whether it is used or not.
    pub(crate) fn draw(&self, rng: &mut Rng) -> ClassifyChanges {
        let flips = [self.horizontal_flip, self.vertical_flip].map(|prob| rng.chance(prob));
        let distort = Distort {
            brightness: self.brightness,
            contrast: self.contrast,
            saturation: self.saturation,
            hue: self.hue,
        };
        let colours = distort.draw(rng);
        let (chance, turn) = (rng.unit(), rng.uniform(-1.0, 1.0));
        let turns = self.rotate.filter(|jitter| chance < f64::from(jitter.prob));
        let degrees = turns.map(|jitter| (turn * f64::from(jitter.range.abs().min(180.0))) as f32);
        ClassifyChanges {
            horizontal_flip: flips[0],
            vertical_flip: flips[1],
            colours,
            degrees,
        }
    }
}

/// Random changes of a training input, drawn and in the order in which they are made.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassifyChanges {
    /// Left to right.
    pub horizontal_flip: bool,
    /// Upside down.
    pub vertical_flip: bool,
    /// Colours.
    pub colours: Drawn,
    /// Counter-clockwise rotation around the centre, black outside.
    pub degrees: Option<f32>,
}

impl ClassifyChanges {
    /// Makes them, in place, on `height·width·3` bytes.
    pub fn apply(&self, pixels: &mut [u8], (height, width): (usize, usize)) {
        if self.horizontal_flip {
            flip_horizontal(pixels, width);
        }
        if self.vertical_flip {
            flip_vertical(pixels, width);
        }
        self.colours.apply(pixels);
        if let Some(degrees) = self.degrees {
            let source = pixels.to_vec();
            rotate(&source, width, height, degrees, pixels);
        }
    }
}
