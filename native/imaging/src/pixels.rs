//! What transforms need of a picture, whatever its samples are.

use crate::packed::Packed;
use crate::view::{Change, View};
use crate::{ImageError, Raster, Rect, Samples};

/// A picture that can be changed: 8-bit RGB, a multi-channel array, or labels.
pub trait Pixels: Clone + Send + Sync {
    /// Width and height.
    fn size(&self) -> (usize, usize);

    /// The changed picture. Errors: an empty target size.
    fn changed(&self, change: &Change) -> Result<Self, ImageError>;

    /// The whole as a rectangle.
    fn whole(&self) -> Rect {
        let (width, height) = self.size();
        Rect {
            x: 0,
            y: 0,
            width,
            height,
        }
    }
}

/// Pictures as asked; planes (labels) always by the nearest neighbour and never blurred.
impl<const C: usize> Pixels for Packed<C> {
    fn size(&self) -> (usize, usize) {
        (self.width(), self.height())
    }

    fn changed(&self, change: &Change) -> Result<Self, ImageError> {
        let view = View {
            width: self.width(),
            height: self.height(),
            channels: C,
            data: self.data(),
        };
        let (width, height, data) = view.apply(change, C == 1)?;
        Self::new(width, height, data)
    }
}

impl Pixels for Raster {
    fn size(&self) -> (usize, usize) {
        (self.width(), self.height())
    }

    fn changed(&self, change: &Change) -> Result<Self, ImageError> {
        let (width, height, channels) = (self.width(), self.height(), self.channels());
        macro_rules! run {
            ($kind:path, $data:expr) => {{
                let view = View {
                    width,
                    height,
                    channels,
                    data: $data,
                };
                let (w, h, data) = view.apply(change, false)?;
                Self::new(w, h, channels, $kind(data))
            }};
        }
        match self.samples() {
            Samples::U8(data) => run!(Samples::U8, data),
            Samples::U16(data) => run!(Samples::U16, data),
            Samples::F32(data) => run!(Samples::F32, data),
        }
    }
}
