//! Boxes, and boxes as changes of other boxes.

use oarlock_imaging::BBox;

/// Left, top, right and bottom edges in pixels.
pub type Edges = [f32; 4];

/// Growth of a side beyond which a prediction is not believed, ln(1000 / 16).
pub(super) const MOST_GROWTH: f32 = 4.135_166_6;

/// Width and height.
pub fn sides(b: &Edges) -> (f32, f32) {
    (b[2] - b[0], b[3] - b[1])
}

/// The part within a picture of this width and height.
pub fn clipped(b: &Edges, (width, height): (usize, usize)) -> Edges {
    let (width, height) = (width as f32, height as f32);
    [
        b[0].min(width).max(0.0),
        b[1].min(height).max(0.0),
        b[2].min(width).max(0.0),
        b[3].min(height).max(0.0),
    ]
}

/// Intersection over union, 0–1.
pub fn iou(a: &Edges, b: &Edges) -> f32 {
    let bbox = |e: &Edges| BBox::new(e[0], e[1], e[2], e[3]);
    bbox(a).iou(&bbox(b))
}

/// The box that is `base` moved by the first two values in its sides, its sides grown by e to the last two, each
/// value over its weight (Girshick et al. 2014, "R-CNN", appendix C).
pub fn decode(base: &Edges, delta: &[f32], weights: &[f32; 4]) -> Edges {
    let (width, height) = sides(base);
    let x = base[0] + 0.5 * width + delta[0] / weights[0] * width;
    let y = base[1] + 0.5 * height + delta[1] / weights[1] * height;
    let grown = |side: f32, by: f32| 0.5 * side * by.min(MOST_GROWTH).exp();
    let half_width = grown(width, delta[2] / weights[2]);
    let half_height = grown(height, delta[3] / weights[3]);
    [
        x - half_width,
        y - half_height,
        x + half_width,
        y + half_height,
    ]
}

/// What [`decode`] makes `target` of; both have an area.
pub fn encode(base: &Edges, target: &Edges, weights: &[f32; 4]) -> [f32; 4] {
    let (width, height) = sides(base);
    let (to_width, to_height) = sides(target);
    let centre = |b: &Edges, (w, h): (f32, f32)| (b[0] + 0.5 * w, b[1] + 0.5 * h);
    let (from, to) = (
        centre(base, (width, height)),
        centre(target, (to_width, to_height)),
    );
    [
        weights[0] * (to.0 - from.0) / width,
        weights[1] * (to.1 - from.1) / height,
        weights[2] * (to_width / width).ln(),
        weights[3] * (to_height / height).ln(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_undoes_encoding() {
        let (base, target) = ([10.0, 20.0, 50.0, 36.0], [3.5, 24.0, 90.0, 33.0]);
        let weights = [10.0, 10.0, 5.0, 5.0];
        let back = decode(&base, &encode(&base, &target, &weights), &weights);
        for (a, b) in back.iter().zip(target) {
            assert!((a - b).abs() < 1e-4, "{back:?}");
        }
        // A side grows 62.5 times at most.
        let grown = decode(&[0.0, 0.0, 2.0, 2.0], &[0.0, 0.0, 99.0, 0.0], &[1.0; 4]);
        assert!((grown[2] - grown[0] - 125.0).abs() < 1e-3, "{grown:?}");
        assert_eq!(
            clipped(&[-3.0, 2.0, 9.0, 99.0], (8, 10)),
            [0.0, 2.0, 8.0, 10.0]
        );
    }
}
