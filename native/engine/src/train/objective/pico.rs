//! Losses of PicoDet (Yu et al. 2021) with the terms and numbers of PaddleX 2.1: varifocal loss of the classes (Zhang et
//! al. 2020), generalised overlap, distribution focal loss of the sides (Li et al. 2020).

use oarlock_datasets::DetectTarget;
use oarlock_graph::PicoHead;
use tch::{Kind, Reduction, Tensor};

use super::boxes::Edges;
use super::simota::{self, Point, Thing};
use super::{Objective, Parts, learned};
use crate::detect::pico::{by_point, expected};
use crate::exec::{Network, download};
use crate::train::learner::Learned;
use crate::{EngineError, Result};

/// Factors of the losses of boxes and of sides.
const BOX_FACTOR: f64 = 2.0;
const SIDES_FACTOR: f64 = 0.25;
/// Factor of the varifocal loss where nothing is.
const NEGATIVE: f64 = 0.75;
/// Distances to learn stay that much below the greatest one.
const MARGIN: f64 = 0.1;
const LEAST_AREA: f64 = 1e-6;

/// The objective of PicoDet.
#[derive(Debug)]
pub struct Pico {
    head: PicoHead,
}

impl Pico {
    /// For networks with this head.
    pub fn new(head: PicoHead) -> Self {
        Self { head }
    }

    /// The losses of `outputs` (as [`PicoHead`] says); `objects` in pixels of the network's input.
    ///
    /// # Errors
    /// Outputs that do not fit the head; out of memory.
    pub fn losses(&self, outputs: &[Tensor], objects: &[DetectTarget]) -> Result<Parts> {
        let all = Predictions::new(&self.head, outputs)?;
        let found = self.assign(&all, objects)?;
        let (kind, device) = (all.scores.kind(), all.scores.device());
        let points = all.points.len() as i64;
        let row = |f: &Found| f.image * points + f.point as i64;
        let rows: Vec<i64> = found.iter().map(row).collect();
        let rows = Tensor::f_from_slice(&rows)?.f_to_device(device)?;
        let classes: Vec<i64> = found.iter().map(|f| f.thing.class as i64).collect();
        let classes = Tensor::f_from_slice(&classes)?.f_to_device(device)?;

        let scores = all.scores.f_reshape([-1, self.head.classes as i64])?;
        let sides = all.sides.f_reshape([-1, 4 * (self.head.bins as i64 + 1)])?;
        let sides = sides.f_index_select(0, &rows)?;
        let weight = {
            let _guard = tch::no_grad_guard();
            let sure = scores.f_index_select(0, &rows)?.f_sigmoid()?;
            sure.f_amax([1], false)?
        };
        let average = weight.f_sum(None)?.f_clamp_min(1.0)?;

        // From here on in strides, with the point at the origin: distances are what the network predicts.
        let truth = Tensor::f_from_slice(&self.distances(&all.points, &found))?
            .f_reshape([-1, 4])?
            .f_to_kind(kind)?
            .f_to_device(device)?;
        let boxes = around(&expected(&sides, self.head.bins)?)?;
        let true_boxes = around(&truth)?;
        let loss_box = boxes
            .giou(&true_boxes)?
            .f_neg()?
            .f_add_scalar(1.0)?
            .f_mul(&weight)?
            .f_sum(None)?
            .f_mul_scalar(BOX_FACTOR)?
            .f_div(&average)?;
        let loss_sides = self.of_sides(&sides, &truth, &weight)?.f_div(&average)?;
        let overlaps = {
            let _guard = tch::no_grad_guard();
            let overlap = boxes.overlap(&true_boxes)?;
            overlap
                .both
                .f_div(&overlap.union.f_clamp_min(LEAST_AREA)?)?
        };
        let loss_classes = of_classes(&scores, [&rows, &classes], &overlaps)?
            .f_div_scalar(positives(&found, objects) as f64)?;
        Ok(vec![
            ("loss_vfl".to_owned(), loss_classes),
            ("loss_bbox".to_owned(), loss_box),
            ("loss_dfl".to_owned(), loss_sides),
        ])
    }

    /// Which point of which image is to predict what.
    fn assign(&self, all: &Predictions, objects: &[DetectTarget]) -> Result<Vec<Found>> {
        let _guard = tch::no_grad_guard();
        let classes = self.head.classes;
        let distances = download(&expected(&all.sides, self.head.bins)?)?.data;
        let scores = download(&all.scores.f_sigmoid()?)?.data;
        let mut found = Vec::new();
        let points = all.points.len();
        let scores = scores.chunks(points * classes);
        let distances = distances.as_chunks::<4>().0.chunks(points);
        for (((image, target), scores), distances) in (0..).zip(objects).zip(scores).zip(distances)
        {
            let thing = |o: &oarlock_imaging::Object| Thing {
                bbox: [o.bbox.x1, o.bbox.y1, o.bbox.x2, o.bbox.y2],
                class: o.class,
            };
            let things: Vec<Thing> = learned(target).map(thing).collect();
            if things.iter().any(|t| t.class >= classes) {
                return Err(EngineError::internal("an object of an unknown class"));
            }
            let boxes = all.points.iter().zip(distances);
            let boxes: Vec<[f32; 4]> = boxes
                .map(|(p, d)| {
                    let [left, top, right, bottom] = d.map(|d| d * p.stride);
                    [p.x - left, p.y - top, p.x + right, p.y + bottom]
                })
                .collect();
            let assigned = simota::assign(&all.points, &boxes, scores, classes, &things);
            found.extend(assigned.into_iter().map(|(point, thing)| Found {
                image,
                point,
                thing: things[thing],
            }));
        }
        Ok(found)
    }

