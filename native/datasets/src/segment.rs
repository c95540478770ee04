//! From a picture and its label map to one input of a segmentation network.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use oarlock_imaging::transform::{Distort, Jitter, ScaleAspect};
use oarlock_imaging::{
    Change, IGNORE, Image, ImageError, Interpolation, Labeled, Limits, Pixels, Plane, Rect, Rng,
    decode_label_map, fill_rgb, flip_vertical, pick_labels, resize_box_to,
};

use crate::paste::paste;
use crate::pipeline::{BatchKey, Canvas, Job, Layout, Listed, Pipeline, Timing};
use crate::source::{Source, label_map};

/// One picture of a list with its label map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSample {
    /// Absolute file.
    pub path: PathBuf,
    /// Absolute file of the label map: a PNG of one channel, class ids, 255 = ignored.
    pub map: PathBuf,
}

impl Listed for SegmentSample {
    fn path(&self) -> &Path {
        &self.path
    }
}

/// What belongs to an input of a segmentation network beside its label map in `Batch::maps`.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentTarget {
    /// Width and height of the stored picture as displayed.
    pub full: (usize, usize),
    /// The label map as stored, where the pipeline keeps it.
    pub map: Option<Arc<Plane>>,
}

/// Transforms of a segmentation network.
#[derive(Debug, Clone, PartialEq)]
pub enum SegmentPipeline {
    /// Random part, flips and colours, drawn from (seed, epoch, sample index).
    Train(SegmentTrain),
    /// The whole picture resized, and its label map by the nearest neighbour.
    Eval {
        /// Height and width of the result.
        size: (usize, usize),
        /// Whether the target holds the label map as stored, for scores at the picture's own size.
        keep_maps: bool,
    },
}

impl Pipeline for SegmentPipeline {
    type Sample = SegmentSample;
    type Target = SegmentTarget;

    fn layout(&self, _: &BatchKey) -> Layout {
        let (height, width) = match self {
            Self::Train(train) => train.crop,
            Self::Eval { size, .. } => *size,
        };
        Layout::rgb(height, width).with_map()
    }

    fn run(
        &self,
        job: &mut Job<'_, SegmentSample>,
        out: &mut Canvas<'_>,
    ) -> Result<SegmentTarget, ImageError> {
        let sample = job.sample();
        let source = Source::open(&sample.path, job.cache, &mut job.timing)?;
        let map = label_map(&sample.map, job.cache, &mut job.timing)?;
        let full = source.full();
        let keep_maps = match self {
            Self::Train(train) => {
                let (out, labels) = out.with_map(train.crop.0, train.crop.1)?;
                train.make(source, &map, &mut job.rng, &mut job.timing, out, labels)?;
                false
            }
            Self::Eval { size, keep_maps } => {
                let (out, labels) = out.with_map(size.0, size.1)?;
                resized(source, &map, *size, &mut job.timing, out, labels)?;
                *keep_maps
            }
        };
        Ok(SegmentTarget {
            full,
            map: keep_maps.then_some(map),
        })
    }
}

/// Errors: the label map has another size than its picture.
pub(crate) fn same_size(full: (usize, usize), map: &Plane) -> Result<(), ImageError> {
    if map.size() == full {
        return Ok(());
    }
    let ((w, h), (mw, mh)) = (full, map.size());
    let text = format!("its label map is {mw}×{mh}, but the picture {w}×{h}");
    Err(ImageError::Argument(text))
}

/// The whole picture and its label map at another size.
fn resized(
    source: Source<'_>,
    map: &Plane,
    (height, width): (usize, usize),
    timing: &mut Timing,
    out: &mut [u8],
    labels: &mut [u8],
) -> Result<(), ImageError> {
    let full = source.full();
    same_size(full, map)?;
    let whole = (0.0, 0.0, full.0 as f64, full.1 as f64);
    cut(source, whole, (width, height), timing, false, width, out)?;
    // The corner's neighbour, as `cv2.resize` takes it: scores are comparable with PaddleX's.
    let change = Change::Resize {
        from: map.whole(),
        to: (width, height),
        interpolation: Interpolation::Nearest,
    };
    labels.copy_from_slice(map.changed(&change)?.data());
    Ok(())
}

