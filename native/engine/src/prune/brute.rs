//! The analysis without any of its shortcuts, to compare with: for each group and ratio the channels are masked in the
//! trained network, and all images run through all of it.

use oarlock_graph::{Criterion, Graph, Keep, Sensitivities, WeightMap};
use oarlock_graph::{channel_groups, keep_for_ratio, mask, unit_scores};

use super::evaluation::Evaluation;
use super::{JUDGES, RATIOS, relative_loss, unusable};
use crate::Result;
use crate::exec::Network;
use crate::runtime::Placement;

/// Base metric and losses.
///
/// # Errors
/// As [`super::analysis::analyse`].
pub fn brute_force(
    graph: &Graph,
    weights: &WeightMap,
    criterion: Criterion,
    placement: Placement,
    evaluation: &mut dyn Evaluation,
) -> Result<(f64, Sensitivities)> {
    let graph = &graph.without_auxiliary();
    let groups = channel_groups(graph).map_err(unusable)?;
    let mut measure = |weights: &WeightMap| {
        let network = Network::for_inference(graph, weights, placement)?;
        evaluation.measure(&mut |batch| network.forward_all(&(batch.input)()?, false))
    };
    let base = measure(weights)?;
    let mut losses = Sensitivities::new();
    for group in &groups.groups {
        let scores =
            unit_scores(graph, weights, &groups, group, criterion, JUDGES).map_err(unusable)?;
        let mut points = Vec::with_capacity(RATIOS.len());
        for ratio in RATIOS {
            let keep = Keep::from([(group.name.clone(), keep_for_ratio(&scores, ratio, None))]);
            let masked = mask(graph, weights, &groups, &keep).map_err(unusable)?;
            points.push((ratio, relative_loss(base, measure(&masked)?)));
        }
        losses.insert(group.name.clone(), points);
    }
    Ok((base, losses))
}
