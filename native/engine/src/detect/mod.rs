//! From the outputs of a detector to boxes and masks in the stored picture.

pub(crate) mod anchors;
pub(crate) mod boxes;
mod paste;
pub(crate) mod proposals;
pub(crate) mod two_stage;

use oarlock_graph::Head;
use oarlock_imaging::Rle;
use oarlock_jobs::ErrorCode;
use tch::Tensor;

use crate::exec::Network;
use crate::{EngineError, Result};

/// How a picture lies in a network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Width and height of the stored picture.
    pub full: (usize, usize),
    /// Width and height of its image in the input, from the top left corner on; the rest is padding.
    pub shown: (usize, usize),
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Detected {
    /// Class id.
    pub class: usize,
    /// Confidence, 0 to 1.
    pub score: f32,
    /// Left, top, right and bottom edges in pixels of the stored picture, within it.
    pub bbox: [f32; 4],
    /// Its pixels in the stored picture, where the network predicts them.
    pub mask: Option<Rle>,
}

/// What an inference network finds in a batch, for each image the surest first.
///
/// `input` is N×3×h×w as made by [`crate::exec::network_input`], with one frame for each image.
///
/// # Errors
/// `NonFinite` when the network gives NaN; `Unsupported` when it is no detector; out of memory.
pub fn detect(network: &Network, input: &Tensor, frames: &[Frame]) -> Result<Vec<Vec<Detected>>> {
    let what = match &network.graph().head {
        None => "the network is no detector".to_owned(),
        Some(Head::TwoStage(head)) => return two_stage::detect(network, head, input, frames),
        Some(Head::Yolo(_) | Head::Pico(_)) => "its outputs cannot be decoded yet".to_owned(),
    };
    Err(EngineError::new(ErrorCode::Unsupported, what))
}
