//! Which anchors of a region proposal network show objects, and its losses.

use oarlock_imaging::Rng;
use tch::{Reduction, Tensor};

use super::Truth;
use super::sampling::Sampling;
use crate::Result;
use crate::detect::anchors::Anchors;
use crate::detect::boxes::{encode, iou};
use crate::detect::proposals::Rpn;

/// Overlap from which an anchor shows an object.
const OBJECT: f32 = 0.7;
/// Overlap below which it shows none.
const BACKGROUND: f32 = 0.3;

/// What the anchors of an image show.
#[derive(Debug)]
pub(super) struct Labels {
    /// Anchors that show an object.
    pub objects: Vec<u32>,
    /// Anchors that show none; all others do not count.
    pub background: Vec<u32>,
    /// The object that each anchor overlaps most with; 0 without any.
    pub matches: Vec<u32>,
}

/// An anchor shows the object that it overlaps most with, from 0.7 on. Those that no other anchor surpasses in the
/// overlap with some object show an object however low it is, so that each object is shown by one. Anchors may reach
/// beyond the image, as in PaddleX. Memory grows with the anchors, not with the objects.
pub(super) fn assign(anchors: &Anchors, truths: &[Truth]) -> Labels {
    let mut overlaps = vec![0.0_f32; anchors.count()];
    let mut matches = vec![0_u32; anchors.count()];
    let mut highest = vec![0.0_f32; truths.len()];
    for ((i, truth), highest) in (0..).zip(truths).zip(&mut highest) {
        anchors.near(&truth.bbox, |place, anchor| {
            let overlap = iou(&truth.bbox, anchor);
            *highest = highest.max(overlap);
            if overlap > overlaps[place] {
                (overlaps[place], matches[place]) = (overlap, i);
            }
        });
    }
    let mut shows: Vec<bool> = overlaps.iter().map(|&o| o >= OBJECT).collect();
    for (truth, &highest) in truths.iter().zip(&highest) {
        anchors.near(&truth.bbox, |place, anchor| {
            let overlap = iou(&truth.bbox, anchor);
            shows[place] |= overlap > 0.0 && overlap == highest;
        });
    }
    let (mut objects, mut background) = (Vec::new(), Vec::new());
    for ((place, shows), overlap) in (0..).zip(&shows).zip(overlaps) {
        if *shows {
            objects.push(place);
        } else if overlap < BACKGROUND {
            background.push(place);
        }
    }
    Labels {
        objects,
        background,
        matches,
    }
}

/// The sampled anchors of a batch.
#[derive(Debug, Default)]
pub(super) struct AnchorTargets {
    /// Places among the anchors of all images, one image after the other, of those that show an object.
    pub objects: Vec<i64>,
    /// Of those that show none.
    pub background: Vec<i64>,
    /// The objects' boxes as changes of their anchors, four values each.
    pub deltas: Vec<f32>,
    images: usize,
}

impl AnchorTargets {
    /// Draws from the anchors of the next image.
    pub fn add(
        &mut self,
        anchors: &Anchors,
        truths: &[Truth],
        labels: &Labels,
        sampling: Sampling,
        random: Option<&mut Rng>,
    ) {
        let drawn = sampling.draw(labels.objects.clone(), labels.background.clone(), random);
        let first = (self.images * anchors.count()) as i64;
        let all = |places: &[u32]| {
            places
                .iter()
                .map(|&p| first + i64::from(p))
                .collect::<Vec<_>>()
        };
        self.objects.extend(all(&drawn.0));
        self.background.extend(all(&drawn.1));
        for &place in &drawn.0 {
            let truth = &truths[labels.matches[place as usize] as usize];
            let anchor = anchors.at(place as usize);
            self.deltas.extend(encode(&anchor, &truth.bbox, &[1.0; 4]));
        }
        self.images += 1;
    }
}

/// Binary cross-entropy of the sampled anchors, and L1 of the boxes of those that show an object; sums over
/// `sampling.count` anchors of each image.
///
/// # Errors
/// Out of memory.
pub(super) fn losses(
    rpn: &Rpn,
    chosen: &AnchorTargets,
    sampling: Sampling,
) -> Result<(Tensor, Tensor)> {
    let device = rpn.scores.device();
    let norm = (sampling.count * chosen.images) as f64;
    let places = [&chosen.objects[..], &chosen.background].concat();
    let mut labels = vec![1.0_f32; chosen.objects.len()];
    labels.resize(places.len(), 0.0);
    let places = Tensor::f_from_slice(&places)?.f_to_device(device)?;
    let labels = Tensor::f_from_slice(&labels)?.f_to_device(device)?;
    let logits = rpn.scores.f_reshape([-1])?.f_index_select(0, &places)?;
    let cls = logits.f_binary_cross_entropy_with_logits::<&Tensor>(
        &labels,
        None,
        None,
        Reduction::Sum,
    )?;
    let objects = Tensor::f_from_slice(&chosen.objects)?.f_to_device(device)?;
    let target = Tensor::f_from_slice(&chosen.deltas)?
        .f_reshape([-1, 4])?
        .f_to_device(device)?;
    let found = rpn.deltas.f_reshape([-1, 4])?.f_index_select(0, &objects)?;
    let reg = found.f_l1_loss(&target, Reduction::Sum)?;
    Ok((cls.f_div_scalar(norm)?, reg.f_div_scalar(norm)?))
}
