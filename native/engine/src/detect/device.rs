//! Suppression of boxes as tensor operations: for boxes that are in a GPU's memory, so that only what is found leaves
//! it. The same choices as `oarlock_imaging`'s, which are faster on a processor.

use oarlock_graph::Suppression;
use tch::{Device, Kind, Tensor};

use super::Detected;
use super::boxes::Edges;
use crate::Result;
use crate::exec::download;

/// Pairs of boxes that are looked at together, 64 MiB of overlaps.
const PAIRS: i64 = 1 << 24;

/// Whether boxes there are chosen there.
pub(super) fn chooses(device: Device) -> bool {
    device.is_cuda()
}

/// Sides of boxes …×4: …×2 corners at the left top and at the right bottom.
fn corners(boxes: &Tensor) -> Result<(Tensor, Tensor)> {
    Ok((boxes.f_narrow(-1, 0, 2)?, boxes.f_narrow(-1, 2, 2)?))
}

/// Intersection over union of all pairs in B×K×4 boxes, B×K×K; `extra` as for [`oarlock_imaging::Selection::inclusive`].
fn overlaps(boxes: &Tensor, extra: f64) -> Result<Tensor> {
    let (low, high) = corners(boxes)?;
    let area = high
        .f_sub(&low)?
        .f_add_scalar(extra)?
        .f_prod_dim_int(-1, false, Kind::Float)?;
    let from = low.f_unsqueeze(2)?.f_maximum(&low.f_unsqueeze(1)?)?;
    let to = high.f_unsqueeze(2)?.f_minimum(&high.f_unsqueeze(1)?)?;
    let length = to.f_sub(&from)?;
    let shared = length
        .f_add_scalar(extra)?
        .f_mul(&length.f_ge(0.0)?.f_to_kind(Kind::Float)?)?;
    let both = shared.f_prod_dim_int(-1, false, Kind::Float)?;
    let all = area.f_unsqueeze(2)?.f_add(&area.f_unsqueeze(1)?)?;
    let overlap = both.f_div(&all.f_sub(&both)?)?;
    // Boxes without an area overlap with nothing.
    Ok(overlap.f_nan_to_num(0.0, None, None)?)
}

/// Greedy suppression of B×K×4 boxes, the surest first, where `alive` (B×K) says so: B×K, which of them stay.
///
/// A box stays where no surer one that stays overlaps with it. Applying this to all at once settles at least one more
/// box each time, so that repeating it until nothing changes gives what going through them one by one does (Bolya et
/// al. 2019, "YOLACT", does it once and takes the difference; Zheng et al. 2020, "Cluster-NMS", repeats it).
///
/// # Errors
/// Out of memory.
pub(super) fn suppressed(boxes: &Tensor, alive: &Tensor, overlap: f64) -> Result<Tensor> {
    let over = overlaps(boxes, 0.0)?.f_gt(overlap)?.f_triu(1)?;
    let mut keep = alive.shallow_clone();
    loop {
        let hit = over
            .f_logical_and(&keep.f_unsqueeze(2)?)?
            .f_any_dim(1, false)?;
        let next = alive.f_logical_and(&hit.f_logical_not()?)?;
        if next.f_equal(&keep)? {
            return Ok(next);
        }
        keep = next;
    }
}

/// 1 − x.
fn rest(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_neg()?.f_add_scalar(1.0)?)
}

/// Scores B×K of boxes B×K×4, the surest first, lowered as [`oarlock_imaging::matrix_nms`] says.
fn lowered(boxes: &Tensor, scores: &Tensor, sigma: Option<f32>) -> Result<Tensor> {
    // [b, j, i]: of box i with a surer one j. PaddleX has the edges of these boxes as pixels that belong to them.
    let overlap = overlaps(boxes, 1.0)?.f_triu(1)?;
    let greatest = overlap.f_amax([1], false)?;
    let surer = greatest.f_unsqueeze(2)?;
    let factor = match sigma {
        None => rest(&overlap)?.f_div(&rest(&surer)?)?,
        Some(sigma) => surer
            .f_square()?
            .f_sub(&overlap.f_square()?)?
            .f_mul_scalar(f64::from(sigma))?
            .f_exp()?,
    };
    // 0/0 lowers nothing, and neither does a box that is not surer.
    let surest = factor.f_ones_like()?.f_tril(0)?.f_to_kind(Kind::Bool)?;
    let factor = factor
        .f_masked_fill(&surest, 1.0)?
        .f_nan_to_num(1.0, f64::INFINITY, f64::NEG_INFINITY)?
        .f_amin([1], false)?
        .f_clamp_max(1.0)?;
    Ok(scores.f_mul(&factor)?)
}

/// The detections of one image, the surest first: from C×K×4 boxes, the same for all classes where the first size is
/// 1, and C×K scores.
///
/// # Errors
/// Out of memory.
pub(super) fn choose(
    boxes: &Tensor,
    scores: &Tensor,
    suppression: &Suppression,
) -> Result<Vec<Detected>> {
    let least = suppression.score();
    let (classes, count) = scores.size2()?;
    let above = scores.f_gt(f64::from(least))?;
    let most = match classes * count {
        0 => 0,
        _ => above
            .f_sum_dim_intlist(1, false, Kind::Int64)?
            .f_max()?
            .f_int64_value(&[])?,
    };
    let candidates = suppression.candidates().unwrap_or(usize::MAX);
    let most = most.min(i64::try_from(candidates).unwrap_or(i64::MAX));
    if most == 0 {
        return Ok(Vec::new());
    }
    let (scores, places) = scores.f_topk(most, 1, true, true)?;
    let places = places.f_unsqueeze(2)?.f_expand([-1, -1, 4], false)?;
    let boxes = boxes
        .f_expand([classes, -1, -1], false)?
        .f_gather(1, &places, false)?;
    let step = (PAIRS / (most * most)).clamp(1, classes);
    let mut chosen = Vec::new();
    for first in (0..classes).step_by(step as usize) {
        let len = step.min(classes - first);
        let part = |t: &Tensor| t.f_narrow(0, first, len);
        chosen.push(kept(&part(&boxes)?, &part(&scores)?, suppression)?);
    }
    let chosen = Tensor::f_cat(&chosen, 0)?;
    surest(&boxes, &chosen, suppression.detections())
}

