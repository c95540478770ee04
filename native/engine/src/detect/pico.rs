//! Boxes of PicoDet (Yu et al. 2021, "PP-PicoDet"): from each pixel's point the expected distances to the four sides.

use oarlock_graph::PicoHead;
use tch::{Kind, Tensor};

use super::Frame;
use super::choose::Candidates;
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
    let score = head.suppression.score();
    let mut found: Vec<(Vec<Tensor>, Vec<Tensor>)> = Vec::new();
    found.resize_with(frames.len(), Default::default);
    for ([scores, sides], &stride) in levels.iter().zip(&head.strides) {
        let width = scores.size4()?.3;
        let scores = by_point(scores)?.f_sigmoid()?;
        let sides = by_point(sides)?;
        for ((image, frame), found) in (0..).zip(frames).zip(&mut found) {
            let scores = scores.f_select(0, image)?;
            let best = scores.f_amax([1], false)?;
            let kept = surest(&best, f64::from(score))?;
            let distances = expected(
                &sides.f_select(0, image)?.f_index_select(0, &kept)?,
                head.bins,
            )?;
            let rows = kept.f_divide_scalar_mode(width, "floor")?;
            let points = Tensor::f_stack(&[kept.f_remainder(width)?, rows], 1)?;
            let points = points.f_to_kind(Kind::Float)?;
            let points = points.f_add_scalar(f64::from(head.offset))?;
            found.0.push(decode(&points, &distances, stride, frame)?);
            found.1.push(scores.f_index_select(0, &kept)?);
        }
    }
    let joined = |(boxes, scores): (Vec<Tensor>, Vec<Tensor>)| -> Result<Candidates> {
        Ok(Candidates {
            boxes: Tensor::f_cat(&boxes, 0)?,
            scores: Tensor::f_cat(&scores, 0)?,
        })
    };
    found.into_iter().map(joined).collect()
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

/// Edges in pixels of the stored picture, within it, K×4; from points K×2 and distances K×4 in strides.
fn decode(points: &Tensor, distances: &Tensor, stride: usize, frame: &Frame) -> Result<Tensor> {
    let pair = |values: (usize, usize)| -> Result<Tensor> {
        let pair = Tensor::f_from_slice(&[values.0 as f32, values.1 as f32])?;
        Ok(pair.f_to_device(points.device())?)
    };
    let (shown, full) = (pair(frame.shown)?, pair(frame.full)?);
    let edge = |place: Tensor| -> Result<Tensor> {
        let place = place.f_mul_scalar(stride as f64)?.f_clamp_min(0.0)?;
        let share = place.f_minimum(&shown)?.f_div(&shown.f_clamp_min(1.0)?)?;
        Ok(share.f_mul(&full)?)
    };
    let low = edge(points.f_sub(&distances.f_narrow(1, 0, 2)?)?)?;
    let high = edge(points.f_add(&distances.f_narrow(1, 2, 2)?)?)?;
    Ok(Tensor::f_cat(&[low, high], 1)?)
}
