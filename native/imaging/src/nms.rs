//! Non-maximum suppression: of boxes that show the same thing, the surest one stays.

use crate::simd::vectorised;

/// Boxes in columns, surest first: left, top, right, bottom edge and area.
struct Columns {
    edges: [Vec<f32>; 4],
    area: Vec<f32>,
    /// Not 0 for boxes that are suppressed.
    gone: Vec<u32>,
    /// Which box it was.
    index: Vec<u32>,
}

/// Pixels that a box is larger than the distance of its edges: 1 where the edges are pixels that belong to it.
pub(crate) type Extra = f32;

impl Columns {
    fn new(boxes: &[[f32; 4]], order: &[u32], extra: Extra) -> Self {
        let column = |side: usize| order.iter().map(|&i| boxes[i as usize][side]).collect();
        let area = |&i: &u32| area(&boxes[i as usize], extra);
        Self {
            edges: [column(0), column(1), column(2), column(3)],
            area: order.iter().map(area).collect(),
            gone: vec![0; order.len()],
            index: order.to_vec(),
        }
    }

    /// Drops all boxes before `start` and the suppressed ones.
    fn compact(&mut self, start: usize) {
        let mut kept = 0;
        for i in start..self.gone.len() {
            if self.gone[i] == 0 {
                for column in self.edges.iter_mut().chain([&mut self.area]) {
                    column[kept] = column[i];
                }
                self.index[kept] = self.index[i];
                kept += 1;
            }
        }
        for column in self.edges.iter_mut().chain([&mut self.area]) {
            column.truncate(kept);
        }
        self.index.truncate(kept);
        self.gone.clear();
        self.gone.resize(kept, 0);
    }
}

fn area(b: &[f32; 4], extra: Extra) -> f32 {
    (b[2] - b[0] + extra) * (b[3] - b[1] + extra)
}

/// Comparisons that are one instruction each; `f32::min` looks for numbers that are none.
#[inline(always)]
fn least(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn most(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Length that two ranges share.
#[inline(always)]
fn shared(a: (f32, f32), b: (f32, f32), extra: Extra) -> f32 {
    let length = least(a.1, b.1) - most(a.0, b.0);
    if length < 0.0 { 0.0 } else { length + extra }
}

vectorised! {
    /// Marks the boxes that overlap with `own` by more than `overlap`; all columns have one length.
    fn suppress(
        own: [f32; 4], own_area: f32, edges: [&[f32]; 4], area: &[f32], gone: &mut [u32],
        overlap: f32, extra: f32,
    ) {
        let count = gone.len();
        let [left, top, right, bottom] = edges.map(|e| &e[..count]);
        let area = &area[..count];
        for i in 0..count {
            let width = shared((own[0], own[2]), (left[i], right[i]), extra);
            let height = shared((own[1], own[3]), (top[i], bottom[i]), extra);
            let both = width * height;
            gone[i] |= u32::from(both / (own_area + area[i] - both) > overlap);
        }
    }
}

/// Intersection over union of boxes by their edges.
pub(crate) fn iou(a: &[f32; 4], b: &[f32; 4], extra: Extra) -> f32 {
    let width = shared((a[0], a[2]), (b[0], b[2]), extra);
    let height = shared((a[1], a[3]), (b[1], b[3]), extra);
    let both = width * height;
    both / (area(a, extra) + area(b, extra) - both)
}

/// Places of scores that are numbers, highest first, equal ones in their order.
pub(crate) fn by_score(scores: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..)
        .zip(scores)
        .filter(|(_, s)| !s.is_nan())
        .map(|(i, _)| i)
        .collect();
    order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
    order
}

/// The greedy algorithm on boxes in `order`.
pub(crate) fn suppressed(
    boxes: &[[f32; 4]],
    order: &[u32],
    overlap: f32,
    extra: Extra,
) -> Vec<u32> {
    /// Kept boxes between two clean-ups of those that are gone.
    const ROUND: usize = 64;
    let mut columns = Columns::new(boxes, order, extra);
    let mut kept = Vec::new();
    while !columns.gone.is_empty() {
        let mut round = 0;
        let mut at = 0;
        while at < columns.gone.len() && round < ROUND {
            if columns.gone[at] == 0 {
                kept.push(columns.index[at]);
                round += 1;
                let own = [0, 1, 2, 3].map(|side| columns.edges[side][at]);
                let [left, top, right, bottom] = &columns.edges;
                let rest = [left, top, right, bottom].map(|column| &column[at + 1..]);
                let (area, gone) = (&columns.area, &mut columns.gone[at + 1..]);
                suppress(own, area[at], rest, &area[at + 1..], gone, overlap, extra);
            }
            at += 1;
        }
        columns.compact(at);
    }
    kept
}

/// Greedy non-maximum suppression: places of the boxes that stay, surest first.
///
/// `boxes` are left, top, right and bottom edges, as many as `scores`; what one has more of is left out. A box
/// goes when it overlaps by more than `overlap` (intersection over union) with a surer one that stays.
/// Equal scores count in their order; boxes whose score is no number go. The same numbers as
/// `torchvision.ops.nms`.
pub fn nms(boxes: &[[f32; 4]], scores: &[f32], overlap: f32) -> Vec<usize> {
    let order = by_score(&scores[..scores.len().min(boxes.len())]);
    let kept = suppressed(boxes, &order, overlap, 0.0);
    kept.into_iter().map(|i| i as usize).collect()
}

/// [`nms`] among the boxes of each class: places of all that stay, surest first
/// (`torchvision.ops.batched_nms`).
pub fn nms_by_class(
    boxes: &[[f32; 4]],
    scores: &[f32],
    classes: &[u32],
    overlap: f32,
) -> Vec<usize> {
    let count = scores.len().min(boxes.len()).min(classes.len());
    let order = by_score(&scores[..count]);
    let mut rank = vec![0; count];
    for (place, &i) in (0u32..).zip(&order) {
        rank[i as usize] = place;
    }
    let mut grouped = order;
    grouped.sort_by_key(|&i| classes[i as usize]);
    let mut kept: Vec<u32> = grouped
        .chunk_by(|&a, &b| classes[a as usize] == classes[b as usize])
        .flat_map(|class| suppressed(boxes, class, overlap, 0.0))
        .collect();
    kept.sort_unstable_by_key(|&i| rank[i as usize]);
    kept.into_iter().map(|i| i as usize).collect()
}