/// Scores C×K of what stays, −∞ for the rest.
fn kept(boxes: &Tensor, scores: &Tensor, how: &Suppression) -> Result<Tensor> {
    let alive = scores.f_gt(f64::from(how.score()))?;
    let (scores, stays) = match *how {
        Suppression::Nms { overlap, .. } => {
            let stays = suppressed(boxes, &alive, f64::from(overlap))?;
            (scores.shallow_clone(), stays)
        }
        Suppression::Matrix { post, sigma, .. } => {
            let scores = lowered(boxes, scores, sigma)?;
            let stays = alive.f_logical_and(&scores.f_gt(f64::from(post))?)?;
            (scores, stays)
        }
    };
    Ok(scores.f_masked_fill(&stays.f_logical_not()?, f64::NEG_INFINITY)?)
}

/// The surest of C×K boxes, on the host.
fn surest(boxes: &Tensor, scores: &Tensor, detections: usize) -> Result<Vec<Detected>> {
    let (classes, count) = scores.size2()?;
    let most = (classes * count).min(i64::try_from(detections).unwrap_or(i64::MAX));
    let (scores, places) = scores.f_reshape([-1])?.f_topk(most, 0, true, true)?;
    let boxes = boxes.f_reshape([-1, 4])?.f_index_select(0, &places)?;
    let (scores, boxes) = (download(&scores)?.data, download(&boxes)?.data);
    let places = Vec::<i64>::try_from(places.f_to_device(Device::Cpu)?)?;
    let found = scores.into_iter().zip(places).zip(boxes.as_chunks::<4>().0);
    Ok(found
        .filter(|((score, _), _)| score.is_finite())
        .map(|((score, place), bbox)| Detected {
            class: (place / count) as usize,
            score,
            bbox: *bbox,
            mask: None,
        })
        .collect())
}

/// Boxes …×4 as changes of others, as [`super::boxes::decode`] says, within pictures of the widths and heights in
/// `shown`, …×2.
///
/// # Errors
/// Out of memory.
pub(super) fn decode(
    base: &Tensor,
    deltas: &Tensor,
    weights: &[f32; 4],
    shown: &Tensor,
) -> Result<Tensor> {
    let weights = Tensor::f_from_slice(weights)?.f_to_device(deltas.device())?;
    let (by, grown) = corners(&deltas.f_div(&weights)?)?;
    let (low, high) = corners(base)?;
    let sides = high.f_sub(&low)?;
    let middle = low
        .f_add(&sides.f_mul_scalar(0.5)?)?
        .f_add(&by.f_mul(&sides)?)?;
    let half = sides.f_mul_scalar(0.5)?.f_mul(
        &grown
            .f_clamp_max(f64::from(super::boxes::MOST_GROWTH))?
            .f_exp()?,
    )?;
    let within = |edge: Tensor| -> Result<Tensor> { Ok(edge.f_minimum(shown)?.f_clamp_min(0.0)?) };
    let (low, high) = (within(middle.f_sub(&half)?)?, within(middle.f_add(&half)?)?);
    Ok(Tensor::f_cat(&[low, high], -1)?)
}

/// Widths and heights of images, N×2.
///
/// # Errors
/// Out of memory.
pub(super) fn sizes(shown: &[(usize, usize)], device: Device) -> Result<Tensor> {
    let flat: Vec<f32> = shown
        .iter()
        .flat_map(|&(width, height)| [width as f32, height as f32])
        .collect();
    let sizes = Tensor::f_from_slice(&flat)?.f_reshape([-1, 2])?;
    Ok(sizes.f_to_device(device)?)
}

/// The regions that stay of each image, surest first: from B×K×4 boxes and B×K scores, −∞ where a box is none.
///
/// # Errors
/// Out of memory.
pub(super) fn best_regions(
    boxes: &Tensor,
    scores: &Tensor,
    most: usize,
) -> Result<Vec<Vec<Edges>>> {
    let (images, count) = scores.size2()?;
    let most = count.min(most as i64);
    let (scores, places) = scores.f_topk(most, 1, true, true)?;
    let places = places.f_unsqueeze(2)?.f_expand([images, most, 4], false)?;
    let (scores, boxes) = (
        download(&scores)?.data,
        download(&boxes.f_gather(1, &places, false)?)?.data,
    );
    let rows = scores.chunks(most.max(1) as usize);
    let regions = boxes.as_chunks::<4>().0.chunks(most.max(1) as usize);
    Ok(rows
        .zip(regions)
        .map(|(scores, regions)| {
            let valid = scores.iter().zip(regions).filter(|(s, _)| s.is_finite());
            valid.map(|(_, region)| *region).collect()
        })
        .collect())
}
