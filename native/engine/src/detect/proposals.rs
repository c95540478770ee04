//! From a region proposal network's maps to proposals.

use oarlock_graph::{Proposals, RpnLevel};
use oarlock_imaging::nms_by_class;
use oarlock_jobs::ErrorCode;
use tch::{Device, Kind, Tensor};

use super::anchors::{Anchors, Level};
use super::boxes::{Edges, clipped, decode, sides};
use super::device;
use crate::{EngineError, Result};

/// What a region proposal network says of all anchors.
#[derive(Debug)]
pub struct Rpn {
    /// The anchors.
    pub anchors: Anchors,
    /// N×anchors before the sigmoid, fp32.
    pub scores: Tensor,
    /// N×anchors×4, fp32.
    pub deltas: Tensor,
}

impl Rpn {
    /// From the maps of all levels, scores N×A×h×w and deltas N×4A×h×w.
    ///
    /// # Errors
    /// Maps that do not fit; out of memory.
    pub fn new(levels: &[RpnLevel], maps: &[(Tensor, Tensor)]) -> Result<Self> {
        let mut sizes = Vec::with_capacity(maps.len());
        let (mut scores, mut deltas) = (Vec::new(), Vec::new());
        for (score, delta) in maps {
            let &[n, _, height, width] = &score.size()[..] else {
                return Err(EngineError::internal("a map of scores has four sizes"));
            };
            sizes.push((height as usize, width as usize));
            let rows = |map: &Tensor, shape: &[i64]| -> Result<Tensor> {
                let inner = map.f_permute([0, 2, 3, 1])?.f_to_kind(Kind::Float)?;
                Ok(inner.f_reshape(shape)?)
            };
            scores.push(rows(score, &[n, -1])?);
            deltas.push(rows(delta, &[n, -1, 4])?);
        }
        let anchors = Anchors::new(levels, &sizes);
        let (scores, deltas) = (Tensor::f_cat(&scores, 1)?, Tensor::f_cat(&deltas, 1)?);
        let count = anchors.count() as i64;
        if scores.size()[1] != count || deltas.size()[1] != count {
            return Err(EngineError::internal(format!(
                "the maps have scores for {} and boxes for {} anchors instead of {count}",
                scores.size()[1],
                deltas.size()[1]
            )));
        }
        Ok(Self {
            anchors,
            scores,
            deltas,
        })
    }

    /// The surest regions of each image, surest first, in pixels of the input within the width and height that each
    /// image has there: the best anchors of each level, moved, suppressed level by level, then the best of all.
    ///
    /// Only the best anchors leave the device. Regions that are no numbers are left out, unless `strict`.
    ///
    /// # Errors
    /// `NonFinite` for NaN among the best scores where `strict`; device failures.
    pub fn propose(
        &self,
        how: &Proposals,
        shown: &[(usize, usize)],
        strict: bool,
    ) -> Result<Vec<Vec<Edges>>> {
        let _guard = tch::no_grad_guard();
        if device::chooses(self.scores.device()) {
            return self.propose_there(how, shown, strict);
        }
        let best = self.best(how.before)?;
        if strict && best.values.iter().any(|v| v.is_nan()) {
            return Err(non_finite());
        }
        let image = |(i, shown): (usize, &(usize, usize))| best.proposals(i, self, how, *shown);
        Ok(shown.iter().enumerate().map(image).collect())
    }

    /// [`Self::propose`] where the maps are: only the regions leave the device.
    pub(super) fn propose_there(
        &self,
        how: &Proposals,
        shown: &[(usize, usize)],
        strict: bool,
    ) -> Result<Vec<Vec<Edges>>> {
        let least = f64::from(how.min_size.max(1.0));
        let shown = device::sizes(shown, self.scores.device())?.f_unsqueeze(1)?;
        let (mut boxes, mut scores) = (Vec::new(), Vec::new());
        for level in self.anchors.levels() {
            let (score, place, deltas) = self.surest(level, how.before)?;
            let whole = deltas.f_isfinite()?.f_all_dim(2, false)?;
            let known = deltas
                .f_isnan()?
                .f_any_dim(2, false)?
                .f_logical_or(&score.f_isnan()?)?
                .f_logical_not()?;
            if strict && known.f_all()?.f_int64_value(&[])? == 0 {
                return Err(non_finite());
            }
            let found = device::decode(&level.on_device(&place)?, &deltas, &[1.0; 4], &shown)?;
            let sides = found.f_narrow(2, 2, 2)?.f_sub(&found.f_narrow(2, 0, 2)?)?;
            let alive = sides
                .f_ge(least)?
                .f_all_dim(2, false)?
                .f_logical_and(&whole)?
                .f_logical_and(&known)?;
            let stays = device::suppressed(&found, &alive, f64::from(how.overlap))?;
            scores.push(score.f_masked_fill(&stays.f_logical_not()?, f64::NEG_INFINITY)?);
            boxes.push(found);
        }
        let (boxes, scores) = (Tensor::f_cat(&boxes, 1)?, Tensor::f_cat(&scores, 1)?);
        device::best_regions(&boxes, &scores, how.after)
    }

