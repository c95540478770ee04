//! The one image type: 8-bit RGB rows without padding.

use crate::packed::Packed;
use crate::pool;

/// 8-bit RGB pixels, row by row, no padding.
pub type Image = Packed<3>;

impl Image {
    /// An image of one colour; sides of 0 become 1.
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        let mut data = vec![0; width * height * 3];
        if colour != [0; 3] {
            data.chunks_exact_mut(3)
                .for_each(|p| p.copy_from_slice(&colour));
        }
        Self {
            width,
            height,
            data,
        }
    }

    /// An image of any content, in memory that this thread has at hand; sides of 0 become 1.
    pub fn of_any_content(width: usize, height: usize) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        Self {
            width,
            height,
            data: pool::take(width * height * 3),
        }
    }

    /// Gives memory beyond the pixels back, for a picture that is kept.
    pub fn shrink(&mut self) {
        self.data.shrink_to_fit();
    }

    /// Keeps the memory for the next picture that this thread decodes or resizes.
    pub fn recycle(self) {
        pool::give(self.data);
    }

    /// One row.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.width * 3..(y + 1) * self.width * 3]
    }

    /// One row, to change.
    pub fn row_mut(&mut self, y: usize) -> &mut [u8] {
        let stride = self.width * 3;
        &mut self.data[y * stride..(y + 1) * stride]
    }

    /// One pixel; panics outside the image.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        [self.data[at], self.data[at + 1], self.data[at + 2]]
    }

    /// A copy of the part that `rect` shares with the image; at least one pixel.
    pub fn crop(&self, rect: crate::Rect) -> Self {
        let rect = rect.clamped(self.width, self.height);
        if rect.width == self.width && rect.height == self.height {
            return self.clone();
        }
        let mut data = pool::take(0);
        data.reserve(rect.width * rect.height * 3);
        for y in rect.y..rect.y + rect.height {
            data.extend_from_slice(&self.row(y)[rect.x * 3..(rect.x + rect.width) * 3]);
        }
        Self {
            width: rect.width,
            height: rect.height,
            data,
        }
    }

    /// Copies `other` into this image with its top left corner at (x, y); what lies outside is cut.
    pub fn paste(&mut self, other: &Self, x: usize, y: usize) {
        if x >= self.width {
            return;
        }
        let width = other.width.min(self.width - x);
        for row in 0..other.height.min(self.height.saturating_sub(y)) {
            let from = &other.row(row)[..width * 3];
            self.row_mut(y + row)[x * 3..(x + width) * 3].copy_from_slice(from);
        }
    }
}
