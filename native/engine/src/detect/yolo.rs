//! Boxes of YOLOv3 and the PP-YOLO family (Redmon & Farhadi 2018; Long et al. 2020, "PP-YOLO"), with the numbers of
//! Paddle's `yolo_box`.

use oarlock_graph::{Suppression, YoloHead, YoloLevel};
use tch::{Kind, Tensor};

use super::Frame;
use super::choose::Candidates;
use crate::exec::download;
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
    let mut found = vec![Candidates::default(); frames.len()];
    for (level, output) in head.levels.iter().zip(outputs) {
        Level::new(head, level, output)?.collect(input, frames, &mut found)?;
    }
    Ok(found)
}

/// One output of the network.
struct Level<'a> {
    head: &'a YoloHead,
    anchors: &'a [[f32; 2]],
    /// Height and width of the map.
    grid: (usize, usize),
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
            grid: (height as usize, width as usize),
            rows,
            objectness,
        })
    }

    /// Only rows that pass both thresholds leave the device.
    fn collect(
        &self,
        input: (usize, usize),
        frames: &[Frame],
        found: &mut [Candidates],
    ) -> Result<()> {
        let (Suppression::Nms { score, .. } | Suppression::Matrix { score, .. }) =
            self.head.suppression;
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
        let boxes = download(&rows.f_narrow(1, 0, 4)?.f_index_select(0, &kept)?)?.data;
        let scores = download(&scores.f_index_select(0, &kept)?)?.data;
        let places = Vec::<i64>::try_from(
            places
                .f_index_select(0, &kept)?
                .f_to_device(tch::Device::Cpu)?
                .f_to_kind(Kind::Int64)?,
        )?;
        let scores = scores.chunks_exact(self.head.classes.max(1));
        for ((place, raw), scores) in places.into_iter().zip(boxes.as_chunks::<4>().0).zip(scores) {
            let (height, width) = self.grid;
            let place = place as usize;
            let (row, column) = (place / width % height, place % width);
            let anchor = self.anchors[place / (width * height) % self.anchors.len()];
            let image = place / (width * height * self.anchors.len());
            let (Some(frame), Some(found)) = (frames.get(image), found.get_mut(image)) else {
                continue;
            };
            let bbox = self.decode(raw, (row, column), anchor, input, frame);
            found.boxes.push(bbox);
            found.scores.extend_from_slice(scores);
        }
        Ok(())
    }

    /// Edges in pixels of the stored picture; the last ones are those of its last pixels, as in Paddle.
    fn decode(
        &self,
        raw: &[f32; 4],
        (row, column): (usize, usize),
        anchor: [f32; 2],
        (height, width): (usize, usize),
        frame: &Frame,
    ) -> [f32; 4] {
        let scale = self.head.scale_xy;
        let centre = |x: f32, cell: usize, cells: usize| {
            (cell as f32 + sigmoid(x) * scale - 0.5 * (scale - 1.0)) / cells as f32
        };
        // Along one side: the middle and the length in shares of the input, to edges in the picture.
        let edges = |middle: f32, length: f32, input: usize, shown: usize, full: usize| {
            let pixels = input as f32 / shown.max(1) as f32 * full as f32;
            let last = full.saturating_sub(1) as f32;
            let edge = |side: f32| ((middle + side * length * 0.5) * pixels).clamp(0.0, last);
            (edge(-1.0), edge(1.0))
        };
        let (full, shown) = (frame.full, frame.shown);
        let x = centre(raw[0], column, self.grid.1);
        let y = centre(raw[1], row, self.grid.0);
        let (left, right) = edges(
            x,
            raw[2].exp() * anchor[0] / width as f32,
            width,
            shown.0,
            full.0,
        );
        let (top, bottom) = edges(
            y,
            raw[3].exp() * anchor[1] / height as f32,
            height,
            shown.1,
            full.1,
        );
        [left, top, right, bottom]
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
