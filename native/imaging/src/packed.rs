//! Rows of 8-bit pixels without padding: pictures and label maps.

use crate::ImageError;

/// 8-bit pixels of `C` values, row by row, no padding: an [`crate::Image`] or a [`crate::Plane`].
#[derive(Clone, PartialEq, Eq)]
pub struct Packed<const C: usize> {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) data: Vec<u8>,
}

impl<const C: usize> std::fmt::Debug for Packed<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if C == 1 { "Plane" } else { "Image" };
        write!(f, "{name} {}×{}", self.width, self.height)
    }
}

impl<const C: usize> Packed<C> {
    /// Wraps pixels; `data` holds `width·height·C` bytes, at least one pixel.
    pub fn new(width: usize, height: usize, data: Vec<u8>) -> Result<Self, ImageError> {
        let wanted = width.checked_mul(height).and_then(|n| n.checked_mul(C));
        if data.is_empty() || wanted != Some(data.len()) {
            let (bytes, what) = (data.len(), if C == 1 { "plane" } else { "RGB image" });
            let text = format!("{bytes} bytes are no {width}×{height} {what}");
            return Err(ImageError::Argument(text));
        }
        Ok(Self {
            width,
            height,
            data,
        })
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
}