    /// From the point to the true sides, in strides.
    fn distances(&self, points: &[Point], found: &[Found]) -> Vec<f32> {
        let distance = |f: &Found| {
            let p = points[f.point];
            let [left, top, right, bottom] = f.thing.bbox;
            [p.x - left, p.y - top, right - p.x, bottom - p.y].map(|d| d / p.stride)
        };
        found.iter().flat_map(distance).collect()
    }

    /// Cross-entropy with the two whole distances around the true one, by closeness.
    fn of_sides(&self, sides: &Tensor, truth: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let bins = self.head.bins as i64;
        let truth = truth.f_clamp(0.0, bins as f64 - MARGIN)?.f_reshape([-1])?;
        let below = truth.f_floor()?;
        let share = truth.f_sub(&below)?;
        let below = below.f_to_kind(Kind::Int64)?.f_unsqueeze(1)?;
        let logarithms = sides
            .f_reshape([-1, bins + 1])?
            .f_log_softmax(1, sides.kind())?;
        let of = |bin: &Tensor| logarithms.f_gather(1, bin, false)?.f_squeeze_dim(1);
        let lower = of(&below)?.f_mul(&share.f_neg()?.f_add_scalar(1.0)?)?;
        let upper = of(&below.f_add_scalar(1)?)?.f_mul(&share)?;
        let loss = lower.f_add(&upper)?.f_neg()?.f_reshape([-1, 4])?;
        // The mean over the four sides.
        let loss = loss.f_mul(&weight.f_unsqueeze(1)?)?.f_sum(None)?;
        Ok(loss.f_mul_scalar(SIDES_FACTOR / 4.0)?)
    }
}

impl Objective for Pico {
    fn learn(
        &self,
        network: &Network,
        input: &Tensor,
        objects: &[DetectTarget],
        _seed: u64,
    ) -> Result<Learned> {
        Learned::of_parts(network, input, |outputs| self.losses(outputs, objects))
    }
}

/// A point that is to predict a thing.
struct Found {
    image: i64,
    point: usize,
    thing: Thing,
}

/// Points that predict something, at least one of each image with things, at least one in all.
fn positives(found: &[Found], objects: &[DetectTarget]) -> usize {
    let of_image = |image: i64| found.iter().filter(|f| f.image == image).count().max(1);
    let images = (0..).zip(objects);
    let with_things = images.filter(|(_, target)| learned(target).next().is_some());
    with_things
        .map(|(image, _)| of_image(image))
        .sum::<usize>()
        .max(1)
}

/// Boxes from distances, around the origin.
fn around(distances: &Tensor) -> Result<Edges> {
    Ok(Edges {
        left: distances.f_select(1, 0)?.f_neg()?,
        top: distances.f_select(1, 1)?.f_neg()?,
        right: distances.f_select(1, 2)?,
        bottom: distances.f_select(1, 3)?,
    })
}

/// Varifocal loss, summed: `scores` are points × classes before the sigmoid, `at` rows and classes of what is to be
/// predicted, with its overlap as the target.
fn of_classes(scores: &Tensor, [rows, classes]: [&Tensor; 2], overlaps: &Tensor) -> Result<Tensor> {
    let truth = {
        let _guard = tch::no_grad_guard();
        let mut truth = scores.f_zeros_like()?;
        let _ = truth.f_index_put_(&[Some(rows), Some(classes)], overlaps, false)?;
        truth
    };
    let focal = scores.f_sigmoid()?.f_square()?.f_mul_scalar(NEGATIVE)?;
    let weight = truth.f_where_self(&truth.f_gt(0.0)?, &focal)?;
    let loss = scores.f_binary_cross_entropy_with_logits::<&Tensor>(
        &truth,
        None,
        None,
        Reduction::None,
    )?;
    Ok(loss.f_mul(&weight)?.f_sum(None)?)
}

/// What the network predicts at all points of all levels.
struct Predictions {
    /// Images × points × classes.
    scores: Tensor,
    /// Images × points × 4·(bins + 1).
    sides: Tensor,
    points: Vec<Point>,
}

impl Predictions {
    fn new(head: &PicoHead, outputs: &[Tensor]) -> Result<Self> {
        let (levels, []) = outputs.as_chunks::<2>() else {
            return Err(EngineError::internal("PicoDet needs pairs of outputs"));
        };
        if levels.len() != head.strides.len() {
            return Err(EngineError::internal(
                "the detector's head describes other outputs",
            ));
        }
        let (mut scores, mut sides, mut points) = (Vec::new(), Vec::new(), Vec::new());
        for ([of_classes, of_sides], &stride) in levels.iter().zip(&head.strides) {
            let (_, _, rows, columns) = of_classes.size4()?;
            scores.push(by_point(of_classes)?);
            sides.push(by_point(of_sides)?);
            let stride = stride as f32;
            let at = |place: i64| (place as f32 + head.offset) * stride;
            for row in 0..rows {
                points.extend((0..columns).map(|column| Point {
                    x: at(column),
                    y: at(row),
                    stride,
                }));
            }
        }
        Ok(Self {
            scores: Tensor::f_cat(&scores, 1)?,
            sides: Tensor::f_cat(&sides, 1)?,
            points,
        })
    }
}
