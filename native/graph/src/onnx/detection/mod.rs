//! Post-processing of detectors as ONNX nodes: the exported file alone gives final boxes.
//!
//! Beside the image the file takes `size`, fp32 [4]: height and width of the stored picture, then height and width
//! of its image within the network's input (the rest is padding). It gives, surest first, for one image:
//!
//! | output | shape | |
//! |---|---|---|
//! | `boxes` | M×4 | left, top, right, bottom in pixels of the stored picture |
//! | `scores` | M | |
//! | `labels` | M, int64 | class ids |
//! | `masks` | M×s×s | instance segmentation: probabilities over the box, to be spread over it with bilinear interpolation (pixels from 0.5 on are the object's) |

mod choice;
mod one_stage;
mod ops;
mod two_stage;

use super::lower::{INT64, Lowering};
use super::proto::ValueInfoProto;
use super::{fixed, typed_info, value_info};
use crate::{Graph, GraphError, Head};
use ops::Tail;
pub(super) use two_stage::TwoStage;

/// Input with the sizes of the picture.
pub const SIZE: &str = "size";
/// Boxes of the detections.
pub const BOXES: &str = "boxes";
/// Their scores.
pub const SCORES: &str = "scores";
/// Their class ids.
pub const LABELS: &str = "labels";

/// Their masks.
pub const MASKS: &str = "masks";

/// Appends the post-processing of `head`, of a two-stage detector what is left of it; `names[i]` is the value of the
/// graph's output `i`. Returns the further input and the outputs.
///
/// # Errors
/// A graph whose outputs are not those of its head.
pub(super) fn append(
    lowering: &mut Lowering,
    graph: &Graph,
    head: &Head,
    names: &[String],
    image_size: [usize; 2],
    stages: Option<TwoStage>,
) -> Result<(ValueInfoProto, Vec<ValueInfoProto>), GraphError> {
    let mut masks = None;
    if let (Some(stages), Head::TwoStage(head)) = (stages, head) {
        masks = head.mask_size;
        stages.finish(lowering)?;
    } else {
        let mut tail = Tail::new(lowering, image_size);
        let candidates = match head {
            Head::Yolo(yolo) => one_stage::yolo(&mut tail, yolo, names),
            Head::Pico(pico) => one_stage::pico(&mut tail, pico, names),
            Head::TwoStage(_) => None,
        };
        let candidates = candidates.ok_or_else(|| GraphError::Export {
            graph: graph.name.clone(),
            reason: "its outputs are not those that its head describes".to_owned(),
        })?;
        choice::detections(&mut tail, head.suppression(), &candidates);
    }
    let input = value_info(SIZE.to_owned(), vec![fixed(4)]);
    let count = || super::dimension(None, "detections");
    let mut outputs = vec![
        value_info(BOXES.to_owned(), vec![count(), fixed(4)]),
        value_info(SCORES.to_owned(), vec![count()]),
        typed_info(LABELS.to_owned(), INT64, vec![count()]),
    ];
    if let Some(side) = masks {
        let dims = vec![count(), fixed(side), fixed(side)];
        outputs.push(value_info(MASKS.to_owned(), dims));
    }
    Ok((input, outputs))
}

/// All boxes of an image before the choice.
struct Candidates {
    /// 1×T×4, pixels of the stored picture.
    boxes: String,
    /// 1×classes×T; 0 for boxes that are out.
    scores: String,
    /// T.
    count: usize,
    /// Number of classes.
    classes: usize,
}