/// Training transforms of segmentation networks: resize, scale-aspect crop, padding crop, blur, colour
/// jitter, flips. `None` or probability 0 = off.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentTrain {
    /// Height and width that every picture is resized to first; `None` = as it is.
    pub resize: Option<(usize, usize)>,
    /// Random part resized back, see [`ScaleAspect`].
    pub scale_aspect: Option<ScaleAspect>,
    /// Height and width of the result: a random part, padded right and below where it is smaller.
    pub crop: (usize, usize),
    /// Chance of a Gaussian blur with a kernel of 3–9.
    pub blur: f32,
    /// Colour changes.
    pub distort: Distort,
    /// Chance of a left-right flip.
    pub horizontal_flip: f32,
    /// Chance of an upside-down flip.
    pub vertical_flip: f32,
    /// ± degrees around the centre; what turns in from outside is padding.
    pub rotate: Option<Jitter>,
    /// Colour of the padding.
    pub fill: [u8; 3],
}

impl SegmentTrain {
    /// Resize, blur and the rest as the contract lists them; the result has the size of the resize.
    pub fn resized(height: usize, width: usize, distort: Distort) -> Self {
        Self {
            resize: Some((height, width)),
            scale_aspect: None,
            crop: (height, width),
            blur: 0.0,
            distort,
            horizontal_flip: 0.5,
            vertical_flip: 0.0,
            rotate: None,
            fill: [128; 3],
        }
    }

    /// Decodes only the part that is seen at only the needed scale. Writes `h·w·3` bytes to `out` and
    /// `h·w` class ids to `labels`, 255 in the padding. The picture is resized once, from the drawn
    /// part to its place: what resize, scale-aspect crop and padding crop one after the other give,
    /// but sharper.
    pub fn run_bytes(
        &self,
        picture: &[u8],
        mask: &[u8],
        rng: &mut Rng,
        out: &mut [u8],
        labels: &mut [u8],
    ) -> Result<(), ImageError> {
        let map = decode_label_map(mask, &Limits::default())?;
        let source = Source::of_bytes(picture)?;
        self.make(source, &map, rng, &mut Timing::default(), out, labels)
    }

