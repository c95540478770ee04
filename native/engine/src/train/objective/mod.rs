//! Losses of detectors, chosen by the [`Head`] of the graph.

mod boxes;
pub mod pico;
mod simota;
mod two_stage;
pub mod yolo;
mod yolo_targets;

use std::fmt::Debug;

use oarlock_datasets::DetectTarget;
use oarlock_graph::{Graph, Head, Op, WeightMap};
use oarlock_imaging::Object;
use tch::Tensor;

use super::learner::Learned;
use crate::Result;
use crate::exec::Network;

/// What a detector is trained for.
pub trait Objective: Debug {
    /// Forward pass in training and its losses; their sum is minimised, each is logged.
    ///
    /// `input` is N×3×h×w as made by [`crate::exec::network_input`]; `objects` has one entry for each image, in
    /// pixels of the input. Images without objects are allowed.
    ///
    /// # Errors
    /// Out of memory, device failures.
    fn learn(
        &self,
        network: &Network,
        input: &Tensor,
        objects: &[DetectTarget],
        seed: u64,
    ) -> Result<Learned>;
}

/// The objective of the model `model` (a name of the zoo), whose graph ends with `head`.
///
/// # Errors
/// None for the heads of today.
pub fn objective(model: &str, head: &Head) -> Result<Box<dyn Objective>> {
    Ok(match head {
        Head::Yolo(head) => Box::new(yolo::Yolo::new(model, head.clone())),
        Head::Pico(head) => Box::new(pico::Pico::new(head.clone())),
        Head::TwoStage(head) => Box::new(two_stage::TwoStage::new(head)),
    })
}

/// Whether a training of `graph` that begins with `weights` keeps its batch norms as they are; `None` for networks
/// whose norms are always trained.
///
/// A two-stage detector sees few images a step, whose statistics are poor: PaddleX freezes the norms of its pretrained
/// backbones. Norms without measured statistics cannot be frozen: nothing would be normalised.
pub fn freezes_norms(graph: &Graph, weights: &WeightMap) -> Option<bool> {
    let Some(Head::TwoStage(_)) = graph.head else {
        return None;
    };
    let differs = |name: String, from: f32| {
        let found = weights.get(&name);
        found.is_some_and(|t| t.data.iter().any(|v| *v != from))
    };
    let norms = graph
        .nodes
        .iter()
        .filter(|n| matches!(n.op, Op::BatchNorm { .. }));
    let own: Vec<&str> = norms
        .filter(|n| n.shares.is_none())
        .map(|n| n.name.as_str())
        .collect();
    let measured = |name: &&str| {
        differs(format!("{name}.running_mean"), 0.0) || differs(format!("{name}.running_var"), 1.0)
    };
    Some(!own.is_empty() && own.iter().all(measured))
}

/// Losses under their names in PaddleX, scalars.
pub type Parts = Vec<(String, Tensor)>;

/// What a one-stage detector learns of an image: things with an area, groups left out.
fn learned(target: &DetectTarget) -> impl Iterator<Item = &Object> {
    target.objects.iter().filter(|o| {
        let b = o.bbox;
        !o.crowd && b.x2 > b.x1 && b.y2 > b.y1 && o.weight > 0.0
    })
}

/// Adds up losses of the same name.
fn add(sums: &mut Parts, parts: Parts) -> Result<()> {
    for (name, part) in parts {
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum = sum.f_add(&part)?,
            None => sums.push((name, part)),
        }
    }
    Ok(())
}
