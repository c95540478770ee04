//! From a picture and its label map to one input of a segmentation network.

use oarlock_imaging::transform::{Distort, ScaleAspect};
use oarlock_imaging::{
    Change, IGNORE, Image, ImageError, Limits, Pixels, Plane, Rect, Rng, decode_label_map,
    decode_region, fill_rgb, flip_vertical, plan, resize_box_into,
};

use crate::paste::paste;

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
            fill: [128; 3],
        }
    }

    /// Decodes only the part that is seen at only the needed scale. Writes `h·w·3` bytes to `out` and
    /// `h·w` class ids to `labels`, 255 in the padding. The picture is resized once, from the drawn
    /// part to its place: what resize, scale-aspect crop and padding crop one after the other give,
    /// but sharper.
    pub fn run(
        &self,
        picture: &[u8],
        mask: &[u8],
        rng: &mut Rng,
        out: &mut [u8],
        labels: &mut [u8],
    ) -> Result<(), ImageError> {
        let (height, width) = self.crop;
        if labels.len() != height * width || out.len() != labels.len() * 3 || out.is_empty() {
            return Err(ImageError::Argument(
                "the result's memory has another size".into(),
            ));
        }
        let limits = Limits::default();
        let full = plan(picture, &limits, None)?.info.display_size();
        let map = decode_label_map(mask, &limits)?;
        if map.size() != full {
            let ((w, h), (mw, mh)) = (full, map.size());
            let text = format!("its label map is {mw}×{mh}, but the picture {w}×{h}");
            return Err(ImageError::Argument(text));
        }
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

        let shown = (width.min(size.0), height.min(size.1));
        // The shown pixels, through crop and resizes, as a box of the stored picture.
        let along = |start: usize, shown: usize, part: (usize, usize), size: usize, full: usize| {
            let (zoom, scale) = (part.1 as f64 / size as f64, full as f64 / size as f64);
            let from = (part.0 as f64 + start as f64 * zoom) * scale;
            (from, shown as f64 * zoom * scale)
        };
        let (left, box_width) = along(x, shown.0, (part.x, part.width), size.0, full.0);
        let (top, box_height) = along(y, shown.1, (part.y, part.height), size.1, full.1);
        let source = (left, top, box_width, box_height);
        let image = cut(picture, &limits, full, source, shown)?;
        let mut image = if blurs {
            image.changed(&Change::Blur(kernel))?
        } else {
            image
        };
        if shown != (width, height) {
            fill_rgb(out, width, self.fill);
            labels.fill(IGNORE);
        }
        colours.apply(image.data_mut());
        paste(out, width, &image, (0, 0), flips.0);
        image.recycle();
        nearest(&map, source, shown, width, labels);
        if flips.0 {
            labels.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        }
        if flips.1 {
            flip_vertical(out, width);
            for row in 0..height / 2 {
                let (above, below) = labels.split_at_mut((height - 1 - row) * width);
                above[row * width..(row + 1) * width].swap_with_slice(&mut below[..width]);
            }
        }
        Ok(())
    }
}

/// The box of the stored picture at the wanted size.
fn cut(
    picture: &[u8],
    limits: &Limits,
    full: (usize, usize),
    (left, top, width, height): (f64, f64, f64, f64),
    to: (usize, usize),
) -> Result<Image, ImageError> {
    let cover =
        |full: usize, to: usize, part: f64| (full as f64 * to as f64 / part).ceil() as usize;
    let cover = (cover(full.0, to.0, width), cover(full.1, to.1, height));
    let plan = plan(picture, limits, Some(cover))?;
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
    let image = decode_region(picture, &plan, Some(region))?;
    let place = (left - region.x as f64, top - region.y as f64, width, height);
    let mut out = Image::of_any_content(to.0, to.1);
    resize_box_into(&image, place, to, out.data_mut())?;
    image.recycle();
    Ok(out)
}

/// The class ids under the centres of the shown pixels.
fn nearest(
    map: &Plane,
    (left, top, width, height): (f64, f64, f64, f64),
    shown: (usize, usize),
    stride: usize,
    out: &mut [u8],
) {
    let places = |from: f64, length: f64, count: usize, side: usize| {
        let step = length / count as f64;
        (0..count)
            .map(|i| ((from + (i as f64 + 0.5) * step) as usize).min(side - 1))
            .collect::<Vec<usize>>()
    };
    let columns = places(left, width, shown.0, map.width());
    let rows = places(top, height, shown.1, map.height());
    for (row, y) in out.chunks_exact_mut(stride).zip(rows) {
        let source = &map.data()[y * map.width()..(y + 1) * map.width()];
        for (label, x) in row.iter_mut().zip(&columns) {
            *label = source[*x];
        }
    }
}
