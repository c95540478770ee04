//! Zooming out.

use super::Transform;
use crate::{ImageError, Labeled, Pixels, Rng};

/// Puts the picture at a random place of a canvas up to `ratio` times as long a side, so that small
/// objects become smaller still (SSD's zoom out).
#[derive(Debug, Clone, PartialEq)]
pub struct Expand {
    /// Largest canvas side, in sides of the picture (4).
    pub ratio: f32,
    /// Chance, 0–1.
    pub prob: f32,
    /// Value around the picture, one a channel: the mean colour.
    pub fill: Vec<f32>,
}

/// Canvas size and the picture's place on it.
pub fn random_expansion(
    (width, height): (usize, usize),
    ratio: f32,
    rng: &mut Rng,
) -> ((usize, usize), (usize, usize)) {
    let ratio = rng.uniform(1.0, f64::from(ratio.max(1.0)));
    let side = |length: usize| ((length as f64 * ratio) as usize).max(length);
    let canvas = (side(width), side(height));
    let y = rng.below(canvas.1 - height + 1);
    let x = rng.below(canvas.0 - width + 1);
    (canvas, (x, y))
}

impl<P: Pixels> Transform<P> for Expand {
    fn apply(&self, item: &mut Labeled<P>, rng: &mut Rng) -> Result<(), ImageError> {
        let acts = rng.chance(self.prob);
        let (canvas, at) = random_expansion(item.image.size(), self.ratio, rng);
        if acts {
            item.place(canvas, at, &self.fill)?;
        }
        Ok(())
    }
}
