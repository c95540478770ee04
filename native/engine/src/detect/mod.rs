//! From the outputs of a detector to boxes and masks in the stored picture.

pub(crate) mod anchors;
pub(crate) mod boxes;
mod choose;
mod device;
#[cfg(test)]
mod device_tests;
pub(crate) mod pico;
pub(crate) mod proposals;
pub(crate) mod two_stage;
mod yolo;

pub(crate) use two_stage::to_the_end;

use oarlock_graph::Head;
use oarlock_imaging::Rle;
use oarlock_jobs::ErrorCode;
use tch::{Kind, Tensor};

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
    let Some(head) = &network.graph().head else {
        return Err(EngineError::new(
            ErrorCode::Unsupported,
            "the network is no detector",
        ));
    };
    if let Head::TwoStage(head) = head {
        return two_stage::detect(network, head, input, frames);
    }
    let (images, _, height, width) = input.size4()?;
    if images != frames.len() as i64 {
        return Err(EngineError::internal("each image needs its frame"));
    }
    let outputs = network.forward_all(input, false)?;
    detect_in(head, &outputs, (height as usize, width as usize), frames)
}

/// [`detect`] from the outputs of a one-stage detector on; `input` is height and width of its input.
///
/// # Errors
/// As [`detect`].
pub fn detect_in(
    head: &Head,
    outputs: &[Tensor],
    input: (usize, usize),
    frames: &[Frame],
) -> Result<Vec<Vec<Detected>>> {
    let _guard = tch::no_grad_guard();
    let outputs = finite(outputs)?;
    let candidates = match head {
        Head::Yolo(head) => yolo::candidates(head, &outputs, input, frames)?,
        Head::Pico(head) => pico::candidates(head, &outputs, frames)?,
        Head::TwoStage(_) => return Err(EngineError::internal("not a one-stage detector")),
    };
    candidates
        .iter()
        .map(|image| image.choose(head.suppression()))
        .collect()
}

/// The outputs as fp32.
///
/// # Errors
/// `NonFinite` when one holds NaN or an infinity.
fn finite(outputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let outputs = outputs.iter().map(|o| Ok(o.f_to_kind(Kind::Float)?));
    let outputs = outputs.collect::<Result<Vec<_>>>()?;
    for output in &outputs {
        // A sum is finite only where all values are; one that overflows is of no use either.
        if !output.f_sum(Kind::Float)?.f_double_value(&[])?.is_finite() {
            return Err(EngineError::new(
                ErrorCode::NonFinite,
                "the network gives NaN on an image",
            )
            .hint("lower learning_rate or add warmup_steps; earlier checkpoints are kept"));
        }
    }
    Ok(outputs)
}
