//! Flips and blur.

use super::Transform;
use crate::{ImageError, Labeled, Pixels, Rng};

/// Random mirroring.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flip {
    /// Chance of left to right, 0–1.
    pub horizontal: f32,
    /// Chance of upside down, 0–1.
    pub vertical: f32,
}

impl<P: Pixels> Transform<P> for Flip {
    fn apply(&self, item: &mut Labeled<P>, rng: &mut Rng) -> Result<(), ImageError> {
        let (horizontal, vertical) = (rng.chance(self.horizontal), rng.chance(self.vertical));
        if horizontal {
            item.flip_horizontal()?;
        }
        if vertical {
            item.flip_vertical()?;
        }
        Ok(())
    }
}

/// Gaussian blur with a random odd kernel of 3–9 pixels, picture only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blur {
    /// Chance, 0–1.
    pub prob: f32,
}

impl<P: Pixels> Transform<P> for Blur {
    fn apply(&self, item: &mut Labeled<P>, rng: &mut Rng) -> Result<(), ImageError> {
        let (acts, kernel) = (rng.chance(self.prob), 3 + 2 * rng.below(4));
        if acts { item.blur(kernel) } else { Ok(()) }
    }
}
