//! Which points are to predict a thing (Ge et al. 2021, "YOLOX", section 2.3), with PicoDet's costs: varifocal loss plus
//! six times the loss of generalised overlap.
//!
//! Where PaddleX adds 10⁸ to the cost of points outside a thing or far from its middle, such points come after all others
//! here: single precision would round their own costs away.

use std::cmp::Ordering;

/// Half the side of the square around a thing's middle, in strides.
const RADIUS: f32 = 2.5;
/// Best overlaps whose sum is the number of points for a thing.
const BEST: usize = 10;
/// Factor of the loss of generalised overlap.
const OVERLAP_COST: f32 = 6.0;
/// Factor of the varifocal loss where nothing is.
const NEGATIVE: f32 = 0.75;
const LEAST_AREA: f32 = 1e-6;
/// Where `ln` is cut off.
const LEAST_LOG: f32 = -100.0;

/// A point of a map in pixels of the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub x: f32,
    pub y: f32,
    pub stride: f32,
}

/// A thing: edges in pixels of the input, class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Thing {
    pub bbox: [f32; 4],
    pub class: usize,
}

/// Points outside a thing cost more than any inside.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cost {
    outside: bool,
    value: f32,
}

impl Cost {
    fn order(&self, other: &Self) -> Ordering {
        self.outside
            .cmp(&other.outside)
            .then(self.value.total_cmp(&other.value))
    }
}

/// What is known of a point while things choose.
#[derive(Clone, Copy)]
struct Claim {
    count: u32,
    /// The thing that chose it.
    by: usize,
    /// The thing it costs least.
    least: (Cost, usize),
}

/// Point and thing of each assignment, in the order of the points. `boxes` and `scores` (`classes` probabilities each)
/// are the predictions of the points.
pub(super) fn assign(
    points: &[Point],
    boxes: &[[f32; 4]],
    scores: &[f32],
    classes: usize,
    things: &[Thing],
) -> Vec<(usize, usize)> {
    if things.is_empty() {
        return Vec::new();
    }
    let inside = |p: &Point| things.iter().any(|t| inside_box(p, t) || near_middle(p, t));
    let valid: Vec<usize> = (0..points.len()).filter(|&i| inside(&points[i])).collect();
    let none = Cost {
        outside: true,
        value: f32::INFINITY,
    };
    let mut claims = vec![
        Claim {
            count: 0,
            by: 0,
            least: (none, 0),
        };
        valid.len()
    ];
    let of_point = |i: usize| &scores[i * classes..(i + 1) * classes];
    let background: Vec<f32> = valid
        .iter()
        .map(|&i| of_point(i).iter().map(|&p| negative_cost(p)).sum())
        .collect();
    for (number, thing) in things.iter().enumerate() {
        let mut overlaps = Vec::with_capacity(valid.len());
        let mut costs = Vec::with_capacity(valid.len());
        for ((&i, background), claim) in valid.iter().zip(&background).zip(&mut claims) {
            let (overlap, giou) = overlap(&boxes[i], &thing.bbox);
            let score = of_point(i)[thing.class];
            let class = background - negative_cost(score) + class_cost(score, overlap);
            let cost = Cost {
                outside: !(inside_box(&points[i], thing) && near_middle(&points[i], thing)),
                value: class + OVERLAP_COST * (1.0 - giou),
            };
            if cost.order(&claim.least.0) == Ordering::Less {
                claim.least = (cost, number);
            }
            overlaps.push(overlap);
            costs.push(cost);
        }
        for place in cheapest(&costs, wanted(overlaps)) {
            claims[place].count += 1;
            claims[place].by = number;
        }
    }
    let claimed = valid.iter().zip(&claims).filter(|(_, c)| c.count > 0);
    claimed
        .map(|(&i, c)| (i, if c.count > 1 { c.least.1 } else { c.by }))
        .collect()
}

