//! Which boxes of an image stay.

use oarlock_graph::Suppression;
use oarlock_imaging::{Chosen, Decay, Selection, matrix_nms, multiclass_nms};

use super::Detected;

/// The boxes of an image that may be something.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Candidates {
    /// Left, top, right and bottom edges in pixels of the stored picture.
    pub boxes: Vec<[f32; 4]>,
    /// The scores of all classes for each box, box after box.
    pub scores: Vec<f32>,
}

impl Candidates {
    /// The detections among them, the surest first.
    pub fn choose(&self, classes: usize, suppression: &Suppression) -> Vec<Detected> {
        let scores = rows(&self.scores, classes);
        let chosen = chosen(&self.boxes, &scores, suppression);
        chosen
            .into_iter()
            .map(|c| Detected {
                class: c.class,
                score: c.score,
                bbox: self.boxes[c.index],
                mask: None,
            })
            .collect()
    }
}

/// Boxes × classes to classes × boxes.
fn rows(scores: &[f32], classes: usize) -> Vec<f32> {
    let boxes = scores.len().checked_div(classes).unwrap_or(0);
    let mut rows = vec![0.0; boxes * classes];
    for (i, of_box) in scores.chunks_exact(classes.max(1)).enumerate() {
        for (class, &score) in of_box.iter().enumerate() {
            rows[class * boxes + i] = score;
        }
    }
    rows
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
