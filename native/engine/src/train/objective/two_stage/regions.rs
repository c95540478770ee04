//! Which regions the second stage is trained on, and the losses of its classes and boxes.

use oarlock_graph::TwoStageHead;
use oarlock_imaging::Rng;
use tch::{Kind, Reduction, Tensor};

use super::Truth;
use super::sampling::Sampling;
use crate::Result;
use crate::detect::boxes::{Edges, encode, iou};

/// Overlap from which a region shows an object; below it shows none.
const OBJECT: f32 = 0.5;

/// A sampled region.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Region {
    pub bbox: Edges,
    /// The object it shows; `None` for background.
    pub shows: Option<usize>,
}

/// The regions of an image, those that show an object first. The objects' own boxes are among the proposals.
pub(super) fn sample(
    mut proposals: Vec<Edges>,
    truths: &[Truth],
    sampling: Sampling,
    random: Option<&mut Rng>,
) -> Vec<Region> {
    proposals.extend(truths.iter().map(|t| t.bbox));
    let (mut objects, mut background) = (Vec::new(), Vec::new());
    let mut matches = vec![0; proposals.len()];
    for ((i, region), matched) in (0..).zip(&proposals).zip(&mut matches) {
        let mut most = 0.0;
        for (object, truth) in truths.iter().enumerate() {
            let overlap = iou(&truth.bbox, region);
            if overlap > most {
                (most, *matched) = (overlap, object);
            }
        }
        if most >= OBJECT {
            objects.push(i);
        } else {
            background.push(i);
        }
    }
    let (objects, background) = sampling.draw(objects, background, random);
    let region = |shows: bool| {
        let (proposals, matches) = (&proposals, &matches);
        move |i: u32| Region {
            bbox: proposals[i as usize],
            shows: shows.then(|| matches[i as usize]),
        }
    };
    let objects = objects.into_iter().map(region(true));
    objects
        .chain(background.into_iter().map(region(false)))
        .collect()
}

/// Cross-entropy of the classes, a mean over all regions, and L1 of the boxes of those that show an object, over all
/// regions too.
///
/// # Errors
/// Out of memory.
pub(super) fn losses(
    head: &TwoStageHead,
    scores: &Tensor,
    deltas: &Tensor,
    regions: &[Vec<Region>],
    truths: &[Vec<Truth>],
) -> Result<(Tensor, Tensor)> {
    let device = scores.device();
    let (mut labels, mut rows, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for (regions, truths) in regions.iter().zip(truths) {
        for region in regions {
            let truth = region.shows.map(|object| &truths[object]);
            if let Some(truth) = truth {
                rows.push((labels.len() * head.classes + truth.class) as i64);
                targets.extend(encode(&region.bbox, &truth.bbox, &head.delta_weights));
            }
            labels.push(truth.map_or(head.classes, |t| t.class) as i64);
        }
    }
    // Images without objects and without proposals leave nothing to learn.
    let count = labels.len().max(1) as f64;
    let labels = Tensor::f_from_slice(&labels)?.f_to_device(device)?;
    let cls = scores
        .f_to_kind(Kind::Float)?
        .f_cross_entropy_loss::<&Tensor>(&labels, None, Reduction::Sum, -100, 0.0)?;
    let rows = Tensor::f_from_slice(&rows)?.f_to_device(device)?;
    let targets = Tensor::f_from_slice(&targets)?
        .f_reshape([-1, 4])?
        .f_to_device(device)?;
    let found = deltas.f_reshape([-1, 4])?.f_index_select(0, &rows)?;
    let reg = found.f_l1_loss(&targets, Reduction::Sum)?;
    Ok((cls.f_div_scalar(count)?, reg.f_div_scalar(count)?))
}
