//! Losses of YOLOv3 (Redmon & Farhadi 2018) and the PP-YOLO family (Long et al. 2020; Huang et al. 2021), with the
//! terms and numbers of PaddleX 2.1.

use oarlock_datasets::DetectTarget;
use oarlock_graph::{YoloHead, YoloLevel};
use tch::{Reduction, Tensor};

use super::boxes::Edges;
use super::yolo_targets::{Rows, of_level};
use super::{Objective, Parts, add, learned};
use crate::exec::Network;
use crate::train::learner::Learned;
use crate::{EngineError, Result};

/// Added to areas, which are shares of the input.
const LEAST_AREA: f64 = 1e-9;
/// Things of one image that are compared with all predictions at a time.
const CHUNK: usize = 64;

/// What the models differ in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Predictions that overlap more with a thing are no background.
    pub ignore: f64,
    /// Factor of 1 − overlap².
    pub iou: Option<f64>,
    /// Factor of the predicted overlap's cross-entropy, where the network predicts it.
    pub iou_aware: f64,
    /// Classes that are not there get a share of the target: the smaller of 1/classes and 1/40.
    pub smooth: bool,
}

/// The hyper-parameters of PaddleX 2.1 for a model.
fn terms(model: &str) -> Terms {
    let (ignore, iou) = match model {
        "PPYOLO" | "PPYOLOv2" => (0.7, Some(2.5)),
        "PPYOLOTiny" => (0.5, Some(2.5)),
        _ => (0.7, None),
    };
    Terms {
        ignore,
        iou,
        iou_aware: 1.0,
        smooth: false,
    }
}

/// The objective of a detector with anchors on a grid.
#[derive(Debug)]
pub struct Yolo {
    head: YoloHead,
    terms: Terms,
}

impl Yolo {
    /// With PaddleX's hyper-parameters of `model`.
    pub fn new(model: &str, head: YoloHead) -> Self {
        let terms = terms(model);
        Self { head, terms }
    }

    /// With hyper-parameters of one's own.
    pub fn with_terms(head: YoloHead, terms: Terms) -> Self {
        Self { head, terms }
    }

    /// The losses of `outputs` (as [`YoloHead`] says), means over the images; `input` is height and width of the
    /// network's input, `objects` in its pixels.
    ///
    /// # Errors
    /// Outputs that do not fit the head; out of memory.
    pub fn losses(
        &self,
        outputs: &[Tensor],
        input: (usize, usize),
        objects: &[DetectTarget],
    ) -> Result<Parts> {
        if outputs.len() != self.head.levels.len() {
            return Err(EngineError::internal(
                "the detector's head describes other outputs",
            ));
        }
        let mut sums = Vec::new();
        for (number, output) in outputs.iter().enumerate() {
            let level = Level::new(&self.head, number, output, input)?;
            add(&mut sums, self.of_level(&level, objects)?)?;
        }
        let images = objects.len().max(1) as f64;
        sums.into_iter()
            .map(|(name, sum)| Ok((name, sum.f_div_scalar(images)?)))
            .collect()
    }

    fn of_level(&self, level: &Level, objects: &[DetectTarget]) -> Result<Parts> {
        let head = &self.head;
        let targets = of_level(head, level.number, level.grid, level.input, objects)?;
        let (kind, device) = (level.values.kind(), level.values.device());
        let rows = Rows::new(&targets, head.classes, kind, device)?;
        // Only what is assigned to a thing has a place, a shape and a class: targets × values.
        let found = level.values.f_index(&rows.indices())?;
        let middles = level.middles(&found.f_narrow(1, 0, 2)?)?;
        let weight = rows.scales.f_mul(&rows.scores)?;

        let mut parts = vec![
            (
                "loss_xy",
                self.of_middles(&found, &middles, &rows, &weight)?,
            ),
            ("loss_wh", of_shapes(&found, &rows, &weight)?),
        ];
        if self.terms.iou.is_some() || level.overlaps.is_some() {
            let shapes = found.f_narrow(1, 2, 2)?;
            let boxes = level.boxes(&middles, &shapes, &rows)?;
            let (place, shape) = (
                rows.places.f_narrow(1, 0, 2)?,
                rows.places.f_narrow(1, 2, 2)?,
            );
            let truth = level.boxes(&place, &shape, &rows)?;
            let overlap = boxes.overlap(&truth)?;
            let iou = overlap
                .both
                .f_div(&overlap.union.f_add_scalar(LEAST_AREA)?)?;
            if let Some(factor) = self.terms.iou {
                let loss = iou.f_square()?.f_neg()?.f_add_scalar(1.0)?.f_mul(&weight)?;
                parts.push(("loss_iou", loss.f_sum(None)?.f_mul_scalar(factor)?));
            }
            if let Some(overlaps) = &level.overlaps {
                let predicted = overlaps.f_index(&rows.indices())?;
                let loss = cross_entropy(&predicted, &iou.f_detach()?, &rows.scores)?;
                parts.push(("loss_iou_aware", loss.f_mul_scalar(self.terms.iou_aware)?));
            }
        }
        parts.push(("loss_obj", self.of_objectness(level, &rows, objects)?));
        parts.push(("loss_cls", self.of_classes(&found, &rows)?));
        Ok(parts.into_iter().map(|(n, p)| (n.to_owned(), p)).collect())
    }

