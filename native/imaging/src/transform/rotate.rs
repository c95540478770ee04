//! Rotation.

use super::Transform;
use crate::{ImageError, Labeled, Pixels, Rng};

/// A random turn around the centre.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotate {
    /// Largest angle to either side, degrees.
    pub range: f32,
    /// Chance, 0–1.
    pub prob: f32,
    /// Whether the canvas grows until it holds the whole turned picture (segmentation), or the corners
    /// are cut off (classification).
    pub grow: bool,
    /// Value outside the picture, one a channel (the last repeats).
    pub fill: Vec<f32>,
}

impl<P: Pixels> Transform<P> for Rotate {
    fn apply(&self, item: &mut Labeled<P>, rng: &mut Rng) -> Result<(), ImageError> {
        let (acts, turn) = (rng.chance(self.prob), rng.uniform(-1.0, 1.0));
        if !acts {
            return Ok(());
        }
        let degrees = turn * f64::from(self.range.abs().min(180.0));
        item.rotate(degrees, self.grow, &self.fill)
    }
}
