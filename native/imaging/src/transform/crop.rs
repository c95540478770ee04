//! Random crops.

use super::Transform;
use crate::labeled::Keep;
use crate::{BBox, ImageError, Interpolation, Labeled, Pixels, Rect, Rng, random_crop_rect};

/// A random part resized to a size: the crop of classifiers, see [`random_crop_rect`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaledCrop {
    /// Width and height of the result.
    pub to: (usize, usize),
    /// Side scale, low and high (PaddleX: 0.88–1).
    pub scale: (f32, f32),
    /// Aspect ratio, low and high (PaddleX: 3/4–4/3).
    pub aspect: (f32, f32),
}

impl<P: Pixels> Transform<P> for ScaledCrop {
    fn apply(&self, item: &mut Labeled<P>, rng: &mut Rng) -> Result<(), ImageError> {
        let (width, height) = item.image.size();
        let rect = random_crop_rect(width, height, self.scale, self.aspect, rng);
        item.crop(rect, Keep::Centred)?;
        item.resize(self.to, Interpolation::Linear)
    }
}

/// The crop of single-stage detectors (Liu et al., SSD, 2016, section 2.2, as PaddleDetection does it):
/// a random part that overlaps some box by at least a drawn share, and holds some box's centre.
#[derive(Debug, Clone, PartialEq)]
pub struct BoxCrop {
    /// Side scale, low and high (0.3–1).
    pub scale: (f32, f32),
    /// Aspect ratio, low and high (0.5–2).
    pub aspect: (f32, f32),
    /// Smallest intersection over union of the part with its best box; one is drawn.
    pub thresholds: Vec<f32>,
    /// Whether leaving the picture whole is one of the draws.
    pub allow_whole: bool,
}

impl Default for BoxCrop {
    fn default() -> Self {
        Self {
            scale: (0.3, 1.0),
            aspect: (0.5, 2.0),
            thresholds: vec![0.0, 0.1, 0.3, 0.5, 0.7, 0.9],
            allow_whole: true,
        }
    }
}

impl BoxCrop {
    /// Attempts for each threshold.
    const ATTEMPTS: usize = 50;

    /// The part to cut from a picture of this size; `None` = leave it whole.
    pub fn draw(
        &self,
        (width, height): (usize, usize),
        boxes: &[BBox],
        rng: &mut Rng,
    ) -> Option<Rect> {
        if boxes.is_empty() {
            return None;
        }
        // The one behind the last stands for the whole picture.
        let mut order: Vec<usize> =
            (0..self.thresholds.len() + usize::from(self.allow_whole)).collect();
        rng.shuffle(&mut order);
        for place in order {
            let threshold = *self.thresholds.get(place)?;
            for _ in 0..Self::ATTEMPTS {
                let rect = random_crop_rect(width, height, self.scale, self.aspect, rng);
                let part = BBox::from(rect);
                let best = boxes.iter().map(|b| b.iou(&part)).fold(0.0, f32::max);
                let centred = boxes.iter().any(|b| {
                    let (x, y) = b.centre();
                    x >= part.x1 && y >= part.y1 && x < part.x2 && y < part.y2
                });
                if best >= threshold && centred {
                    return Some(rect);
                }
            }
        }
        None
    }
}

impl<P: Pixels> Transform<P> for BoxCrop {
    fn apply(&self, item: &mut Labeled<P>, rng: &mut Rng) -> Result<(), ImageError> {
        let boxes: Vec<BBox> = item.objects.iter().map(|o| o.bbox).collect();
        match self.draw(item.image.size(), &boxes, rng) {
            Some(rect) => item.crop(rect, Keep::Centred),
            None => Ok(()),
        }
    }
}

/// A random part of at least a share of the area, resized back to the picture's size; up to ten
/// attempts to find one that fits (segmentation).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaleAspect {
    /// Smallest share of the area, 0–1.
    pub min_ratio: f32,
    /// Aspect ratio a: drawn from a to 1/a.
    pub aspect: f32,
}

impl ScaleAspect {
    /// The part of a picture of this size; the whole when none fits.
    pub fn draw(&self, (width, height): (usize, usize), rng: &mut Rng) -> Rect {
        let area = width as f64 * height as f64;
        let aspect = f64::from(self.aspect).clamp(1e-3, 1.0);
        for _ in 0..10 {
            let target = area * rng.uniform(f64::from(self.min_ratio).clamp(1e-3, 1.0), 1.0);
            let ratio = rng.uniform(aspect, 1.0 / aspect);
            let (mut w, mut h) = (
                (target * ratio).sqrt() as usize,
                (target / ratio).sqrt() as usize,
            );
            if rng.chance(0.5) {
                (w, h) = (h, w);
            }
            if (1..width).contains(&w) && (1..height).contains(&h) {
                return Rect {
                    y: rng.below(height - h + 1),
                    x: rng.below(width - w + 1),
                    width: w,
                    height: h,
                };
            }
        }
        Rect {
            x: 0,
            y: 0,
            width,
            height,
        }
    }
}

impl<P: Pixels> Transform<P> for ScaleAspect {
    fn apply(&self, item: &mut Labeled<P>, rng: &mut Rng) -> Result<(), ImageError> {
        let size = item.image.size();
        let rect = self.draw(size, rng);
        item.crop(rect, Keep::Centred)?;
        item.resize(size, Interpolation::Linear)
    }
}

/// A random part of a fixed size; smaller pictures are padded right and bottom first (segmentation).
#[derive(Debug, Clone, PartialEq)]
pub struct PaddingCrop {
    /// Width and height.
    pub to: (usize, usize),
    /// Value of the padding, one a channel (the last repeats).
    pub fill: Vec<f32>,
}

impl<P: Pixels> Transform<P> for PaddingCrop {
    fn apply(&self, item: &mut Labeled<P>, rng: &mut Rng) -> Result<(), ImageError> {
        let (width, height) = item.image.size();
        let y = rng.below(height.saturating_sub(self.to.1) + 1);
        let x = rng.below(width.saturating_sub(self.to.0) + 1);
        // Cut first: less to copy, and the same, because padding lies right and below only.
        let rect = Rect {
            x,
            y,
            width: self.to.0.min(width),
            height: self.to.1.min(height),
        };
        item.crop(rect, Keep::Touching)?;
        if item.image.size() == self.to {
            return Ok(());
        }
        item.place(self.to, (0, 0), &self.fill)
    }
}
