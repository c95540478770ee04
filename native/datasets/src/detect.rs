//! From a file with boxes to one input of a detector.

use oarlock_imaging::transform::{BoxCrop, Distort, ResizeByShort, random_expansion};
use oarlock_imaging::{
    BBox, Change, Image, ImageError, Interpolation, Keep, Labeled, Object, Pixels, Rect, Rng,
    fill_rgb,
};

use crate::paste::paste;
use crate::pipeline::{Canvas, Timing};
use crate::source::Source;

/// Size of a detector's inputs.
#[derive(Debug, Clone, PartialEq)]
pub enum Fit {
    /// Height and width, shape not kept; with several, one is drawn for each batch.
    Exact(Vec<(usize, usize)>),
    /// Short side to a length unless the long side then exceeded its cap, shape kept; batches are
    /// padded to multiples of a number.
    Short {
        /// Length of the short side, and cap of the long one.
        resize: ResizeByShort,
        /// The number (32).
        multiple: usize,
    },
}

impl Fit {
    /// Width and height of a picture of this size in a batch of exact `size` (height, width).
    pub(crate) fn target(
        &self,
        size: Option<(usize, usize)>,
        (width, height): (usize, usize),
    ) -> (usize, usize) {
        match (self, size) {
            (_, Some((height, width))) => (width, height),
            (Self::Short { resize, .. }, None) => resize.size(width, height),
            (Self::Exact(sizes), None) => sizes.first().map_or((0, 0), |s| (s.1, s.0)),
        }
    }
}

/// Training transforms of detectors: colour jitter, expand, crop, resize, left-right flip. `None` or
/// probability 0 = off.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectTrain {
    /// Size of the result.
    pub fit: Fit,
    /// α and β of mixup with a second picture.
    pub mixup: Option<(f32, f32)>,
    /// Colour changes.
    pub distort: Distort,
    /// Largest canvas side in sides of the picture, and chance.
    pub expand: Option<(f32, f32)>,
    /// Crop that keeps some box's centre.
    pub crop: Option<BoxCrop>,
    /// Chance of a left-right flip.
    pub horizontal_flip: f32,
    /// One is drawn for each picture; none = linear.
    pub interpolations: Vec<Interpolation>,
    /// Colour around an expanded picture and of the padding of batches.
    pub fill: [u8; 3],
}

/// Everything random about the geometry of one picture.
struct Geometry {
    /// Where the picture lies on its canvas.
    at: (usize, usize),
    /// The part of the canvas that becomes the result.
    view: Rect,
    /// Width and height of the result.
    to: (usize, usize),
    flip: bool,
    how: Interpolation,
}

impl DetectTrain {
    fn draw(
        &self,
        full: (usize, usize),
        size: Option<(usize, usize)>,
        objects: &[Object],
        rng: &mut Rng,
    ) -> Geometry {
        let (ratio, prob) = self.expand.unwrap_or((1.0, 0.0));
        let expands = rng.chance(prob);
        let (canvas, at) = match random_expansion(full, ratio, rng) {
            drawn if expands => drawn,
            _ => (full, (0, 0)),
        };
        let (dx, dy) = (at.0 as f32, at.1 as f32);
        let shift = |b: BBox| BBox::new(b.x1 + dx, b.y1 + dy, b.x2 + dx, b.y2 + dy);
        let boxes: Vec<BBox> = objects.iter().map(|o| shift(o.bbox)).collect();
        let crop = self.crop.as_ref();
        let view = crop.and_then(|crop| crop.draw(canvas, &boxes, rng));
        let whole = Rect {
            x: 0,
            y: 0,
            width: canvas.0,
            height: canvas.1,
        };
        let place = rng.below(self.interpolations.len().max(1));
        let how = self.interpolations.get(place).copied();
        let view = view.unwrap_or(whole);
        Geometry {
            at,
            view,
            to: self.fit.target(size, (view.width, view.height)),
            flip: rng.chance(self.horizontal_flip),
            how: how.unwrap_or(Interpolation::Linear),
        }
    }

    /// [`DetectTrain`] on a picture in memory, at the first size of [`Fit::Exact`]; `out` has `h·w·3`
    /// bytes. No mixup.
    pub fn run_bytes(
        &self,
        bytes: &[u8],
        objects: &[Object],
        rng: &mut Rng,
        out: &mut [u8],
    ) -> Result<Vec<Object>, ImageError> {
        let (width, height) = self.fit.target(None, (0, 0));
        if out.len() != height * width * 3 || out.is_empty() {
            return Err(ImageError::Argument(
                "the result's memory has another size".into(),
            ));
        }
        let source = Source::of_bytes(bytes)?;
        let canvas = &mut Canvas::fixed(height, width, out, &mut []);
        let size = Some((height, width));
        self.make(source, objects, size, rng, &mut Timing::default(), canvas)
            .map(|(objects, _)| objects)
    }

