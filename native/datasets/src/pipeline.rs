//! What happens to an image between its file and the batch.

use std::path::Path;
use std::sync::Arc;

use oarlock_imaging::transform::{Distort, Jitter};
use oarlock_imaging::{
    DecodePlan, Image, ImageError, Limits, Rect, Rng, centre_rect, decode_region, flip_horizontal,
    flip_vertical, plan, random_crop_rect, read_file, resize_box_into, resize_into, rotate,
    short_side_size,
};
use oarlock_jobs::ClassificationParams;

use crate::ImageCache;
use crate::cache::Decoded;

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
pub enum Pipeline {
    /// Random crop and colour changes, drawn from (seed, epoch, sample index).
    ClassifyTrain(ClassifyTrain),
    /// Short side to `resize_short`, then the centre `crop`.
    ClassifyEval {
        /// Height and width of the result.
        crop: (usize, usize),
        /// Length of the short side before the crop.
        resize_short: usize,
    },
}

impl Pipeline {
    /// The training transforms that these parameters ask for.
    pub fn classify_train(params: &ClassificationParams) -> Self {
        let [height, width] = params.common.image_shape;
        let params = &params.augment;
        let jitter = |on: bool, range: f32, prob: f32| on.then_some(Jitter { range, prob });
        let chance = |on: bool, prob: f32| if on { prob } else { 0.0 };
        Self::ClassifyTrain(ClassifyTrain {
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
    pub fn classify_eval(params: &ClassificationParams) -> Self {
        let [height, width] = params.common.image_shape;
        Self::classify_eval_of(height as usize, width as usize)
    }

    /// Validation transforms for a crop of this size: short side int(1.143 · crop), centre crop.
    pub fn classify_eval_of(height: usize, width: usize) -> Self {
        Self::ClassifyEval {
            crop: (height, width),
            resize_short: (height.max(width) as f64 * 1.143) as usize,
        }
    }

    /// Height and width of every image that comes out.
    pub fn output_size(&self) -> (usize, usize) {
        match self {
            Self::ClassifyTrain(train) => train.crop,
            Self::ClassifyEval { crop, .. } => *crop,
        }
    }

    /// (width, height) that a decoded image must cover so that scaling in the decoder costs no
    /// sharpness: no crop drawn by this pipeline is then enlarged that would not have been before.
    fn cover(&self) -> (usize, usize) {
        match self {
            Self::ClassifyTrain(train) => {
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
            Self::ClassifyEval { .. } => {
                let short = self.short_side();
                (short, short)
            }
        }
    }

    /// Short side before the centre crop; never smaller than the crop itself.
    fn short_side(&self) -> usize {
        match self {
            Self::ClassifyEval { crop, resize_short } => (*resize_short).max(crop.0).max(crop.1),
            Self::ClassifyTrain(train) => train.crop.0.max(train.crop.1),
        }
    }

    /// Reads, decodes and transforms one image into `out` (`h·w·3` bytes, RGB).
    /// `rng` decides everything random; the same state gives the same pixels, cached or not.
    pub fn run(
        &self,
        path: &Path,
        cache: Option<&ImageCache>,
        rng: &mut Rng,
        out: &mut [u8],
    ) -> Result<Timing, ImageError> {
        let started = std::time::Instant::now();
        let cover = self.cover();
        let mut timing = Timing::default();
        if let Some(cached) = cache.and_then(|c| c.get(path, cover)) {
            timing.hit = true;
            let (image, full) = (&cached.image, cached.full);
            let area = self.area((image.width(), image.height()), full, rng);
            self.transform(image, (0, 0), &area, rng, out)?;
            timing.transform_seconds = started.elapsed().as_secs_f64();
            return Ok(timing);
        }
        let limits = Limits::default();
        let bytes = read_file(path, &limits)?;
        let plan = plan(&bytes, &limits, Some(cover))?;
        let full = plan.info.display_size();
        let area = self.area((plan.width, plan.height), full, rng);
        let keep = cache.filter(|c| c.has_room(plan.width * plan.height * 3));
        let (image, corner) = match keep {
            Some(cache) => {
                let mut image = decode_region(&bytes, &plan, None)?;
                image.shrink();
                let decoded = Arc::new(Decoded { image, full });
                cache.insert(path, cover, &decoded);
                (decoded, (0, 0))
            }
            None => {
                let needed = area.needed(&plan);
                let image = decode_region(&bytes, &plan, Some(needed))?;
                (Arc::new(Decoded { image, full }), (needed.x, needed.y))
            }
        };
        timing.decode_seconds = started.elapsed().as_secs_f64();
        self.transform(&image.image, corner, &area, rng, out)?;
        if let Some(decoded) = Arc::into_inner(image) {
            decoded.image.recycle();
        }
        timing.transform_seconds = started.elapsed().as_secs_f64() - timing.decode_seconds;
        Ok(timing)
    }

    /// [`Pipeline::run`] for an image that is in memory already, e.g. one sent by a client.
    pub fn run_bytes(&self, bytes: &[u8], rng: &mut Rng, out: &mut [u8]) -> Result<(), ImageError> {
        let plan = plan(bytes, &Limits::default(), Some(self.cover()))?;
        let area = self.area((plan.width, plan.height), plan.info.display_size(), rng);
        let needed = area.needed(&plan);
        let image = decode_region(bytes, &plan, Some(needed))?;
        self.transform(&image, (needed.x, needed.y), &area, rng, out)
    }

    /// Which part of an image of `size`, on disk of size `full`, becomes the result.
    fn area(&self, size: (usize, usize), full: (usize, usize), rng: &mut Rng) -> Area {
        match self {
            Self::ClassifyTrain(train) => Area::Pixels(random_crop_rect(
                size.0,
                size.1,
                train.scale,
                train.aspect,
                rng,
            )),
            Self::ClassifyEval { crop, .. } => {
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
        if let Self::ClassifyTrain(train) = self {
            train.change(out, rng);
        }
        Ok(())
    }
}

/// Time one image took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// Reading and decoding.
    pub decode_seconds: f64,
    /// Everything after.
    pub transform_seconds: f64,
    /// Whether the decoded image was in the cache.
    pub hit: bool,
}

/// The part of a decoded image that becomes the result.
enum Area {
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
    /// Flips, colour jitter in random order, rotation; in place on `h·w·3` bytes.
    fn change(&self, pixels: &mut [u8], rng: &mut Rng) {
        let (height, width) = self.crop;
        if rng.chance(self.horizontal_flip) {
            flip_horizontal(pixels, width);
        }
        if rng.chance(self.vertical_flip) {
            flip_vertical(pixels, width);
        }
        let distort = Distort {
            brightness: self.brightness,
            contrast: self.contrast,
            saturation: self.saturation,
            hue: self.hue,
        };
        let colours = distort.draw(rng);
        let (rotate_chance, rotate_turn) = (rng.unit(), rng.uniform(-1.0, 1.0));
        colours.apply(pixels);
        if let Some(jitter) = self.rotate
            && rotate_chance < f64::from(jitter.prob)
        {
            let degrees = (rotate_turn * f64::from(jitter.range.abs().min(180.0))) as f32;
            let source = pixels.to_vec();
            rotate(&source, width, height, degrees, pixels);
        }
    }
}
