//! Boxes of PicoDet (Yu et al. 2021, "PP-PicoDet"): from each pixel's point the expected distances to the four sides.

use oarlock_graph::{PicoHead, Suppression};
use tch::{Kind, Tensor};

use super::Frame;
use super::choose::Candidates;
use crate::exec::download;
use crate::{EngineError, Result};

/// Surest points of a level that are looked at.
const POINTS: i64 = 1000;

/// The boxes of each image whose best score is high enough. `outputs` as [`PicoHead`] says, fp32.
pub(super) fn candidates(
    head: &PicoHead,
    outputs: &[Tensor],
    frames: &[Frame],
) -> Result<Vec<Candidates>> {
    let (levels, []) = outputs.as_chunks::<2>() else {
        return Err(EngineError::internal("PicoDet needs pairs of outputs"));
    };
    if levels.len() != head.strides.len() {
        return Err(EngineError::internal(
            "the detector's head describes other outputs",
        ));
    }
    let (Suppression::Nms { score, .. } | Suppression::Matrix { score, .. }) = head.suppression;
    let mut found = vec![Candidates::default(); frames.len()];
    for ([scores, sides], &stride) in levels.iter().zip(&head.strides) {
        let width = scores.size4()?.3;
        let scores = by_point(scores)?.f_sigmoid()?;
        let sides = by_point(sides)?;
        let images = (0..).zip(frames).zip(&mut found);
        for ((image, frame), found) in images {
            let scores = scores.f_select(0, image)?;
            let best = scores.f_amax([1], false)?;
            let kept = surest(&best, f64::from(score))?;
            let distances = expected(
                &sides.f_select(0, image)?.f_index_select(0, &kept)?,
                head.bins,
            )?;
            let distances = download(&distances)?.data;
            let scores = download(&scores.f_index_select(0, &kept)?)?.data;
            let points = Vec::<i64>::try_from(kept.f_to_device(tch::Device::Cpu)?)?;
            for (point, distances) in points.into_iter().zip(distances.as_chunks::<4>().0) {
                let at = [point % width, point / width].map(|p| p as f32 + head.offset);
                found.boxes.push(decode(at, distances, stride, frame));
            }
            found.scores.extend(scores);
        }
    }
    Ok(found)
}

/// N×C×h×w to N×(h·w)×C.
pub(crate) fn by_point(map: &Tensor) -> Result<Tensor> {
    let (images, channels, _, _) = map.size4()?;
    Ok(map
        .f_permute([0, 2, 3, 1])?
        .f_reshape([images, -1, channels])?)
}

/// Expected distances in strides: …×4·(`bins` + 1) logits to …×4.
pub(crate) fn expected(sides: &Tensor, bins: usize) -> Result<Tensor> {
    let bins = bins as i64;
    let mut shape = sides.size();
    if let Some(last) = shape.last_mut() {
        *last = 4;
    }
    let steps = Tensor::f_arange(bins + 1, (sides.kind(), sides.device()))?;
    Ok(sides
        .f_reshape([-1, bins + 1])?
        .f_softmax(1, sides.kind())?
        .f_mv(&steps)?
        .f_reshape(shape)?)
}

/// Places of the best values above `score`.
fn surest(best: &Tensor, score: f64) -> Result<Tensor> {
    let points = best.size1()?;
    let above = best.f_gt(score)?;
    if points <= POINTS {
        return Ok(above.f_nonzero()?.f_squeeze_dim(1)?);
    }
    let (values, places) = best.f_topk(POINTS, 0, true, true)?;
    let above = values.f_gt(score)?.f_nonzero()?.f_squeeze_dim(1)?;
    Ok(places.f_index_select(0, &above)?.f_to_kind(Kind::Int64)?)
}

/// Edges in pixels of the stored picture, within it.
fn decode(at: [f32; 2], distances: &[f32; 4], stride: usize, frame: &Frame) -> [f32; 4] {
    let shown = [frame.shown.0, frame.shown.1].map(|s| s as f32);
    let full = [frame.full.0, frame.full.1].map(|s| s as f32);
    let edge = |side: usize| {
        let axis = side % 2;
        let sign = if side < 2 { -1.0 } else { 1.0 };
        let place = (at[axis] + sign * distances[side]) * stride as f32;
        place.clamp(0.0, shown[axis]) / shown[axis].max(1.0) * full[axis]
    };
    [edge(0), edge(1), edge(2), edge(3)]
}
