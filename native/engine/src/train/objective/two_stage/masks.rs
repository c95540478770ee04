//! What the mask of a region should be, and its loss.

use oarlock_imaging::{Object, Plane, Rle};
use tch::{Reduction, Tensor};

use super::Truth;
use super::regions::Region;
use crate::Result;
use crate::detect::boxes::{Edges, sides};
use crate::detect::two_stage::of_classes;

/// The regions of a batch whose masks are learned.
#[derive(Debug)]
pub(super) struct MaskTargets {
    /// Of each image, those that show an object whose outline is known.
    pub regions: Vec<Vec<Edges>>,
    /// Class of each, one image after the other.
    classes: Vec<i64>,
    /// 0 or 1 for each of the `side`² pixels of each, row by row.
    pixels: Vec<f32>,
    side: usize,
}

impl MaskTargets {
    pub fn new(regions: &[Vec<Region>], truths: &[Vec<Truth>], side: usize) -> Self {
        let mut made = Self {
            regions: Vec::with_capacity(regions.len()),
            classes: Vec::new(),
            pixels: Vec::new(),
            side,
        };
        for (regions, truths) in regions.iter().zip(truths) {
            let mut boxes = Vec::new();
            for region in regions {
                let Some(truth) = region.shows.map(|object| &truths[object]) else {
                    continue;
                };
                if let Some(mask) = mask(truth.object, &region.bbox, side) {
                    boxes.push(region.bbox);
                    made.classes.push(truth.class as i64);
                    made.pixels.extend(mask);
                }
            }
            made.regions.push(boxes);
        }
        made
    }
}

/// Mean binary cross-entropy of the masks M×C×s×s, each of its region's class; 0 without any.
///
/// # Errors
/// Out of memory.
pub(super) fn loss(masks: &Tensor, targets: &MaskTargets) -> Result<Tensor> {
    let side = targets.side as i64;
    let truth = Tensor::f_from_slice(&targets.pixels)?
        .f_reshape([-1, side, side])?
        .f_to_device(masks.device())?;
    let logits = of_classes(masks, &targets.classes)?;
    let sum =
        logits.f_binary_cross_entropy_with_logits::<&Tensor>(&truth, None, None, Reduction::Sum)?;
    Ok(sum.f_div_scalar(targets.pixels.len().max(1) as f64)?)
}

/// The object within a region, as `side`×`side` pixels; `None` when only its box is known.
fn mask(object: &Object, region: &Edges, side: usize) -> Option<Vec<f32>> {
    match &object.mask {
        Some(plane) => Some(pooled(plane, region, side)),
        None => outlined(object, region, side),
    }
}

/// Polygons on COCO's raster, shrunk to the region first, as PaddleX does.
fn outlined(object: &Object, region: &Edges, side: usize) -> Option<Vec<f32>> {
    let (width, height) = sides(region);
    let scale = |length: f32| side as f64 / f64::from(length).max(0.1);
    let (x, y) = (scale(width), scale(height));
    let (left, top) = (f64::from(region[0]), f64::from(region[1]));
    let polygons: Vec<Vec<f64>> = object
        .polygons
        .iter()
        .filter(|p| p.len() > 2 && p.iter().flatten().all(|v| v.is_finite()))
        .map(|polygon| {
            let point = |p: &[f32; 2]| [(f64::from(p[0]) - left) * x, (f64::from(p[1]) - top) * y];
            polygon.iter().flat_map(point).collect()
        })
        .collect();
    if polygons.is_empty() {
        return None;
    }
    let raster = Rle::from_polygons(side as u32, side as u32, &polygons).ok()?;
    let plane = raster.to_plane().ok()?;
    Some(plane.data().iter().map(|&v| f32::from(v)).collect())
}

/// A mask pooled within the region (RoIAlign, aligned, at least one sample a pixel), set from 0.5 on. Pooling a
/// rectangle is a sum over rows of sums over columns, so it costs one pass over the region.
fn pooled(plane: &Plane, region: &Edges, side: usize) -> Vec<f32> {
    let columns = taps((region[0], region[2]), plane.width(), side);
    let rows = taps((region[1], region[3]), plane.height(), side);
    let mut sums = vec![0.0_f32; side * side];
    // The sums over columns of one row of the picture, which several rows of the mask may need.
    let mut lines: Vec<Option<Vec<f32>>> = vec![None; plane.height()];
    for (row, taps) in rows.iter().enumerate() {
        for &(y, weight) in taps {
            let line = lines[y].get_or_insert_with(|| {
                let data = &plane.data()[y * plane.width()..][..plane.width()];
                let sum = |taps: &Vec<(usize, f32)>| {
                    taps.iter().map(|&(x, w)| f32::from(data[x]) * w).sum()
                };
                columns.iter().map(sum).collect()
            });
            let sums = &mut sums[row * side..][..side];
            for (sum, value) in sums.iter_mut().zip(line) {
                *sum += weight * *value;
            }
        }
    }
    sums.into_iter()
        .map(|v| f32::from(u8::from(v >= 0.5)))
        .collect()
}

/// Pixels and weights of each of `side` cells along an axis of `count` pixels.
fn taps((from, to): (f32, f32), count: usize, side: usize) -> Vec<Vec<(usize, f32)>> {
    let cell = (to - from) / side as f32;
    let samples = cell.ceil().clamp(1.0, count as f32) as usize;
    let last = count - 1;
    let of_cell = |i: usize| {
        let mut taps: Vec<(usize, f32)> = Vec::with_capacity(2 * samples);
        for s in 0..samples {
            let at = from - 0.5 + (i as f32 + (s as f32 + 0.5) / samples as f32) * cell;
            if at < -1.0 || at > count as f32 {
                continue;
            }
            let at = at.clamp(0.0, last as f32);
            let (low, share) = (at as usize, at.fract());
            taps.push((low, (1.0 - share) / samples as f32));
            taps.push(((low + 1).min(last), share / samples as f32));
        }
        taps
    };
    (0..side).map(of_cell).collect()
}