    fn make(
        &self,
        source: Source<'_>,
        map: &Plane,
        rng: &mut Rng,
        timing: &mut Timing,
        out: &mut [u8],
        labels: &mut [u8],
    ) -> Result<(), ImageError> {
        let (height, width) = self.crop;
        if labels.len() != height * width || out.len() != labels.len() * 3 || out.is_empty() {
            return Err(ImageError::Argument(
                "the result's memory has another size".into(),
            ));
        }
        let full = source.full();
        same_size(full, map)?;
        // Every number is drawn whether it is used or not.
        let size = self.resize.map_or(full, |(h, w)| (w, h));
        let part = match &self.scale_aspect {
            Some(scale_aspect) => scale_aspect.draw(size, rng),
            None => Rect {
                x: 0,
                y: 0,
                width: size.0,
                height: size.1,
            },
        };
        let y = rng.below(size.1.saturating_sub(height) + 1);
        let x = rng.below(size.0.saturating_sub(width) + 1);
        let (blurs, kernel) = (rng.chance(self.blur), 3 + 2 * rng.below(4));
        let colours = self.distort.draw(rng);
        let flips = (
            rng.chance(self.horizontal_flip),
            rng.chance(self.vertical_flip),
        );
        let (turns, turn) = (rng.unit(), rng.uniform(-1.0, 1.0));

        let shown = (width.min(size.0), height.min(size.1));
        // The shown pixels, through crop and resizes, as a box of the stored picture.
        let along = |start: usize, shown: usize, part: (usize, usize), size: usize, full: usize| {
            let (zoom, scale) = (part.1 as f64 / size as f64, full as f64 / size as f64);
            let from = (part.0 as f64 + start as f64 * zoom) * scale;
            (from, shown as f64 * zoom * scale)
        };
        let (left, box_width) = along(x, shown.0, (part.x, part.width), size.0, full.0);
        let (top, box_height) = along(y, shown.1, (part.y, part.height), size.1, full.1);
        let view = (left, top, box_width, box_height);
        if shown != (width, height) {
            fill_rgb(out, width, self.fill);
            labels.fill(IGNORE);
        }
        // The flip is part of the resize; a mirrored picture that is padded begins further right.
        let right = if flips.0 { width - shown.0 } else { 0 };
        if blurs || shown != (width, height) && !colours.changes().is_empty() {
            let mut image = Image::of_any_content(shown.0, shown.1);
            cut(
                source,
                view,
                shown,
                timing,
                false,
                shown.0,
                image.data_mut(),
            )?;
            if blurs {
                image = image.changed(&Change::Blur(kernel))?;
            }
            colours.apply(image.data_mut());
            paste(out, width, &image, (0, 0), flips.0);
            image.recycle();
        } else {
            cut(
                source,
                view,
                shown,
                timing,
                flips.0,
                width,
                &mut out[right * 3..],
            )?;
            colours.apply(out);
        }
        pick_labels(map, view, shown, flips.0, width, &mut labels[right..]);
        if flips.1 {
            flip_vertical(out, width);
            for row in 0..height / 2 {
                let (above, below) = labels.split_at_mut((height - 1 - row) * width);
                above[row * width..(row + 1) * width].swap_with_slice(&mut below[..width]);
            }
        }
        match self.rotate {
            Some(jitter) if turns < f64::from(jitter.prob) => {
                let degrees = turn * f64::from(jitter.range.abs().min(180.0));
                self.turn(degrees, out, labels)
            }
            _ => Ok(()),
        }
    }

    fn turn(&self, degrees: f64, out: &mut [u8], labels: &mut [u8]) -> Result<(), ImageError> {
        let (height, width) = self.crop;
        let mut item = Labeled::new(Image::new(width, height, out.to_vec())?);
        item.label_map = Some(Plane::new(width, height, labels.to_vec())?);
        item.rotate(degrees, false, &self.fill.map(f32::from))?;
        out.copy_from_slice(item.image.data());
        if let Some(map) = &item.label_map {
            labels.copy_from_slice(map.data());
        }
        Ok(())
    }
}

/// The box of the stored picture at the wanted size, into rows of `stride` pixels of `out`.
fn cut(
    source: Source<'_>,
    (left, top, width, height): (f64, f64, f64, f64),
    to: (usize, usize),
    timing: &mut Timing,
    mirrored: bool,
    stride: usize,
    out: &mut [u8],
) -> Result<(), ImageError> {
    let full = source.full();
    let cover =
        |full: usize, to: usize, part: f64| (full as f64 * to as f64 / part).ceil() as usize;
    let plan = source.plan(Some((
        cover(full.0, to.0, width),
        cover(full.1, to.1, height),
    )));
    let (sx, sy) = (
        plan.width as f64 / full.0 as f64,
        plan.height as f64 / full.1 as f64,
    );
    let (left, top, width, height) = (left * sx, top * sy, width * sx, height * sy);
    // Two taps reach at most one pixel over the edge; one more against rounding.
    let start = |from: f64| (from.floor() as usize).saturating_sub(2);
    let (x, y) = (start(left), start(top));
    let region = Rect {
        x,
        y,
        width: (left + width).ceil() as usize + 2 - x,
        height: (top + height).ceil() as usize + 2 - y,
    }
    .clamped(plan.width, plan.height);
    let part = source.decode(&plan, region, timing)?;
    let corner = (part.corner.0 as f64, part.corner.1 as f64);
    let place = (left - corner.0, top - corner.1, width, height);
    resize_box_to(&part, place, to, mirrored, stride, out)?;
    part.recycle();
    Ok(())
}
