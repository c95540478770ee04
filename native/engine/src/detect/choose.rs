//! Which boxes of an image stay.

use oarlock_graph::Suppression;
use oarlock_imaging::{Chosen, Decay, Selection, matrix_nms, multiclass_nms};
use tch::Tensor;

use super::{Detected, device};
use crate::Result;
use crate::exec::download;

/// The boxes of an image that may be something.
#[derive(Debug)]
pub(super) struct Candidates {
    /// K×4, left, top, right and bottom edges in pixels of the stored picture, fp32.
    pub boxes: Tensor,
    /// K×classes, fp32.
    pub scores: Tensor,
}

impl Candidates {
    /// The detections among them, the surest first.
    ///
    /// # Errors
    /// Out of memory.
    pub fn choose(&self, suppression: &Suppression) -> Result<Vec<Detected>> {
        if device::chooses(self.boxes.device()) {
            let boxes = self.boxes.f_unsqueeze(0)?;
            return device::choose(&boxes, &self.scores.f_tr()?, suppression);
        }
        let boxes = download(&self.boxes)?.data;
        let boxes = boxes.as_chunks::<4>().0;
        let scores = download(&self.scores.f_tr()?)?.data;
        let detection = |c: Chosen| Detected {
            class: c.class,
            score: c.score,
            bbox: boxes[c.index],
            mask: None,
        };
        let chosen = chosen(boxes, &scores, suppression);
        Ok(chosen.into_iter().map(detection).collect())
    }

    /// Those of each image, from those of all together with the places of their images (K).
    ///
    /// # Errors
    /// Out of memory.
    pub fn by_image(
        images: usize,
        places: &Tensor,
        boxes: &Tensor,
        scores: &Tensor,
    ) -> Result<Vec<Self>> {
        let one = |image: usize| -> Result<Self> {
            let rows = places.f_eq(image as i64)?.f_nonzero()?.f_squeeze_dim(1)?;
            Ok(Self {
                boxes: boxes.f_index_select(0, &rows)?,
                scores: scores.f_index_select(0, &rows)?,
            })
        };
        (0..images).map(one).collect()
    }
}

fn chosen(boxes: &[[f32; 4]], scores: &[f32], suppression: &Suppression) -> Vec<Chosen> {
    let selection = |score, candidates: Option<usize>, detections, inclusive| Selection {
        score_threshold: score,
        candidates: candidates.unwrap_or(usize::MAX),
        detections,
        background: None,
        inclusive,
    };
    match *suppression {
        Suppression::Nms {
            score,
            overlap,
            candidates,
            detections,
        } => {
            let selection = selection(score, candidates, detections, false);
            multiclass_nms(boxes, scores, overlap, &selection)
        }
        Suppression::Matrix {
            score,
            post,
            sigma,
            candidates,
            detections,
        } => {
            let decay = sigma.map_or(Decay::Linear, |sigma| Decay::Gaussian { sigma });
            // PaddleX has the edges of these boxes as pixels that belong to them.
            let selection = selection(score, candidates, detections, true);
            matrix_nms(boxes, scores, decay, post, &selection)
        }
    }
}