    fn of_middles(
        &self,
        found: &Tensor,
        middles: &Tensor,
        rows: &Rows,
        weight: &Tensor,
    ) -> Result<Tensor> {
        let truth = rows.places.f_narrow(1, 0, 2)?;
        if self.head.scale_xy == 1.0 {
            let weight = weight.f_unsqueeze(1)?;
            return cross_entropy(&found.f_narrow(1, 0, 2)?, &truth, &weight);
        }
        let off = middles.f_sub(&truth)?.f_abs()?;
        Ok(off.f_mul(&weight.f_unsqueeze(1)?)?.f_sum(None)?)
    }

    /// Every prediction is to say whether it is assigned to a thing, but those that overlap much with one.
    fn of_objectness(
        &self,
        level: &Level,
        rows: &Rows,
        objects: &[DetectTarget],
    ) -> Result<Tensor> {
        let logits = level.values.f_select(-1, 4)?;
        let (weight, truth) = {
            let _guard = tch::no_grad_guard();
            let greatest = level.greatest_overlaps(objects)?;
            let mut weight = greatest.f_le(self.terms.ignore)?.f_to_kind(logits.kind())?;
            let mut truth = weight.f_zeros_like()?;
            let _ = weight.f_index_put_(&rows.indices(), &rows.scores, false)?;
            let ones = rows.scores.f_ones_like()?;
            let _ = truth.f_index_put_(&rows.indices(), &ones, false)?;
            (weight, truth)
        };
        cross_entropy(&logits, &truth, &weight)
    }

    fn of_classes(&self, found: &Tensor, rows: &Rows) -> Result<Tensor> {
        let classes = self.head.classes;
        let logits = found.f_narrow(1, 5, classes as i64)?;
        let mut truth = rows.classes.shallow_clone();
        if self.terms.smooth {
            let share = (1.0 / classes as f64).min(1.0 / 40.0);
            truth = truth.f_mul_scalar(1.0 - 2.0 * share)?.f_add_scalar(share)?;
        }
        cross_entropy(&logits, &truth, &rows.scores.f_unsqueeze(1)?)
    }
}

impl Objective for Yolo {
    fn learn(
        &self,
        network: &Network,
        input: &Tensor,
        objects: &[DetectTarget],
        _seed: u64,
    ) -> Result<Learned> {
        let (_, _, height, width) = input.size4()?;
        let input_size = (height as usize, width as usize);
        Learned::of_parts(network, input, |outputs| {
            self.losses(outputs, input_size, objects)
        })
    }
}

fn of_shapes(found: &Tensor, rows: &Rows, weight: &Tensor) -> Result<Tensor> {
    let off = found
        .f_narrow(1, 2, 2)?
        .f_sub(&rows.places.f_narrow(1, 2, 2)?)?
        .f_abs()?;
    Ok(off.f_mul(&weight.f_unsqueeze(1)?)?.f_sum(None)?)
}

/// Sum of the sigmoid's binary cross-entropy times `weight`.
fn cross_entropy(logits: &Tensor, truth: &Tensor, weight: &Tensor) -> Result<Tensor> {
    Ok(logits.f_binary_cross_entropy_with_logits::<&Tensor>(
        truth,
        Some(weight),
        None,
        Reduction::Sum,
    )?)
}

/// One output of the network.
struct Level<'a> {
    head: &'a YoloHead,
    number: usize,
    anchors: &'a YoloLevel,
    /// Height and width of the input, and of the map.
    input: (usize, usize),
    grid: (usize, usize),
    /// Images × anchors × cells × (5 + classes).
    values: Tensor,
    /// Images × anchors × cells, where overlaps are predicted.
    overlaps: Option<Tensor>,
}

impl<'a> Level<'a> {
    fn new(
        head: &'a YoloHead,
        number: usize,
        output: &Tensor,
        input: (usize, usize),
    ) -> Result<Self> {
        let level = &head.levels[number];
        let (images, channels, height, width) = output.size4()?;
        let anchors = level.anchors.len() as i64;
        let values = 5 + head.classes as i64;
        let aware = if head.iou_aware.is_some() { anchors } else { 0 };
        if channels != aware + anchors * values {
            return Err(EngineError::internal(
                "the detector's head describes other channels",
            ));
        }
        let cells = height * width;
        let overlaps = (aware > 0).then(|| {
            let overlaps = output.f_narrow(1, 0, anchors)?;
            overlaps.f_reshape([images, anchors, cells])
        });
        Ok(Self {
            head,
            number,
            anchors: level,
            input,
            grid: (height as usize, width as usize),
            values: output
                .f_narrow(1, aware, anchors * values)?
                .f_reshape([images, anchors, values, cells])?
                .f_permute([0, 1, 3, 2])?,
            overlaps: overlaps.transpose()?,
        })
    }

