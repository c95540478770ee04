//! Random and fixed changes of a picture together with its boxes, polygons, masks and label map.
//!
//! A transform draws all its random numbers from the given stream, whether it acts or not, as far as
//! their number is known beforehand; the same stream gives the same result everywhere.

mod crop;
mod distort;
mod expand;
mod flip;
mod mix;
mod resize;
mod rotate;
mod stretch;

use crate::{ImageError, Labeled, Pixels, Rng};

pub use crop::{BoxCrop, PaddingCrop, ScaleAspect, ScaledCrop};
pub use distort::{ColourKind, Distort, Drawn, Jitter};
pub use expand::{Expand, random_expansion};
pub use flip::{Blur, Flip};
pub use mix::mixup;
pub use resize::{Letterbox, PadToMultiple, Resize, ResizeByLong, ResizeByShort};
pub use rotate::Rotate;
pub use stretch::{Clip, Stretch};

/// A change of a picture with its annotations.
pub trait Transform<P: Pixels = crate::Image> {
    /// Changes `item`. Errors: sizes of 0, channels that are not there.
    fn apply(&self, item: &mut Labeled<P>, rng: &mut Rng) -> Result<(), ImageError>;
}

/// Applies one transform after the other.
pub fn apply_all<P: Pixels>(
    transforms: &[&dyn Transform<P>],
    item: &mut Labeled<P>,
    rng: &mut Rng,
) -> Result<(), ImageError> {
    transforms.iter().try_for_each(|t| t.apply(item, rng))
}