    /// Decodes only the visible part at only the needed scale. `objects` are in pixels of the stored
    /// picture as displayed; those that stay come back in pixels of the result, with its width and
    /// height. The same as jitter, expand, crop, resize and flip one after the other, but for a
    /// pixel's width at the picture's edge on an expanded canvas.
    pub(crate) fn make(
        &self,
        source: Source<'_>,
        objects: &[Object],
        size: Option<(usize, usize)>,
        rng: &mut Rng,
        timing: &mut Timing,
        canvas: &mut Canvas<'_>,
    ) -> Result<(Vec<Object>, (usize, usize)), ImageError> {
        let full = source.full();
        let colours = self.distort.draw(rng);
        let geometry = self.draw(full, size, objects, rng);
        let (width, height) = geometry.to;
        let out = canvas.image(height, width)?;
        let view = geometry.view;
        // The visible part on the canvas, and where it goes in the result.
        let along = |view: (usize, usize), at: usize, side: usize, to: usize| {
            let (from, end) = (view.0.max(at), (view.0 + view.1).min(at + side));
            let scale = to as f64 / view.1 as f64;
            let place = |v: usize| ((v.saturating_sub(view.0)) as f64 * scale).round() as usize;
            (from.min(end), end, place(from.min(end)), place(end).min(to))
        };
        let (x0, x1, left, right) = along((view.x, view.width), geometry.at.0, full.0, width);
        let (y0, y1, top, bottom) = along((view.y, view.height), geometry.at.1, full.1, height);
        let to = (right - left, bottom - top);
        let visible = x0 < x1 && y0 < y1 && to.0 > 0 && to.1 > 0;
        if !visible || to != (width, height) {
            fill_rgb(out, width, self.fill);
        }
        if visible {
            let part = (x1 - x0, y1 - y0);
            let cover = |full: usize, to: usize, part: usize| (full * to).div_ceil(part);
            let cover = (cover(full.0, to.0, part.0), cover(full.1, to.1, part.1));
            let plan = source.plan(Some(cover));
            // Fractions of the full picture to pixels of the decoded one.
            let scaled = |v: usize, full: usize, now: usize| {
                (v as f64 * now as f64 / full as f64).round() as usize
            };
            let x = scaled(x0 - geometry.at.0, full.0, plan.width);
            let y = scaled(y0 - geometry.at.1, full.1, plan.height);
            let region = Rect {
                x,
                y,
                width: scaled(x1 - geometry.at.0, full.0, plan.width).saturating_sub(x),
                height: scaled(y1 - geometry.at.1, full.1, plan.height).saturating_sub(y),
            }
            .clamped(plan.width, plan.height);
            let mut image = source.decode(&plan, region, timing)?.cut(region);
            // Colours where there are fewer pixels.
            let early = image.width() * image.height() <= to.0 * to.1;
            if early {
                colours.apply(image.data_mut());
            }
            let change = Change::Resize {
                from: image.whole(),
                to,
                interpolation: geometry.how,
            };
            let mut resized = image.changed(&change)?;
            image.recycle();
            if !early {
                colours.apply(resized.data_mut());
            }
            paste(out, width, &resized, (left, top), geometry.flip);
            resized.recycle();
        }
        let objects = boxes(full, objects, &geometry)?;
        Ok((objects, geometry.to))
    }
}

/// The same changes of the annotations, on a picture of no content.
fn boxes(
    full: (usize, usize),
    objects: &[Object],
    geometry: &Geometry,
) -> Result<Vec<Object>, ImageError> {
    let mut item = Labeled::new(Extent(full.0, full.1));
    item.objects = objects.to_vec();
    let far = |view: usize, at: usize, side: usize| view.max(at + side);
    let view = geometry.view;
    let canvas = (
        far(view.x + view.width, geometry.at.0, full.0),
        far(view.y + view.height, geometry.at.1, full.1),
    );
    item.place(canvas, geometry.at, &[])?;
    item.crop(view, Keep::Centred)?;
    item.resize(geometry.to, Interpolation::Nearest)?;
    if geometry.flip {
        item.flip_horizontal()?;
    }
    Ok(item.objects)
}

/// The whole picture at another size.
pub(crate) fn resized(
    source: Source<'_>,
    to: (usize, usize),
    how: Interpolation,
    timing: &mut Timing,
    canvas: &mut Canvas<'_>,
) -> Result<(), ImageError> {
    let plan = source.plan(Some(to));
    let whole = Rect {
        x: 0,
        y: 0,
        width: plan.width,
        height: plan.height,
    };
    let part = source.decode(&plan, whole, timing)?;
    let change = Change::Resize {
        from: whole,
        to,
        interpolation: how,
    };
    let image: Image = part.changed(&change)?;
    part.recycle();
    let out = canvas.image(to.1, to.0)?;
    out.copy_from_slice(image.data());
    image.recycle();
    Ok(())
}

/// A picture's width and height without its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent(usize, usize);

impl Pixels for Extent {
    fn size(&self) -> (usize, usize) {
        (self.0, self.1)
    }

    fn changed(&self, change: &Change) -> Result<Self, ImageError> {
        use Change as C;
        Ok(match change {
            C::Crop(rect) => {
                let rect = rect.clamped(self.0, self.1);
                Self(rect.width, rect.height)
            }
            C::Resize { to, .. } | C::Warp { to, .. } => Self(to.0, to.1),
            C::Place { canvas, .. } => Self(canvas.0, canvas.1),
            C::FlipHorizontal | C::FlipVertical | C::Blur(_) => *self,
        })
    }
}
