//! Which anchor of which cell is to predict a thing (Redmon & Farhadi 2018, section 2.1; PaddleX's `Gt2YoloTarget`).
//!
//! PaddleX keeps the first 50 things of an image; here all of them count.

use std::collections::HashMap;

use oarlock_datasets::DetectTarget;
use oarlock_graph::YoloHead;
use oarlock_imaging::BBox;
use tch::{Device, Kind, Tensor};

use super::learned;
use crate::{EngineError, Result};

/// What one anchor of one cell is to predict.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    pub image: i64,
    pub anchor: i64,
    /// Row times the columns of the map plus column.
    pub cell: i64,
    /// Place of the middle in the cell, 0 to 1, and the logarithm of width and height in anchors.
    pub place: [f32; 4],
    /// Weight of place and shape: more for small boxes.
    pub scale: f32,
    /// Objectness: below 1 after mixup.
    pub score: f32,
    /// Usually one; more where things of several classes fall on one place.
    pub classes: Vec<usize>,
}

/// The targets of one level whose map has `grid` rows and columns; `input` is height and width of the input.
pub(super) fn of_level(
    head: &YoloHead,
    level: usize,
    grid: (usize, usize),
    input: (usize, usize),
    objects: &[DetectTarget],
) -> Result<Vec<Target>> {
    let mut targets: Vec<Target> = Vec::new();
    let mut taken = HashMap::new();
    for (image, target) in (0..).zip(objects) {
        for object in learned(target) {
            if object.class >= head.classes {
                return Err(EngineError::internal("an object of an unknown class"));
            }
            let Some((of_level, anchor)) = best_anchor(head, &object.bbox) else {
                continue;
            };
            if of_level != level {
                continue;
            }
            let size = head.levels[level].anchors[anchor];
            let mut new = place(&object.bbox, size, grid, input);
            (new.image, new.anchor, new.score) = (image, anchor as i64, object.weight);
            new.classes.push(object.class);
            // Of things on the same place the last one stays, with the classes of all.
            let key = (new.image, new.anchor, new.cell);
            match taken.get(&key) {
                None => {
                    taken.insert(key, targets.len());
                    targets.push(new);
                }
                Some(&before) => {
                    let before: &mut Target = &mut targets[before];
                    new.classes.append(&mut before.classes);
                    *before = new;
                }
            }
        }
    }
    Ok(targets)
}

/// Level and place in it of the anchor whose shape is most like the box; of equals the first in the order of the
/// anchors' sizes, finest level first.
fn best_anchor(head: &YoloHead, bbox: &BBox) -> Option<(usize, usize)> {
    let (width, height) = (bbox.x2 - bbox.x1, bbox.y2 - bbox.y1);
    let mut best = None;
    let mut greatest = 0.0;
    for (level, of_level) in head.levels.iter().enumerate().rev() {
        for (anchor, [w, h]) in of_level.anchors.iter().enumerate() {
            let both = width.min(*w) * height.min(*h);
            let overlap = both / (width * height + w * h - both);
            if overlap > greatest {
                greatest = overlap;
                best = Some((level, anchor));
            }
        }
    }
    best
}

fn place(
    bbox: &BBox,
    anchor: [f32; 2],
    (rows, columns): (usize, usize),
    (height, width): (usize, usize),
) -> Target {
    let (w, h) = (bbox.x2 - bbox.x1, bbox.y2 - bbox.y1);
    let along = |middle: f32, cells: usize, pixels: usize| {
        let at = middle / pixels as f32 * cells as f32;
        let cell = (at.max(0.0) as usize).min(cells.saturating_sub(1));
        (cell, (at - cell as f32).clamp(0.0, 1.0))
    };
    let (column, x) = along((bbox.x1 + bbox.x2) * 0.5, columns, width);
    let (row, y) = along((bbox.y1 + bbox.y2) * 0.5, rows, height);
    Target {
        image: 0,
        anchor: 0,
        cell: (row * columns + column) as i64,
        place: [x, y, (w / anchor[0]).ln(), (h / anchor[1]).ln()],
        scale: 2.0 - (w / width as f32) * (h / height as f32),
        score: 1.0,
        classes: Vec::new(),
    }
}

/// Targets as tensors, one row each.
pub(super) struct Rows {
    pub images: Tensor,
    pub anchors: Tensor,
    pub cells: Tensor,
    /// …×4.
    pub places: Tensor,
    pub scales: Tensor,
    pub scores: Tensor,
    /// …×classes, 0 or 1.
    pub classes: Tensor,
}

