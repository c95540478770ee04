//! RoIAlign: the shim's on a CPU, else out of libtorch's own operations, for all devices and number formats.
//!
//! Of the latter:
//! A pooled value is a weighted sum of pixels, and the weights are a product of one for its rows and one for its
//! columns. So each cell is a bag of pixels of an embedding table, which is the maps of all levels with one pixel
//! a row; no sample is ever stored.

use oarlock_graph::level_areas;
use tch::{Device, Kind, Tensor};

use super::deform::precise;
use crate::ffi::{self, Pooling};
use crate::{EngineError, Result};

/// Pools the regions `rois` (K×5) from `levels` (N×C×H×W each) to K×C×h×w. Batch indices beyond the batch are taken
/// for the nearest one; without any region the result has no rows and its gradient is zero.
///
/// # Errors
/// No level; out of memory.
pub(super) fn roi_align(rois: &Tensor, levels: &[&Tensor], p: &Pooling) -> Result<Tensor> {
    let own = |map: &&Tensor| {
        map.device() == Device::Cpu && matches!(map.kind(), Kind::Float | Kind::BFloat16)
    };
    if levels.iter().all(own) && rois.size2()?.0 > 0 {
        return ffi::roi_align(rois, levels, p);
    }
    composed(rois, levels, p)
}

/// [`roi_align`] out of libtorch's operations.
///
/// # Errors
/// As there.
pub(super) fn composed(rois: &Tensor, levels: &[&Tensor], p: &Pooling) -> Result<Tensor> {
    let first = levels
        .first()
        .ok_or_else(|| EngineError::internal("regions need a map"))?;
    let (n, channels, _, _) = first.size4()?;
    let kind = precise(first.kind());
    let rows = levels
        .iter()
        .map(|map| Ok(map.f_permute([0, 2, 3, 1])?.f_reshape([-1, channels])?))
        .collect::<Result<Vec<_>>>()?;
    let rows = match &rows[..] {
        [only] => only.shallow_clone(),
        all => Tensor::f_cat(all, 0)?,
    };
    let count = rois.size2()?.0;
    let [height, width] = p.size;
    let pooled = if count == 0 {
        rows.f_narrow(0, 0, 0)?
            .f_reshape([0, height, width, channels])?
    } else {
        let bags = tch::no_grad(|| bags(rois, levels, n, kind, p))?;
        let (sums, _, _, _) = Tensor::f_embedding_bag(
            &rows.f_to_kind(kind)?,
            &bags.pixels,
            &bags.starts,
            false,
            0,
            false,
            Some(&bags.weights),
            false,
        )?;
        sums.f_reshape([count, height, width, channels])?
            .f_to_kind(first.kind())?
    };
    ffi::to_channels_last(&pooled.f_permute([0, 3, 1, 2])?)
}

/// Which pixels make each cell (region by region, row by row), and with which weights.
struct Bags {
    pixels: Tensor,
    weights: Tensor,
    starts: Tensor,
}

fn bags(rois: &Tensor, levels: &[&Tensor], n: i64, kind: Kind, p: &Pooling) -> Result<Bags> {
    let device = levels[0].device();
    let rois = rois.f_to_device(device)?.f_to_kind(kind)?;
    let rois = rois.f_nan_to_num(0.0, 0.0, 0.0)?;
    let count = rois.size2()?.0;
    let edge = |i: i64| rois.f_select(1, i);
    let [left, top, right, bottom] = [edge(1)?, edge(2)?, edge(3)?, edge(4)?];
    let level = level_of(&right.f_sub(&left)?, &bottom.f_sub(&top)?, p.strides)?;

    // Of each region's level: height, width, pixels of the levels before it, pixels of the input for one of it.
    let mut of_level = Vec::new();
    let mut before = 0i64;
    for (map, stride) in levels.iter().zip(p.strides) {
        let (_, _, h, w) = map.size4()?;
        of_level.extend([h as f64, w as f64, before as f64, *stride as f64]);
        before += n * h * w;
    }
    let table = Tensor::f_from_slice(&of_level)?
        .f_reshape([-1, 4])?
        .f_to_device(device)?
        .f_index_select(0, &level)?;
    let column = |i: i64| table.f_select(1, i);
    let (h, w, stride) = (column(0)?, column(1)?, column(3)?);
    let stride = stride.f_to_kind(kind)?;

    let side = |low: &Tensor, high: &Tensor, i: usize, size: Tensor| {
        let side = Side {
            low: low.f_div(&stride)?,
            high: high.f_div(&stride)?,
            size: size.f_to_kind(kind)?,
        };
        side.samples(p.size[i], p)
    };
    let (y, y_weight) = side(&top, &bottom, 0, h.shallow_clone())?;
    let (x, x_weight) = side(&left, &right, 1, w.shallow_clone())?;

    let whole = |t: &Tensor| t.f_to_kind(Kind::Int64);
    let image = whole(&edge(0)?.f_clamp(0, n - 1)?)?;
    let area = whole(&h)?.f_mul(&whole(&w)?)?;
    let first = whole(&column(2)?)?.f_add(&image.f_mul(&area)?)?;
    let (ny, nx) = (y.size()[2], x.size()[2]);
    let [height, width] = p.size;
    let along_y = |t: &Tensor| t.f_reshape([count, height, 1, ny, 1]);
    let along_x = |t: &Tensor| t.f_reshape([count, 1, width, 1, nx]);
    let line = y
        .f_mul(&whole(&w)?.f_reshape([count, 1, 1])?)?
        .f_add(&first.f_reshape([count, 1, 1])?)?;
    let pixels = along_y(&line)?.f_add(&along_x(&x)?)?.f_reshape([-1])?;
    let weights = along_y(&y_weight)?.f_mul(&along_x(&x_weight)?)?;
    let cells = count * height * width;
    let starts = Tensor::f_arange(cells, (Kind::Int64, device))?.f_mul_scalar(ny * nx)?;
    Ok(Bags {
        pixels,
        weights: weights.f_reshape([-1])?,
        starts,
    })
}

