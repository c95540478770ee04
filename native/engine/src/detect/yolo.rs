//! Boxes of YOLOv3 and the PP-YOLO family (Redmon & Farhadi 2018; Long et al. 2020, "PP-YOLO"), with the numbers of
//! Paddle's `yolo_box`.

use oarlock_graph::{YoloHead, YoloLevel};
use tch::{Device, Kind, Tensor};

use super::Frame;
use super::choose::Candidates;
use crate::{EngineError, Result};

/// The boxes of each image whose objectness and best score are high enough.
///
/// `outputs` as [`YoloHead`] says, fp32; `input` is height and width of the network's input.
pub(super) fn candidates(
    head: &YoloHead,
    outputs: &[Tensor],
    input: (usize, usize),
    frames: &[Frame],
) -> Result<Vec<Candidates>> {
    if outputs.len() != head.levels.len() {
        return Err(EngineError::internal(
            "the detector's head describes other outputs",
        ));
    }
    let shown = Shown::new(input, frames, device(outputs))?;
    let (mut images, mut boxes, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    for (level, output) in head.levels.iter().zip(outputs) {
        let found = Level::new(head, level, output)?.found(&shown)?;
        images.push(found.images);
        boxes.push(found.boxes);
        scores.push(found.scores);
    }
    let joined = |parts: &[Tensor]| Tensor::f_cat(parts, 0);
    let (images, boxes, scores) = (joined(&images)?, joined(&boxes)?, joined(&scores)?);
    Candidates::by_image(frames.len(), &images, &boxes, &scores)
}

fn device(outputs: &[Tensor]) -> Device {
    outputs.first().map_or(Device::Cpu, Tensor::device)
}

/// How shares of the input become pixels of the stored pictures.
struct Shown {
    /// Width and height of the input.
    input: Tensor,
    /// Images×2, pixels of the stored picture for the whole input's width and height.
    pixels: Tensor,
    /// Images×2, the last pixel's column and row.
    last: Tensor,
}

impl Shown {
    fn new((height, width): (usize, usize), frames: &[Frame], device: Device) -> Result<Self> {
        let pixels = |f: &Frame| {
            let along = |input: usize, shown: usize, full: usize| {
                input as f32 / shown.max(1) as f32 * full as f32
            };
            [
                along(width, f.shown.0, f.full.0),
                along(height, f.shown.1, f.full.1),
            ]
        };
        let last = |f: &Frame| [f.full.0, f.full.1].map(|side| side.saturating_sub(1) as f32);
        let rows = |of: &dyn Fn(&Frame) -> [f32; 2]| -> Result<Tensor> {
            let flat: Vec<f32> = frames.iter().flat_map(of).collect();
            let rows = Tensor::f_from_slice(&flat)?.f_reshape([-1, 2])?;
            Ok(rows.f_to_device(device)?)
        };
        let input = Tensor::f_from_slice(&[width as f32, height as f32])?;
        Ok(Self {
            input: input.f_to_device(device)?,
            pixels: rows(&pixels)?,
            last: rows(&last)?,
        })
    }
}

/// Boxes that may be something.
struct Found {
    /// Which image each is of.
    images: Tensor,
    boxes: Tensor,
    scores: Tensor,
}

/// One output of the network.
struct Level<'a> {
    head: &'a YoloHead,
    anchors: &'a [[f32; 2]],
    /// Height and width of the map.
    grid: (i64, i64),
    /// (Images · anchors · pixels) × (5 + classes).
    rows: Tensor,
    /// Objectness of each row, with the predicted overlap where there is one.
    objectness: Tensor,
}