impl Rows {
    pub fn new(targets: &[Target], classes: usize, kind: Kind, device: Device) -> Result<Self> {
        let whole = |of: fn(&Target) -> i64| -> Result<Tensor> {
            let values: Vec<i64> = targets.iter().map(of).collect();
            Ok(Tensor::f_from_slice(&values)?.f_to_device(device)?)
        };
        let real = |values: &[f32]| -> Result<Tensor> {
            let values = Tensor::f_from_slice(values)?;
            Ok(values.f_to_kind(kind)?.f_to_device(device)?)
        };
        let places: Vec<f32> = targets.iter().flat_map(|t| t.place).collect();
        let mut of_classes = vec![0.0; targets.len() * classes];
        for (row, target) in of_classes.chunks_exact_mut(classes.max(1)).zip(targets) {
            target.classes.iter().for_each(|&class| row[class] = 1.0);
        }
        let column = |of: fn(&Target) -> f32| real(&targets.iter().map(of).collect::<Vec<_>>());
        Ok(Self {
            images: whole(|t| t.image)?,
            anchors: whole(|t| t.anchor)?,
            cells: whole(|t| t.cell)?,
            places: real(&places)?.f_reshape([-1, 4])?,
            scales: column(|t| t.scale)?,
            scores: column(|t| t.score)?,
            classes: real(&of_classes)?.f_reshape([-1, classes as i64])?,
        })
    }

    /// Indices into images × anchors × cells.
    pub fn indices(&self) -> [Option<&Tensor>; 3] {
        [Some(&self.images), Some(&self.anchors), Some(&self.cells)]
    }
}

#[cfg(test)]
mod tests {
    use oarlock_graph::{Suppression, YoloLevel};
    use oarlock_imaging::Object;

    use super::*;

    fn head() -> YoloHead {
        let level = |stride, anchors: [[f32; 2]; 2]| YoloLevel {
            stride,
            anchors: anchors.to_vec(),
        };
        YoloHead {
            classes: 3,
            levels: vec![
                level(32, [[60.0, 60.0], [90.0, 80.0]]),
                level(16, [[10.0, 12.0], [30.0, 20.0]]),
            ],
            scale_xy: 1.0,
            iou_aware: None,
            objectness: 0.005,
            suppression: Suppression::Nms {
                score: 0.01,
                overlap: 0.45,
                candidates: None,
                detections: 100,
            },
        }
    }

    fn thing(class: usize, x: f32, y: f32, w: f32, h: f32) -> Object {
        Object {
            class,
            bbox: BBox::new(x, y, x + w, y + h),
            weight: 1.0,
            ..Object::default()
        }
    }

    fn image(objects: Vec<Object>) -> DetectTarget {
        DetectTarget {
            objects,
            full: (64, 64),
            shown: (64, 64),
        }
    }

    #[test]
    fn a_thing_goes_to_the_anchor_of_its_shape_and_the_cell_of_its_middle() {
        let objects = [image(vec![]), image(vec![thing(2, 20.0, 10.0, 30.0, 20.0)])];
        assert_eq!(
            of_level(&head(), 0, (2, 2), (64, 64), &objects).unwrap(),
            []
        );
        let found = of_level(&head(), 1, (4, 4), (64, 64), &objects).unwrap();
        let [target] = &found[..] else { panic!() };
        // The middle (35, 20) lies in row 1, column 2.
        assert_eq!((target.image, target.anchor, target.cell), (1, 1, 6));
        assert_eq!(target.place, [0.1875, 0.25, 0.0, 0.0]);
        assert_eq!((target.score, &target.classes[..]), (1.0, &[2][..]));
        assert!((target.scale - (2.0 - 600.0 / 4096.0)).abs() < 1e-6);
    }

    #[test]
    fn the_last_of_several_things_on_a_place_stays_with_all_classes() {
        let objects = [image(vec![
            thing(0, 20.0, 10.0, 30.0, 20.0),
            thing(2, 21.0, 11.0, 28.0, 18.0),
        ])];
        let found = of_level(&head(), 1, (4, 4), (64, 64), &objects).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].classes, [2, 0]);
        assert!((found[0].place[2] - (28.0_f32 / 30.0).ln()).abs() < 1e-6);
    }

    #[test]
    fn nothing_is_learned_of_groups_and_of_boxes_without_area() {
        let mut group = thing(1, 5.0, 5.0, 20.0, 20.0);
        group.crowd = true;
        let flat = thing(1, 5.0, 5.0, 0.0, 20.0);
        let outside = thing(1, 60.0, 60.0, 30.0, 20.0);
        let objects = [image(vec![group, flat, outside])];
        let found = of_level(&head(), 1, (4, 4), (64, 64), &objects).unwrap();
        // A middle beyond the edge counts as on it.
        assert_eq!(found.iter().map(|t| t.cell).collect::<Vec<_>>(), [15]);
    }
}
