//! From the scores of all classes for all boxes to the detections of an image.

use crate::nms::{iou, suppressed};

/// What is chosen; of PaddleDetection's `multiclass_nms` and `matrix_nms`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Selection {
    /// Only greater scores count.
    pub score_threshold: f32,
    /// Surest boxes of a class that are looked at.
    pub candidates: usize,
    /// Most detections of an image.
    pub detections: usize,
    /// A class that is not wanted.
    pub background: Option<usize>,
    /// Whether the edges are pixels that belong to the box (`normalized=False`).
    pub inclusive: bool,
}

/// How matrix NMS lowers the score of a box that overlaps with surer ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decay {
    /// By 1 − overlap.
    Linear,
    /// By exp(−`sigma` · overlap²).
    Gaussian {
        /// The exponent's factor.
        sigma: f32,
    },
}

/// A chosen box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chosen {
    /// Class id.
    pub class: usize,
    /// Which box.
    pub index: usize,
    /// Score, lowered where the method does so.
    pub score: f32,
}

impl Selection {
    fn extra(&self) -> f32 {
        if self.inclusive { 1.0 } else { 0.0 }
    }

    /// The boxes of every class that are looked at, surest first.
    fn candidates<'a>(
        &'a self,
        boxes: &'a [[f32; 4]],
        scores: &'a [f32],
    ) -> impl Iterator<Item = (usize, &'a [f32], Vec<u32>)> {
        let classes = scores.len().checked_div(boxes.len()).unwrap_or(0);
        let rows = scores.chunks(boxes.len().max(1)).take(classes).enumerate();
        rows.filter(|(class, _)| Some(*class) != self.background)
            .map(|(class, row)| {
                // Sorting is what costs: most boxes show nothing.
                let mut order: Vec<u32> = (0..).take(row.len()).collect();
                order.retain(|&i| row[i as usize] > self.score_threshold);
                order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
                order.truncate(self.candidates);
                (class, row, order)
            })
    }

    /// The surest of all, equal scores in the order of classes and boxes.
    fn surest(&self, mut chosen: Vec<Chosen>) -> Vec<Chosen> {
        chosen.sort_by(|a, b| b.score.total_cmp(&a.score));
        chosen.truncate(self.detections);
        chosen
    }
}

/// Greedy suppression within every class, then the surest detections of all, surest first.
///
/// `boxes` are left, top, right and bottom edges; `scores` has a row of `boxes.len()` values for each class,
/// a rest that fills no row is left out. The same boxes as Paddle's `multiclass_nms`, which orders them by
/// class.
pub fn multiclass_nms(
    boxes: &[[f32; 4]],
    scores: &[f32],
    overlap: f32,
    selection: &Selection,
) -> Vec<Chosen> {
    let class = |(class, row, order): (usize, &[f32], Vec<u32>)| {
        let kept = suppressed(boxes, &order, overlap, selection.extra());
        let choose = |i: u32| Chosen {
            class,
            index: i as usize,
            score: row[i as usize],
        };
        kept.into_iter().map(choose).collect::<Vec<_>>()
    };
    let chosen = selection.candidates(boxes, scores).flat_map(class);
    selection.surest(chosen.collect())
}

/// Matrix NMS (Wang et al. 2020, "SOLOv2"): no box goes at once, but each score is lowered by the overlap with
/// surer boxes of the class, less where these are lowered themselves; detections whose score stays above
/// `post_threshold`, surest first.
///
/// Arguments as for [`multiclass_nms`]; the same numbers as Paddle's `matrix_nms`. Memory grows with the boxes,
/// not with their pairs.
pub fn matrix_nms(
    boxes: &[[f32; 4]],
    scores: &[f32],
    decay: Decay,
    post_threshold: f32,
    selection: &Selection,
) -> Vec<Chosen> {
    let mut chosen = Vec::new();
    for (class, row, order) in selection.candidates(boxes, scores) {
        let scores = lowered(boxes, row, &order, decay, selection.extra());
        for (&i, score) in order.iter().zip(scores) {
            if score > post_threshold {
                chosen.push(Chosen {
                    class,
                    index: i as usize,
                    score,
                });
            }
        }
    }
    selection.surest(chosen)
}

/// The lowered scores of the boxes in `order`.
fn lowered(
    boxes: &[[f32; 4]],
    scores: &[f32],
    order: &[u32],
    decay: Decay,
    extra: f32,
) -> Vec<f32> {
    // The greatest overlap of a box with surer ones.
    let mut greatest: Vec<f32> = Vec::with_capacity(order.len());
    let mut result = Vec::with_capacity(order.len());
    for &i in order {
        let own = &boxes[i as usize];
        let (mut most, mut factor) = (0.0_f32, 1.0_f32);
        for (&j, &surer) in order.iter().zip(&greatest) {
            let overlap = iou(own, &boxes[j as usize], extra);
            most = most.max(overlap);
            let lower = match decay {
                Decay::Linear => (1.0 - overlap) / (1.0 - surer),
                Decay::Gaussian { sigma } => ((surer * surer - overlap * overlap) * sigma).exp(),
            };
            // `min` passes over 0/0, which boxes behind equal ones give.
            factor = factor.min(lower);
        }
        greatest.push(most);
        result.push(factor * scores[i as usize]);
    }
    result
}
