//! One value a pixel: label maps and instance masks.

use crate::packed::Packed;

/// Class id of pixels that neither loss nor metrics count.
pub const IGNORE: u8 = 255;

/// 8-bit values, one a pixel, row by row, no padding. A label map holds class ids (255 = ignored), an
/// instance mask 0 and 1.
pub type Plane = Packed<1>;

impl Plane {
    /// A plane of one value; sides of 0 become 1.
    pub fn filled(width: usize, height: usize, value: u8) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        Self {
            width,
            height,
            data: vec![value; width * height],
        }
    }

    /// One value; panics outside the plane.
    pub fn value(&self, x: usize, y: usize) -> u8 {
        self.data[y * self.width + x]
    }
}
