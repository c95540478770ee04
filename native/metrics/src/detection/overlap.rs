//! Intersection over union of boxes.

/// Overlap of a detection with a truth, both x, y, width, height, as COCO defines it: 0–1; of a crowd, which
/// may be matched in part, over the detection's own area.
pub fn box_iou(detection: &[f64; 4], truth: &[f64; 4], crowd: bool) -> f64 {
    let shared = |axis: usize| {
        let end = |b: &[f64; 4]| b[axis] + b[axis + 2];
        end(detection).min(end(truth)) - detection[axis].max(truth[axis])
    };
    let (width, height) = (shared(0), shared(1));
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let area = |b: &[f64; 4]| b[2] * b[3];
    let both = width * height;
    if crowd {
        both / area(detection)
    } else {
        both / (area(detection) + area(truth) - both)
    }
}

/// Overlap of two boxes by the corner pixels x1, y1, x2, y2 that belong to them, as VOC and PaddleX count:
/// a box is x2 − x1 + 1 pixels wide. Boxes that share an edge only do not overlap.
pub fn box_iou_inclusive(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    if a[0] >= b[2] || a[2] <= b[0] || a[1] >= b[3] || a[3] <= b[1] {
        return 0.0;
    }
    let area = |x1: f64, y1: f64, x2: f64, y2: f64| (x2 - x1 + 1.0) * (y2 - y1 + 1.0);
    let both = area(
        a[0].max(b[0]),
        a[1].max(b[1]),
        a[2].min(b[2]),
        a[3].min(b[3]),
    );
    both / (area(a[0], a[1], a[2], a[3]) + area(b[0], b[1], b[2], b[3]) - both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_overlap_by_area_and_by_pixels() {
        let (a, b) = ([0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 10.0, 10.0]);
        assert!((box_iou(&a, &b, false) - 1.0 / 3.0).abs() < 1e-12);
        assert!((box_iou(&a, &b, true) - 0.5).abs() < 1e-12);
        assert_eq!(box_iou(&a, &[10.0, 0.0, 5.0, 5.0], false), 0.0);
        assert_eq!(box_iou(&a, &[2.0, 2.0, 0.0, 0.0], true), 0.0);
        assert_eq!(
            box_iou_inclusive(&[0.0, 0.0, 9.0, 9.0], &[0.0, 0.0, 9.0, 4.0]),
            0.5
        );
        assert_eq!(
            box_iou_inclusive(&[0.0, 0.0, 9.0, 9.0], &[9.0, 0.0, 12.0, 4.0]),
            0.0
        );
    }
}