fn inside_box(p: &Point, t: &Thing) -> bool {
    let [left, top, right, bottom] = t.bbox;
    p.x > left && p.y > top && p.x < right && p.y < bottom
}

fn near_middle(p: &Point, t: &Thing) -> bool {
    let [left, top, right, bottom] = t.bbox;
    let reach = RADIUS * p.stride;
    (p.x - (left + right) / 2.0).abs() < reach && (p.y - (top + bottom) / 2.0).abs() < reach
}

/// Number of points for a thing: the sum of its best overlaps, at least one.
fn wanted(mut overlaps: Vec<f32>) -> usize {
    overlaps.sort_unstable_by(|a, b| b.total_cmp(a));
    (overlaps.iter().take(BEST).sum::<f32>() as usize).max(1)
}

/// Places of the `count` least costs.
fn cheapest(costs: &[Cost], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..costs.len()).collect();
    let by_cost = |a: &usize, b: &usize| costs[*a].order(&costs[*b]).then(a.cmp(b));
    if count < order.len() {
        order.select_nth_unstable_by(count, by_cost);
        order.truncate(count);
    }
    order
}

/// Varifocal loss of a probability where nothing is.
fn negative_cost(p: f32) -> f32 {
    -NEGATIVE * p * p * (1.0 - p).ln().max(LEAST_LOG)
}

/// The same where a thing of this class overlaps.
fn class_cost(p: f32, overlap: f32) -> f32 {
    if overlap <= 0.0 {
        return negative_cost(p);
    }
    let there = overlap * p.ln().max(LEAST_LOG);
    let not = (1.0 - overlap) * (1.0 - p).ln().max(LEAST_LOG);
    -overlap * (there + not)
}

/// Intersection over union, and its generalisation.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> (f32, f32) {
    let area = |b: &[f32; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    let shared = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
    let hull = |i: usize| (a[i + 2].max(b[i + 2]) - a[i].min(b[i])).max(0.0);
    let both = shared(0) * shared(1);
    let union = (area(a) + area(b) - both).max(LEAST_AREA);
    let hull = (hull(0) * hull(1)).max(LEAST_AREA);
    let iou = both / union;
    (iou, iou - (hull - union) / hull)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(side: usize, stride: f32) -> Vec<Point> {
        let at = |i: usize| (i as f32 + 0.5) * stride;
        let point = |i| Point {
            x: at(i % side),
            y: at(i / side),
            stride,
        };
        (0..side * side).map(point).collect()
    }

    #[test]
    fn exact_predictions_inside_a_thing_are_its_points() {
        let points = grid(8, 8.0);
        let thing = Thing {
            bbox: [8.0, 8.0, 40.0, 40.0],
            class: 1,
        };
        let scores = vec![0.3; 64 * 2];
        let exact: Vec<_> = points.iter().map(|_| thing.bbox).collect();
        let found = assign(&points, &exact, &scores, 2, &[thing]);
        assert_eq!(found.len(), 10, "as many as the best overlaps add up to");
        for (i, _) in found {
            assert!(inside_box(&points[i], &thing));
        }
    }

    #[test]
    fn each_thing_gets_a_point_however_bad_the_predictions_are() {
        let points = grid(8, 8.0);
        let far = vec![[1000.0, 1000.0, 1001.0, 1001.0]; 64];
        let things = [
            Thing {
                bbox: [1.0, 1.0, 2.0, 2.0],
                class: 0,
            },
            Thing {
                bbox: [30.0, 30.0, 60.0, 60.0],
                class: 0,
            },
        ];
        let found = assign(&points, &far, &vec![0.01; 64], 1, &things);
        let mut whose: Vec<_> = found.iter().map(|f| f.1).collect();
        whose.sort_unstable();
        assert_eq!(whose, [0, 1]);
        assert!(assign(&points, &far, &vec![0.01; 64], 1, &[]).is_empty());
    }
}
