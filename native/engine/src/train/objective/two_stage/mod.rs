//! What two-stage detectors are trained for: Faster R-CNN (Ren et al. 2015) and Mask R-CNN (He et al. 2017), with the
//! numbers of PaddleX 2.1.
//!
//! Which anchors and regions count is settled on the host, from the objects and the best proposals alone; losses are
//! computed on the device. Everything random comes from the seed of the step.

mod anchors;
mod masks;
mod regions;
mod sampling;
#[cfg(test)]
mod tests;

use oarlock_datasets::DetectTarget;
use oarlock_graph::TwoStageHead;
use oarlock_imaging::{Object, Rng};
use oarlock_jobs::ErrorCode;
use tch::Tensor;

use super::Objective;
use crate::detect::boxes::{Edges, clipped, sides};
use crate::detect::{proposals, two_stage as head_outputs};
use crate::exec::{Network, Pass};
use crate::train::learner::{Learned, total};
use crate::{EngineError, Result};
use regions::Region;
use sampling::Sampling;

/// The losses of a two-stage detector: of the region proposal network, of the classes and boxes of sampled regions, and
/// of the masks of those that show an object.
#[derive(Debug)]
pub(super) struct TwoStage {
    head: TwoStageHead,
    /// Anchors of an image that count.
    anchors: Sampling,
    /// Regions of an image that the second stage is trained on.
    regions: Sampling,
}

/// An object that is learned from.
#[derive(Debug, Clone)]
struct Truth<'a> {
    class: usize,
    /// Within the image; has an area.
    bbox: Edges,
    object: &'a Object,
}

impl TwoStage {
    pub fn new(head: &TwoStageHead) -> Self {
        let sampling = |count, objects| Sampling { count, objects };
        Self {
            head: head.clone(),
            anchors: sampling(256, 0.5),
            regions: sampling(512, 0.25),
        }
    }

    /// The objects of an image that are learned from. Crowds are not: PaddleX reads none of them for training.
    fn truths<'a>(&self, target: &'a DetectTarget) -> Result<Vec<Truth<'a>>> {
        let mut truths = Vec::with_capacity(target.objects.len());
        for object in target.objects.iter().filter(|o| !o.crowd) {
            if object.class >= self.head.classes {
                return Err(EngineError::new(
                    ErrorCode::InvalidData,
                    format!(
                        "an object has the class id {}, but the network knows {} classes",
                        object.class, self.head.classes
                    ),
                )
                .hint("import the dataset again and start the training anew"));
            }
            let b = object.bbox;
            let edges = [b.x1, b.y1, b.x2, b.y2];
            let bbox = clipped(&edges, target.shown);
            let (width, height) = sides(&bbox);
            // Flips and resizes can leave boxes without an area; their sides have no logarithm.
            if edges.iter().all(|v| v.is_finite()) && width > 0.0 && height > 0.0 {
                truths.push(Truth {
                    class: object.class,
                    bbox,
                    object,
                });
            }
        }
        Ok(truths)
    }

    fn masks(
        &self,
        pass: &mut Pass,
        regions: &[Vec<Region>],
        truths: &[Vec<Truth>],
    ) -> Result<Option<Tensor>> {
        let Some(side) = self.head.mask_size else {
            return Ok(None);
        };
        let targets = masks::MaskTargets::new(regions, truths, side);
        let device = pass.output("box_score")?.device();
        let given = proposals::regions(targets.regions.iter().map(Vec::as_slice), device)?;
        pass.give("mask_rois", &given)?;
        masks::loss(&pass.output("mask")?, &targets).map(Some)
    }
}

impl Objective for TwoStage {
    fn learn(
        &self,
        network: &Network,
        input: &Tensor,
        objects: &[DetectTarget],
        seed: u64,
    ) -> Result<Learned> {
        if input.size().first() != Some(&(objects.len() as i64)) {
            return Err(EngineError::internal("each image needs its objects"));
        }
        let device = network.placement().device;
        let shown: Vec<(usize, usize)> = objects.iter().map(|o| o.shown).collect();
        let truths = objects.iter().map(|o| self.truths(o));
        let truths = truths.collect::<Result<Vec<_>>>()?;
        let random = |image: usize, stage: u64| Rng::of(&[seed, image as u64, stage]);

        let mut pass = network.begin(input, true)?;
        let rpn = head_outputs::rpn(&pass, &self.head)?;
        let mut chosen = anchors::AnchorTargets::default();
        for (image, truths) in truths.iter().enumerate() {
            let labels = anchors::assign(&rpn.anchors, truths);
            chosen.add(
                &rpn.anchors,
                truths,
                &labels,
                self.anchors,
                Some(&mut random(image, 0)),
            );
        }
        let (rpn_cls, rpn_reg) = anchors::losses(&rpn, &chosen, self.anchors)?;

        let proposed = rpn.propose(&self.head.train, &shown, false)?;
        let mut sampled = Vec::with_capacity(truths.len());
        for (image, (proposed, truths)) in proposed.into_iter().zip(&truths).enumerate() {
            let mut random = random(image, 1);
            sampled.push(regions::sample(
                proposed,
                truths,
                self.regions,
                Some(&mut random),
            ));
        }
        let boxes: Vec<Vec<Edges>> = sampled
            .iter()
            .map(|image| image.iter().map(|r| r.bbox).collect())
            .collect();
        let given = proposals::regions(boxes.iter().map(Vec::as_slice), device)?;
        pass.give("rois", &given)?;
        let (scores, deltas) = (pass.output("box_score")?, pass.output("box_delta")?);
        let (box_cls, box_reg) = regions::losses(&self.head, &scores, &deltas, &sampled, &truths)?;

        let mut parts = vec![
            ("loss_rpn_cls".to_owned(), rpn_cls),
            ("loss_rpn_reg".to_owned(), rpn_reg),
            ("loss_bbox_cls".to_owned(), box_cls),
            ("loss_bbox_reg".to_owned(), box_reg),
        ];
        if let Some(mask) = self.masks(&mut pass, &sampled, &truths)? {
            parts.push(("loss_mask".to_owned(), mask));
        }
        Ok(Learned {
            loss: total(&parts)?,
            parts,
            output: pass.output("rpn_score0")?,
        })
    }
}
