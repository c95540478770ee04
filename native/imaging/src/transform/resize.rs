//! Resizing and padding to the sizes that networks take.

use super::Transform;
use crate::{ImageError, Interpolation, Labeled, Pixels, Rng, short_side_size};

/// To a width and height, shape not kept; with several interpolations one is drawn each time.
#[derive(Debug, Clone, PartialEq)]
pub struct Resize {
    /// Width and height.
    pub to: (usize, usize),
    /// One of these; none = linear.
    pub interpolations: Vec<Interpolation>,
}

impl<P: Pixels> Transform<P> for Resize {
    fn apply(&self, item: &mut Labeled<P>, rng: &mut Rng) -> Result<(), ImageError> {
        let drawn = rng.below(self.interpolations.len().max(1));
        let how = self.interpolations.get(drawn).copied();
        item.resize(self.to, how.unwrap_or(Interpolation::Linear))
    }
}

/// Short side to a length, shape kept; unless the long side then exceeded its cap, which counts instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResizeByShort {
    /// Length of the short side.
    pub short: usize,
    /// Largest length of the long side, if there is one.
    pub long_cap: Option<usize>,
    /// How.
    pub interpolation: Interpolation,
}

impl ResizeByShort {
    /// (width, height) of the result for a picture of this size; sides are rounded to even at .5.
    pub fn size(&self, width: usize, height: usize) -> (usize, usize) {
        let (short, long) = (width.min(height).max(1), width.max(height).max(1));
        match self.long_cap {
            Some(cap) if long as f64 * self.short as f64 / short as f64 > cap as f64 => {
                by_long(width, height, cap)
            }
            _ => short_side_size(width, height, self.short),
        }
    }
}

impl<P: Pixels> Transform<P> for ResizeByShort {
    fn apply(&self, item: &mut Labeled<P>, _: &mut Rng) -> Result<(), ImageError> {
        let (width, height) = item.image.size();
        item.resize(self.size(width, height), self.interpolation)
    }
}

/// Long side to a length, shape kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResizeByLong {
    /// Length of the long side.
    pub long: usize,
    /// How.
    pub interpolation: Interpolation,
}

fn by_long(width: usize, height: usize, long: usize) -> (usize, usize) {
    let scale = long as f64 / width.max(height).max(1) as f64;
    let side = |length: usize| ((length as f64 * scale).round_ties_even() as usize).max(1);
    (side(width), side(height))
}

impl<P: Pixels> Transform<P> for ResizeByLong {
    fn apply(&self, item: &mut Labeled<P>, _: &mut Rng) -> Result<(), ImageError> {
        let (width, height) = item.image.size();
        item.resize(by_long(width, height, self.long), self.interpolation)
    }
}

/// As large as fits into a size with the shape kept, centred, the rest filled.
#[derive(Debug, Clone, PartialEq)]
pub struct Letterbox {
    /// Width and height.
    pub to: (usize, usize),
    /// Value around the picture, one a channel (the last repeats).
    pub fill: Vec<f32>,
    /// How.
    pub interpolation: Interpolation,
}

impl<P: Pixels> Transform<P> for Letterbox {
    fn apply(&self, item: &mut Labeled<P>, _: &mut Rng) -> Result<(), ImageError> {
        let (width, height) = item.image.size();
        let (w, h) = (width as f64, height as f64);
        let scale = (self.to.0 as f64 / w).min(self.to.1 as f64 / h);
        let side = |length: f64, to: usize| ((length * scale).round() as usize).clamp(1, to.max(1));
        let inner = (side(w, self.to.0), side(h, self.to.1));
        item.resize(inner, self.interpolation)?;
        let free = (
            self.to.0.saturating_sub(inner.0),
            self.to.1.saturating_sub(inner.1),
        );
        item.place(self.to, (free.0 / 2, free.1 / 2), &self.fill)
    }
}

/// Right and bottom padded until both sides are multiples of a number.
#[derive(Debug, Clone, PartialEq)]
pub struct PadToMultiple {
    /// The number, e.g. 32.
    pub of: usize,
    /// Value of the padding, one a channel (the last repeats).
    pub fill: Vec<f32>,
}

impl<P: Pixels> Transform<P> for PadToMultiple {
    fn apply(&self, item: &mut Labeled<P>, _: &mut Rng) -> Result<(), ImageError> {
        let (width, height) = item.image.size();
        let up = |side: usize| side.next_multiple_of(self.of.max(1));
        item.place((up(width), up(height)), (0, 0), &self.fill)
    }
}