/// The level that each region is pooled from, as [`oarlock_graph::pyramid_level`].
fn level_of(width: &Tensor, height: &Tensor, strides: &[usize]) -> Result<Tensor> {
    let area = width.f_clamp_min(0.0)?.f_mul(&height.f_clamp_min(0.0)?)?;
    let mut level = area.f_zeros_like()?.f_to_kind(Kind::Int64)?;
    for least in level_areas(strides) {
        level = level.f_add(&area.f_ge(f64::from(least))?)?;
    }
    Ok(level)
}

/// Regions along one axis, in pixels of their level: K values each.
struct Side {
    low: Tensor,
    high: Tensor,
    size: Tensor,
}

impl Side {
    /// Pixels that each of `cells` cells reads and their weights, both K×cells×2S for the greatest number S of samples.
    fn samples(&self, cells: i64, p: &Pooling) -> Result<(Tensor, Tensor)> {
        let (kind, device) = (self.low.kind(), self.low.device());
        let mut length = self.high.f_sub(&self.low)?;
        let mut low = self.low.shallow_clone();
        if p.aligned {
            low = low.f_sub_scalar(0.5)?;
        } else {
            length = length.f_clamp_min(1.0)?;
        }
        let cell = length.f_div_scalar(cells as f64)?;
        let (most, samples) = match p.sampling {
            0 => {
                // Regions much larger than their map would ask for samples without end.
                let most = self.size.f_max()?.f_double_value(&[])?.max(1.0) * 2.0 + 2.0;
                let samples = cell.f_ceil()?.f_clamp(0.0, most)?;
                (samples.f_max()?.f_double_value(&[])? as i64, samples)
            }
            fixed => (fixed, cell.f_full_like(fixed as f64)?),
        };
        let most = most.max(1);
        let count = self.low.size1()?;
        let part = |t: &Tensor| t.f_reshape([count, 1, 1]);
        let index = |n: i64, shape: [i64; 3]| -> Result<Tensor> {
            Ok(Tensor::f_arange(n, (kind, device))?.f_reshape(shape)?)
        };
        let sample = index(most, [1, 1, most])?;
        let at_least_one = part(&samples.f_clamp_min(1.0)?)?;
        let step = part(&cell)?.f_div(&at_least_one)?;
        let at = part(&low)?
            .f_add(&index(cells, [1, cells, 1])?.f_mul(&part(&cell)?)?)?
            .f_add(&sample.f_add_scalar(0.5)?.f_mul(&step)?)?;
        let size = part(&self.size)?;
        let counted = at
            .f_ge(-1.0)?
            .f_logical_and(&at.f_le_tensor(&size)?)?
            .f_logical_and(&sample.f_lt_tensor(&part(&samples)?)?)?;
        let share = counted.f_to_kind(kind)?.f_div(&at_least_one)?;
        let last = size.f_sub_scalar(1.0)?;
        let at = at.f_clamp_min(0.0)?.f_minimum(&last)?;
        let lower = at.f_floor()?;
        let upper = lower.f_add_scalar(1.0)?.f_minimum(&last)?;
        let second = at.f_sub(&lower)?.f_mul(&share)?;
        let first = share.f_sub(&second)?;
        let pixels = Tensor::f_stack(&[lower, upper], -1)?.f_to_kind(Kind::Int64)?;
        let weights = Tensor::f_stack(&[first, second], -1)?;
        let shape = [count, cells, 2 * most];
        Ok((pixels.f_reshape(shape)?, weights.f_reshape(shape)?))
    }
}
