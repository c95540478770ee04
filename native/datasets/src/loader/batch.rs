//! What the loader hands over.

use std::path::PathBuf;

use oarlock_imaging::fill_rgb;

use super::buffer::Buffer;
use super::slot::Own;
use crate::pipeline::{Depth, Layout, Size};

/// Images of one training or evaluation step.
#[derive(Debug)]
pub struct Batch<T> {
    /// Number of this batch in the epoch, from 0; resume behind it with `start_batch = index + 1`.
    pub index: usize,
    /// `n·h·w·channels` samples, channels last; 8-bit RGB for all but remote sensing, see [`Depth`].
    pub images: Buffer,
    /// `n·h·w` class ids, 255 = ignored; empty where the task has no label maps.
    pub maps: Vec<u8>,
    /// Images in it, at least 1; fewer than `batch_size` when some were skipped or at the end.
    pub n: usize,
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
    /// Values of one pixel.
    pub channels: usize,
    /// Kind of these values.
    pub depth: Depth,
    /// What belongs to each image: class id, boxes.
    pub targets: Vec<T>,
    /// Place of each image in `LoaderConfig::samples`.
    pub indices: Vec<usize>,
    /// Images left out because they cannot be read, with the reason. A batch that would be empty is
    /// not delivered; its skipped images are told by the next one.
    pub skipped: Vec<(PathBuf, String)>,
}

/// Height, width and memory of a batch.
pub(super) struct Pixels {
    pub h: usize,
    pub w: usize,
    pub images: Buffer,
}

/// The images as one block: as they are, or padded to the largest.
pub(super) fn assemble(
    layout: &Layout,
    images: Buffer,
    own: &[Own],
    memory: impl FnOnce(usize) -> Buffer,
) -> Pixels {
    let (multiple, fill) = match layout.size {
        Size::Fixed { height, width, .. } => {
            return Pixels {
                h: height,
                w: width,
                images,
            };
        }
        Size::Largest { multiple, fill } => (multiple, fill),
    };
    let largest = |side: fn(&Own) -> usize| own.iter().map(side).max().unwrap_or(0);
    let h = largest(|o| o.height).next_multiple_of(multiple);
    let w = largest(|o| o.width).next_multiple_of(multiple);
    let mut images = memory(own.len() * h * w * 3);
    for (own, out) in own.iter().zip(images.chunks_exact_mut((h * w * 3).max(1))) {
        let stride = own.width * 3;
        if (own.height, own.width) != (h, w) {
            fill_rgb(out, w, fill);
        }
        let rows = out.chunks_exact_mut(w * 3);
        for (row, source) in rows.zip(own.bytes.chunks_exact(stride.max(1))) {
            row[..stride].copy_from_slice(source);
        }
    }
    Pixels { h, w, images }
}
