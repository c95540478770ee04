//! Objects for timings of detectors, always the same ones.

use oarlock_datasets::DetectTarget;
use oarlock_imaging::{BBox, Object};

/// Objects of an image; COCO's have about seven.
const OBJECTS: usize = 8;
/// Multiples of these, their whole parts left out, fill a unit cube evenly.
const STEPS: [f64; 4] = [
    0.754_877_666_246_692_7,
    0.569_840_290_998_053_2,
    0.618_033_988_749_894_9,
    0.819_172_513_396_164_4,
];

/// Eight objects an image, sides a twentieth to a half of the image's, outlines diamonds. The benchmarks' peers make
/// the same ones.
pub(super) fn objects(images: usize, size: usize, classes: usize) -> Vec<DetectTarget> {
    let image = |image: usize| DetectTarget {
        objects: (1..=OBJECTS)
            .map(|i| object(image * OBJECTS + i, size, classes))
            .collect(),
        full: (size, size),
        shown: (size, size),
    };
    (0..images).map(image).collect()
}

fn object(number: usize, size: usize, classes: usize) -> Object {
    let [x, y, width, height] = STEPS.map(|step| (number as f64 * step).fract());
    let along = |place: f64, length: f64| {
        let length = 0.05 + 0.45 * length;
        let from = place * (1.0 - length);
        [from, from + length].map(|edge| (edge * size as f64) as f32)
    };
    let ([x1, x2], [y1, y2]) = (along(x, width), along(y, height));
    let (x, y) = ((x1 + x2) * 0.5, (y1 + y2) * 0.5);
    Object {
        class: number * 7 % classes,
        bbox: BBox::new(x1, y1, x2, y2),
        polygons: vec![vec![[x, y1], [x2, y], [x, y2], [x1, y]]],
        weight: 1.0,
        ..Object::default()
    }
}