impl<'a> Level<'a> {
    fn new(head: &'a YoloHead, level: &'a YoloLevel, output: &Tensor) -> Result<Self> {
        let (images, channels, height, width) = output.size4()?;
        let anchors = level.anchors.len() as i64;
        let values = 5 + head.classes as i64;
        let aware = if head.iou_aware.is_some() { anchors } else { 0 };
        if channels != aware + anchors * values {
            return Err(EngineError::internal(
                "the detector's head describes other channels",
            ));
        }
        let maps = output.f_narrow(1, aware, anchors * values)?;
        let rows = maps
            .f_reshape([images, anchors, values, height * width])?
            .f_permute([0, 1, 3, 2])?
            .f_reshape([-1, values])?;
        let mut objectness = rows.f_select(1, 4)?.f_sigmoid()?;
        if let Some(factor) = head.iou_aware.map(f64::from) {
            let overlap = output.f_narrow(1, 0, anchors)?.f_reshape([-1])?;
            objectness = objectness
                .f_pow_tensor_scalar(1.0 - factor)?
                .f_mul(&overlap.f_sigmoid()?.f_pow_tensor_scalar(factor)?)?;
        }
        Ok(Self {
            head,
            anchors: &level.anchors,
            grid: (height, width),
            rows,
            objectness,
        })
    }

    /// The boxes of rows that pass both thresholds.
    fn found(&self, shown: &Shown) -> Result<Found> {
        let score = self.head.suppression.score();
        let sure = self.objectness.f_ge(f64::from(self.head.objectness))?;
        let places = sure.f_nonzero()?.f_squeeze_dim(1)?;
        let rows = self.rows.f_index_select(0, &places)?;
        let objectness = self.objectness.f_index_select(0, &places)?;
        let classes = self.head.classes as i64;
        let scores = rows
            .f_narrow(1, 5, classes)?
            .f_sigmoid()?
            .f_mul(&objectness.f_unsqueeze(1)?)?;
        let best = scores.f_amax([1], false)?.f_gt(f64::from(score))?;
        let kept = best.f_nonzero()?.f_squeeze_dim(1)?;
        let raw = rows.f_narrow(1, 0, 4)?.f_index_select(0, &kept)?;
        let places = places.f_index_select(0, &kept)?;
        let (height, width) = self.grid;
        let over = |by: i64| places.f_divide_scalar_mode(by, "floor");
        let images = over(height * width * self.anchors.len() as i64)?;
        Ok(Found {
            boxes: self.decode(&raw, &places, &images, shown)?,
            scores: scores.f_index_select(0, &kept)?,
            images,
        })
    }

    /// Edges in pixels of the stored picture; the last ones are those of its last pixels, as in Paddle. `raw` is K×4,
    /// at these places of the level's rows and of these images.
    fn decode(
        &self,
        raw: &Tensor,
        places: &Tensor,
        images: &Tensor,
        shown: &Shown,
    ) -> Result<Tensor> {
        let (height, width) = self.grid;
        let within = |by: i64, cells: i64| -> Result<Tensor> {
            let whole = places.f_divide_scalar_mode(by, "floor")?;
            Ok(whole.f_remainder(cells)?)
        };
        let cells = Tensor::f_stack(&[within(1, width)?, within(width, height)?], 1)?;
        let flat: Vec<f32> = self.anchors.iter().flatten().copied().collect();
        let host = |values: &[f32]| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(values)?.f_to_device(raw.device())?)
        };
        let anchors = host(&flat)?.f_reshape([-1, 2])?;
        let anchor = within(width * height, self.anchors.len() as i64)?;
        let anchors = anchors.f_index_select(0, &anchor)?;
        let scale = f64::from(self.head.scale_xy);
        let middle = raw
            .f_narrow(1, 0, 2)?
            .f_sigmoid()?
            .f_mul_scalar(scale)?
            .f_add(&cells.f_to_kind(Kind::Float)?)?
            .f_sub_scalar(0.5 * (scale - 1.0))?
            .f_div(&host(&[width as f32, height as f32])?)?;
        let length = raw
            .f_narrow(1, 2, 2)?
            .f_exp()?
            .f_mul(&anchors)?
            .f_div(&shown.input)?;
        let pixels = shown.pixels.f_index_select(0, images)?;
        let last = shown.last.f_index_select(0, images)?;
        let edge = |side: f64| -> Result<Tensor> {
            let place = middle.f_add(&length.f_mul_scalar(side * 0.5)?)?;
            let place = place.f_mul(&pixels)?;
            Ok(place.f_clamp_min(0.0)?.f_minimum(&last)?)
        };
        Ok(Tensor::f_cat(&[edge(-1.0)?, edge(1.0)?], 1)?)
    }
}
