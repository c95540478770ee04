//! The choice among boxes: greedy and matrix suppression.

use super::super::lower::{FLOAT, INT64, int};
use super::ops::Tail;
use super::{BOXES, Candidates, LABELS, SCORES};
use crate::Suppression;

/// Most boxes of all classes that matrix suppression compares with each other: it takes memory for the square.
/// Boxes beyond cannot change the scores of surer ones.
const MATRIX_CANDIDATES: usize = 2000;

/// Appends the choice and names its results.
pub(super) fn detections(tail: &mut Tail, suppression: &Suppression, all: &Candidates) {
    match *suppression {
        Suppression::Nms {
            score,
            overlap,
            candidates,
            detections,
        } => {
            let (class, place) = greedy(tail, all, score, overlap, candidates);
            let scores = scores_at(tail, all, &class, &place);
            finish(tail, all, [class, place, scores], detections);
        }
        Suppression::Matrix {
            score,
            post,
            sigma,
            candidates,
            detections,
        } => {
            let chosen = matrix(tail, all, score, post, sigma, candidates);
            finish(tail, all, chosen, detections);
        }
    }
}

/// Scores of boxes `place` for classes `class`, all [M].
fn scores_at(tail: &mut Tail, all: &Candidates, class: &str, place: &str) -> String {
    let flat = tail.reshape(&all.scores, &[-1]);
    let row = tail.ints(&[all.count as i64]);
    let start = tail.mul(class, &row);
    let index = tail.add(&start, place);
    tail.gather(&flat, &index, 0)
}

/// Of `class`, `place` (int64) and `score`, all [M], the surest.
fn finish(tail: &mut Tail, all: &Candidates, chosen: [String; 3], detections: usize) {
    let [class, place, score] = chosen;
    let count = tail.at_most(&score, detections);
    let (score, order) = tail.top(&score, &count);
    let class = tail.gather(&class, &order, 0);
    let place = tail.gather(&place, &order, 0);
    let boxes = tail.squeeze(&all.boxes, 0);
    let boxes = tail.gather(&boxes, &place, 0);
    tail.name(&boxes, BOXES);
    tail.name(&score, SCORES);
    tail.name(&class, LABELS);
}

/// 1×classes×T scores of which only the `candidates` surest of each class are left, the others 0.
fn surest(tail: &mut Tail, all: &Candidates, candidates: Option<usize>) -> String {
    let Some(limit) = candidates.filter(|&limit| limit < all.count) else {
        return all.scores.clone();
    };
    let count = tail.ints(&[limit as i64]);
    let (values, _) = tail.top(&all.scores, &count);
    let least = tail.slice(&values, 2, limit - 1, limit);
    let out = tail.op("Less", &[&all.scores, &least]);
    let zero = tail.scalar(0.0);
    tail.select(&out, &zero, &all.scores)
}

/// Class and place of the boxes that stay.
fn greedy(
    tail: &mut Tail,
    all: &Candidates,
    score: f32,
    overlap: f32,
    candidates: Option<usize>,
) -> (String, String) {
    let scores = surest(tail, all, candidates);
    let most = tail.ints(&[all.count as i64]);
    let overlap = tail.floats(&[1], &[overlap]);
    let score = tail.floats(&[1], &[score]);
    let inputs = [&all.boxes, &scores, &most, &overlap, &score].map(String::as_str);
    let chosen = tail.op("NonMaxSuppression", &inputs);
    let column = |tail: &mut Tail, i: usize| {
        let column = tail.slice(&chosen, 1, i, i + 1);
        tail.squeeze(&column, 1)
    };
    (column(tail, 1), column(tail, 2))
}