    /// Scores N×K, places within the level N×K and deltas N×K×4 of its best anchors, surest first.
    fn surest(&self, level: &Level, before: usize) -> Result<(Tensor, Tensor, Tensor)> {
        let (first, len) = (level.first as i64, level.count() as i64);
        let scores = self.scores.f_narrow(1, first, len)?;
        let (score, place) = scores.f_topk(len.min(before as i64), 1, true, true)?;
        let rows = place.f_unsqueeze(2)?.f_expand([-1, -1, 4], false)?;
        let deltas = self.deltas.f_narrow(1, first, len)?;
        Ok((score, place, deltas.f_gather(1, &rows, false)?))
    }

    /// The best anchors of each level, on the host.
    fn best(&self, before: usize) -> Result<Best> {
        let (mut values, mut places) = (Vec::new(), Vec::new());
        let mut ends = Vec::new();
        for level in self.anchors.levels() {
            let (score, place, deltas) = self.surest(level, before)?;
            let count = place.size()[1] as usize;
            values.push(Tensor::f_cat(&[score.f_unsqueeze(2)?, deltas], 2)?);
            places.push(place.f_add_scalar(level.first as i64)?);
            ends.push(ends.last().copied().unwrap_or(0) + count);
        }
        let flat = |parts: &[Tensor]| -> Result<Tensor> {
            let joined = Tensor::f_cat(parts, 1)?;
            Ok(joined.f_to_device(Device::Cpu)?.f_reshape([-1])?)
        };
        Ok(Best {
            values: Vec::try_from(flat(&values)?)?,
            places: Vec::try_from(flat(&places)?)?,
            ends,
        })
    }
}

/// The best anchors of all images, level by level.
struct Best {
    /// Score and box as a change of the anchor, five values each.
    values: Vec<f32>,
    /// Which anchors.
    places: Vec<i64>,
    /// Where each level ends in an image's part.
    ends: Vec<usize>,
}

impl Best {
    fn proposals(
        &self,
        image: usize,
        rpn: &Rpn,
        how: &Proposals,
        shown: (usize, usize),
    ) -> Vec<Edges> {
        // Paddle's `generate_proposals` keeps no box below one pixel, whatever it is told.
        let least = how.min_size.max(1.0);
        let count = self.ends.last().copied().unwrap_or(0);
        let part = image * count..(image + 1) * count;
        let values = self.values[part.start * 5..part.end * 5].chunks_exact(5);
        let (mut boxes, mut scores, mut levels) = (Vec::new(), Vec::new(), Vec::new());
        let mut level = 0;
        for ((i, value), &place) in values.enumerate().zip(&self.places[part]) {
            while self.ends[level] <= i {
                level += 1;
            }
            let anchor = rpn.anchors.at(place as usize);
            let found = clipped(&decode(&anchor, &value[1..], &[1.0; 4]), shown);
            let (width, height) = sides(&found);
            if width >= least && height >= least && value[1..].iter().all(|v| v.is_finite()) {
                boxes.push(found);
                scores.push(value[0]);
                levels.push(level as u32);
            }
        }
        let kept = nms_by_class(&boxes, &scores, &levels, how.overlap);
        let kept = kept.into_iter().take(how.after);
        kept.map(|i| boxes[i]).collect()
    }
}

/// The regions of all images as the network takes them, K×5, on the device.
///
/// # Errors
/// Out of memory.
pub fn regions<'a>(
    images: impl IntoIterator<Item = &'a [Edges]>,
    device: Device,
) -> Result<Tensor> {
    let mut rows = Vec::new();
    for (image, boxes) in images.into_iter().enumerate() {
        for b in boxes {
            rows.push(image as f32);
            rows.extend(b);
        }
    }
    let rows = Tensor::f_from_slice(&rows)?.f_reshape([-1, 5])?;
    Ok(rows.f_to_device(device)?)
}

/// The error of a network whose outputs are no numbers.
pub(super) fn non_finite() -> EngineError {
    EngineError::new(ErrorCode::NonFinite, "the model gives NaN for an image")
        .hint("its training diverged or its weights are damaged; use an earlier checkpoint")
}