    /// Places of middles in their cells.
    fn middles(&self, raw: &Tensor) -> Result<Tensor> {
        let scale = f64::from(self.head.scale_xy);
        let sigmoid = raw.f_sigmoid()?;
        if scale == 1.0 {
            return Ok(sigmoid);
        }
        Ok(sigmoid
            .f_mul_scalar(scale)?
            .f_sub_scalar(0.5 * (scale - 1.0))?)
    }

    /// Widths and heights of the anchors in shares of the input, anchors×2.
    fn shares(&self) -> Result<Tensor> {
        let (height, width) = (self.input.0 as f32, self.input.1 as f32);
        let shares = self.anchors.anchors.iter();
        let shares: Vec<f32> = shares.flat_map(|[w, h]| [w / width, h / height]).collect();
        let shares = Tensor::f_from_slice(&shares)?.f_reshape([-1, 2])?;
        Ok(shares
            .f_to_kind(self.values.kind())?
            .f_to_device(self.values.device())?)
    }

    /// Columns and rows of the grid.
    fn grid_size(&self) -> Result<Tensor> {
        let size = Tensor::f_from_slice(&[self.grid.1 as f32, self.grid.0 as f32])?;
        Ok(size
            .f_to_kind(self.values.kind())?
            .f_to_device(self.values.device())?)
    }

    /// Boxes of targets in shares of the input: from middles in their cells and logarithms of sides in anchors.
    fn boxes(&self, middles: &Tensor, shapes: &Tensor, rows: &Rows) -> Result<Edges> {
        let columns = self.grid.1 as i64;
        let cells = [
            rows.cells.f_remainder(columns)?,
            rows.cells.f_div_scalar_mode(columns, "floor")?,
        ];
        let cells = Tensor::f_stack(&cells, 1)?.f_to_kind(middles.kind())?;
        let middles = middles.f_add(&cells)?.f_div(&self.grid_size()?)?;
        let anchors = self.shares()?.f_index_select(0, &rows.anchors)?;
        let sides = shapes.f_exp()?.f_mul(&anchors)?;
        Edges::of_middles(
            &middles.f_select(1, 0)?,
            &middles.f_select(1, 1)?,
            &sides.f_select(1, 0)?,
            &sides.f_select(1, 1)?,
        )
    }

    /// All predicted boxes in shares of the input, each edge images × anchors × cells.
    fn all_boxes(&self) -> Result<Edges> {
        let (kind, device) = (self.values.kind(), self.values.device());
        let middles = self.middles(&self.values.f_narrow(-1, 0, 2)?)?;
        let (rows, columns) = (self.grid.0 as i64, self.grid.1 as i64);
        let column = Tensor::f_arange(columns, (kind, device))?.f_repeat([rows])?;
        let row = Tensor::f_arange(rows, (kind, device))?
            .f_repeat_interleave_self_int(columns, None, None)?;
        let x = middles.f_select(-1, 0)?.f_add(&column)?;
        let y = middles.f_select(-1, 1)?.f_add(&row)?;
        let anchors = self.shares()?.f_reshape([1, -1, 1, 2])?;
        let sides = self.values.f_narrow(-1, 2, 2)?.f_exp()?.f_mul(&anchors)?;
        Edges::of_middles(
            &x.f_div_scalar(columns)?,
            &y.f_div_scalar(rows)?,
            &sides.f_select(-1, 0)?,
            &sides.f_select(-1, 1)?,
        )
    }

    /// The greatest overlap of each prediction with a thing of its image, images × anchors × cells.
    fn greatest_overlaps(&self, objects: &[DetectTarget]) -> Result<Tensor> {
        let boxes = self.all_boxes()?;
        let greatest = boxes.left.f_zeros_like()?;
        for (image, target) in (0..).zip(objects) {
            let own = |edge: &Tensor| edge.f_select(0, image)?.f_reshape([-1]);
            let own = Edges {
                left: own(&boxes.left)?,
                top: own(&boxes.top)?,
                right: own(&boxes.right)?,
                bottom: own(&boxes.bottom)?,
            };
            let own = own.unsqueeze(0)?;
            let mut of_image = greatest.f_select(0, image)?;
            let things: Vec<[f32; 4]> = learned(target).map(|o| self.share_of(o)).collect();
            for chunk in things.chunks(CHUNK) {
                let things = Tensor::f_from_slice(chunk.as_flattened())?
                    .f_reshape([-1, 4])?
                    .f_to_kind(greatest.kind())?
                    .f_to_device(greatest.device())?;
                let overlap = Edges::of_columns(&things)?.unsqueeze(1)?.overlap(&own)?;
                let iou = overlap
                    .both
                    .f_div(&overlap.union.f_add_scalar(LEAST_AREA)?)?;
                let most = iou.f_amax([0], false)?.f_reshape_as(&of_image)?;
                let most = of_image.f_maximum(&most)?;
                of_image.f_copy_(&most)?;
            }
        }
        Ok(greatest)
    }

    fn share_of(&self, object: &oarlock_imaging::Object) -> [f32; 4] {
        let (height, width) = (self.input.0 as f32, self.input.1 as f32);
        let b = object.bbox;
        [b.x1 / width, b.y1 / height, b.x2 / width, b.y2 / height]
    }
}
