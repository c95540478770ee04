//! Boxes and scores of YOLO heads and of PicoDet, as [`YoloHead`] and [`PicoHead`] describe them.

use super::super::lower::int;
use super::ops::Tail;
use super::{Candidates, SIZE};
use crate::{PicoHead, YoloHead, YoloLevel};

/// Points of a map of stride 1, row by row: all x, then all y.
fn grid([height, width]: [usize; 2], offset: f32) -> [Vec<f32>; 2] {
    let points = |place: &dyn Fn(usize) -> usize| {
        (0..height * width)
            .map(|i| place(i) as f32 + offset)
            .collect()
    };
    [points(&|i| i % width), points(&|i| i / width)]
}

/// Sides of a map of the given stride.
fn map_size(image: [usize; 2], stride: usize) -> [usize; 2] {
    image.map(|side| side.div_ceil(stride.max(1)))
}

/// Pixels of the stored picture for one of the input, right and down, each [1].
fn scales(tail: &mut Tail) -> [String; 2] {
    [1, 0].map(|axis| {
        let full = tail.slice(SIZE, 0, axis, axis + 1);
        let shown = tail.slice(SIZE, 0, axis + 2, axis + 3);
        tail.div(&full, &shown)
    })
}

/// 1×T×4 of the four edges, each 1×T.
fn boxes(tail: &mut Tail, edges: [String; 4]) -> String {
    let edges = edges.map(|edge| tail.unsqueeze(&edge, 2));
    tail.concat(&edges, 2)
}

pub(super) fn yolo(tail: &mut Tail, head: &YoloHead, names: &[String]) -> Option<Candidates> {
    if names.len() != head.levels.len() || names.is_empty() {
        return None;
    }
    let scale = scales(tail);
    let (mut all_boxes, mut all_scores, mut count) = (Vec::new(), Vec::new(), 0);
    for (level, name) in head.levels.iter().zip(names) {
        let map = map_size(tail.image_size, level.stride);
        let (edges, scores) = yolo_level(tail, head, level, map, name, &scale);
        all_boxes.push(boxes(tail, edges));
        all_scores.push(scores);
        count += level.anchors.len() * map[0] * map[1];
    }
    Some(Candidates {
        boxes: tail.concat(&all_boxes, 1),
        scores: tail.concat(&all_scores, 2),
        count,
        classes: head.classes,
    })
}

/// Edges, each 1×T, and scores, 1×classes×T, of one map; boxes in the order of anchors, then pixels.
fn yolo_level(
    tail: &mut Tail,
    head: &YoloHead,
    level: &YoloLevel,
    map: [usize; 2],
    name: &str,
    scale: &[String; 2],
) -> ([String; 4], String) {
    let (anchors, cells) = (level.anchors.len(), map[0] * map[1]);
    let values = 5 + head.classes;
    let overlaps = head.iou_aware.map(|power| {
        let overlaps = tail.slice(name, 1, 0, anchors);
        let overlaps = tail.reshape(&overlaps, &[1, anchors as i64, 1, cells as i64]);
        (power, tail.sigmoid(&overlaps))
    });
    let first = if overlaps.is_some() { anchors } else { 0 };
    let rest = tail.slice(name, 1, first, first + anchors * values);
    let rest = tail.reshape(&rest, &[1, anchors as i64, values as i64, cells as i64]);

    let mut objectness = tail.slice(&rest, 2, 4, 5);
    objectness = tail.sigmoid(&objectness);
    if let Some((power, overlaps)) = overlaps {
        let (keep, take) = (tail.scalar(1.0 - power), tail.scalar(power));
        let keep = tail.op("Pow", &[&objectness, &keep]);
        let take = tail.op("Pow", &[&overlaps, &take]);
        objectness = tail.mul(&keep, &take);
    }
    let least = tail.scalar(head.objectness);
    let out = tail.op("Less", &[&objectness, &least]);
    let zero = tail.scalar(0.0);
    let sure = tail.select(&out, &zero, &objectness);
    let classes = tail.slice(&rest, 2, 5, values);
    let classes = tail.sigmoid(&classes);
    let scores = tail.mul(&classes, &sure);
    // 1×A×classes×cells to 1×classes×(A·cells)
    let scores = tail.transpose(&scores, &[0, 2, 1, 3]);
    let scores = tail.reshape(&scores, &[1, head.classes as i64, -1]);

    let stride = level.stride as f32;
    let points = grid(map, -(head.scale_xy - 1.0) / 2.0);
    let mut edges = [const { String::new() }; 4];
    for axis in 0..2 {
        let centre = tail.slice(&rest, 2, axis, axis + 1);
        let centre = tail.sigmoid(&centre);
        let place = tail.floats(&[1, 1, 1, cells], &points[axis]);
        let spread = tail.scalar(head.scale_xy);
        let centre = tail.mul(&centre, &spread);
        let centre = tail.add(&centre, &place);
        let centre = tail.affine(&centre, stride, 0.0);
        let side = tail.slice(&rest, 2, axis + 2, axis + 3);
        let side = tail.op("Exp", &[&side]);
        let half: Vec<f32> = level.anchors.iter().map(|a| a[axis] / 2.0).collect();
        let half = tail.floats(&[1, anchors, 1, 1], &half);
        let half = tail.mul(&side, &half);
        let low = tail.sub(&centre, &half);
        let high = tail.add(&centre, &half);
        // Within the stored picture, whose last pixel is its size − 1.
        let size = tail.slice(SIZE, 0, 1 - axis, 2 - axis);
        let last = tail.affine(&size, 1.0, -1.0);
        let [low, high] = [low, high].map(|edge| tail.mul(&edge, &scale[axis]));
        // Both, so that a box beside the picture has no area, as in the engine.
        let [low, high] = [low, high].map(|edge| {
            let edge = tail.op("Max", &[&edge, &zero]);
            tail.op("Min", &[&edge, &last])
        });
        edges[axis] = tail.reshape(&low, &[1, -1]);
        edges[axis + 2] = tail.reshape(&high, &[1, -1]);
    }
    (edges, scores)
}