/// Class, place and lowered score of the boxes that stay (Wang et al. 2020, "SOLOv2", section 3.3).
fn matrix(
    tail: &mut Tail,
    all: &Candidates,
    score: f32,
    post: f32,
    sigma: Option<f32>,
    candidates: Option<usize>,
) -> [String; 3] {
    let scores = surest(tail, all, candidates);
    let flat = tail.reshape(&scores, &[-1]);
    let most = (all.count * all.classes).min(MATRIX_CANDIDATES);
    let most = tail.ints(&[most as i64]);
    let (values, index) = tail.top(&flat, &most);
    // Falling, so that those above the threshold stand in front. One is kept in any case: some runtimes do not
    // reduce empty matrices.
    let threshold = tail.scalar(score);
    let sure = tail.op("Greater", &[&values, &threshold]);
    let sure = tail.cast(&sure, INT64);
    let first = tail.ints(&[0]);
    let sure = tail.op_with("ReduceSum", &[&sure, &first], vec![int("keepdims", 1)]);
    let next = tail.ints(&[1]);
    let end = tail.op("Max", &[&sure, &next]);
    let [values, index] = [values, index].map(|v| tail.op("Slice", &[&v, &first, &end]));
    let row = tail.ints(&[all.count as i64]);
    let class = tail.div(&index, &row);
    let place = tail.op_with("Mod", &[&index, &row], vec![int("fmod", 0)]);

    let overlap = overlaps(tail, all, &place);
    // Row i, column j: i is surer and of the same class.
    let [down, right] = [1, 0].map(|axis| tail.unsqueeze(&class, axis));
    let same = tail.op("Equal", &[&down, &right]);
    let same = tail.cast(&same, FLOAT);
    let next = tail.squeeze(&next, 0);
    let same = tail.op_with("Trilu", &[&same, &next], vec![int("upper", 1)]);
    let overlap = tail.mul(&overlap, &same);
    let one = tail.scalar(1.0);
    let tiny = tail.scalar(1e-12);
    let suppressed = tail.reduce("ReduceMax", &overlap, 0);
    let suppressed = tail.unsqueeze(&suppressed, 1);
    let decay = match sigma {
        Some(sigma) => {
            let squares = [&suppressed, &overlap].map(|v| tail.mul(v, v));
            let difference = tail.sub(&squares[0], &squares[1]);
            let exponent = tail.affine(&difference, sigma, 0.0);
            tail.op("Exp", &[&exponent])
        }
        None => {
            let rest = tail.sub(&one, &overlap);
            let own = tail.sub(&one, &suppressed);
            let own = tail.op("Max", &[&own, &tiny]);
            tail.div(&rest, &own)
        }
    };
    let zero = tail.scalar(0.0);
    let counts = tail.op("Greater", &[&same, &zero]);
    let decay = tail.select(&counts, &decay, &one);
    let decay = tail.reduce("ReduceMin", &decay, 0);
    let decay = tail.op("Min", &[&decay, &one]);
    let lowered = tail.mul(&values, &decay);
    let post = tail.scalar(post);
    let stays = tail.op("Greater", &[&lowered, &post]);
    let sure = tail.op("Greater", &[&values, &threshold]);
    let stays = tail.op("And", &[&stays, &sure]);
    [class, place, lowered].map(|v| tail.op_with("Compress", &[&v, &stays], vec![int("axis", 0)]))
}

/// K×K overlaps (intersection over union) of the boxes at `place`, whose edges are pixels that belong to them, as
/// PaddleX has it here.
fn overlaps(tail: &mut Tail, all: &Candidates, place: &str) -> String {
    let boxes = tail.squeeze(&all.boxes, 0);
    let boxes = tail.gather(&boxes, place, 0);
    let edge = |tail: &mut Tail, i: usize| tail.slice(&boxes, 1, i, i + 1);
    let edges = [0, 1, 2, 3].map(|i| edge(tail, i));
    let across = edges
        .clone()
        .map(|e| tail.op_with("Transpose", &[&e], Vec::new()));
    let one = tail.scalar(1.0);
    let zero = tail.scalar(0.0);
    let mut sides = Vec::new();
    for axis in 0..2 {
        let low = tail.op("Max", &[&edges[axis], &across[axis]]);
        let high = tail.op("Min", &[&edges[axis + 2], &across[axis + 2]]);
        let side = tail.sub(&high, &low);
        let apart = tail.op("Less", &[&side, &zero]);
        let side = tail.add(&side, &one);
        sides.push(tail.select(&apart, &zero, &side));
    }
    let common = tail.mul(&sides[0], &sides[1]);
    let area = |tail: &mut Tail, edges: &[String; 4]| {
        let [width, height] = [0, 1].map(|axis| {
            let side = tail.sub(&edges[axis + 2], &edges[axis]);
            tail.add(&side, &one)
        });
        tail.mul(&width, &height)
    };
    let (own, other) = (area(tail, &edges), area(tail, &across));
    let sum = tail.add(&own, &other);
    let union = tail.sub(&sum, &common);
    let tiny = tail.scalar(1e-10);
    let union = tail.op("Max", &[&union, &tiny]);
    tail.div(&common, &union)
}
