//! One value a pixel: label maps and instance masks.

use crate::ImageError;

/// Class id of pixels that neither loss nor metrics count.
pub const IGNORE: u8 = 255;

/// 8-bit values, one a pixel, row by row, no padding. A label map holds class ids (255 = ignored), an
/// instance mask 0 and 1.
#[derive(Clone, PartialEq, Eq)]
pub struct Plane {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plane {}×{}", self.width, self.height)
    }
}

impl Plane {
    /// Wraps values; `data` holds `width·height` bytes, at least one.
    pub fn new(width: usize, height: usize, data: Vec<u8>) -> Result<Self, ImageError> {
        if data.is_empty() || width.checked_mul(height) != Some(data.len()) {
            let text = format!("{} bytes are no {width}×{height} plane", data.len());
            return Err(ImageError::Argument(text));
        }
        Ok(Self {
            width,
            height,
            data,
        })
    }

    /// A plane of one value; sides of 0 become 1.
    pub fn filled(width: usize, height: usize, value: u8) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        Self {
            width,
            height,
            data: vec![value; width * height],
        }
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All values.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// All values, to change.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// Gives the memory away.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// One value; panics outside the plane.
    pub fn value(&self, x: usize, y: usize) -> u8 {
        self.data[y * self.width + x]
    }
}