/// Surest points of a level that are looked at (PaddleDetection's `nms_pre`).
const LEVEL_CANDIDATES: usize = 1000;

pub(super) fn pico(tail: &mut Tail, head: &PicoHead, names: &[String]) -> Option<Candidates> {
    if names.len() != 2 * head.strides.len() || names.is_empty() {
        return None;
    }
    let scale = scales(tail);
    let (mut all_boxes, mut all_scores, mut count) = (Vec::new(), Vec::new(), 0);
    for (&stride, names) in head.strides.iter().zip(names.chunks_exact(2)) {
        let map = map_size(tail.image_size, stride);
        let cells = map[0] * map[1];
        let scores = tail.sigmoid(&names[0]);
        let mut scores = tail.reshape(&scores, &[1, head.classes as i64, cells as i64]);
        let sides = tail.reshape(&names[1], &[1, 4, head.bins as i64 + 1, cells as i64]);
        let sides = tail.op_with("Softmax", &[&sides], vec![int("axis", 2)]);
        let bins: Vec<f32> = (0..=head.bins).map(|b| (b * stride) as f32).collect();
        let bins = tail.floats(&[1, 1, head.bins + 1, 1], &bins);
        let sides = tail.mul(&sides, &bins);
        let axis = tail.ints(&[2]);
        let sides = tail.op_with("ReduceSum", &[&sides, &axis], vec![int("keepdims", 0)]);
        let points = grid(map, head.offset);
        let mut edges = [const { String::new() }; 4];
        for (i, edge) in edges.iter_mut().enumerate() {
            let axis = i % 2;
            let points: Vec<f32> = points[axis].iter().map(|p| p * stride as f32).collect();
            let points = tail.floats(&[1, 1, cells], &points);
            let distance = tail.slice(&sides, 1, i, i + 1);
            let at = match i {
                0 | 1 => tail.sub(&points, &distance),
                _ => tail.add(&points, &distance),
            };
            let zero = tail.scalar(0.0);
            let shown = tail.slice(SIZE, 0, 3 - axis, 4 - axis);
            let at = tail.op("Max", &[&at, &zero]);
            let at = tail.op("Min", &[&at, &shown]);
            let at = tail.mul(&at, &scale[axis]);
            *edge = tail.reshape(&at, &[1, -1]);
        }
        let mut level = boxes(tail, edges);
        let mut kept = cells;
        if cells > LEVEL_CANDIDATES {
            kept = LEVEL_CANDIDATES;
            let best = tail.reduce("ReduceMax", &scores, 1);
            let best = tail.squeeze(&best, 0);
            let limit = tail.ints(&[kept as i64]);
            let (_, places) = tail.top(&best, &limit);
            scores = tail.gather(&scores, &places, 2);
            level = tail.gather(&level, &places, 1);
        }
        all_boxes.push(level);
        all_scores.push(scores);
        count += kept;
    }
    Some(Candidates {
        boxes: tail.concat(&all_boxes, 1),
        scores: tail.concat(&all_scores, 2),
        count,
        classes: head.classes,
    })
}
