//! Which values to keep, group after group, within a budget.

use std::collections::BTreeSet;

use super::{CutPoint, Sizes, cut_point, nodes_to_run, renewed};
use crate::{ChannelGroup, Graph, GraphError, NodeId};

/// One group of a sensitivity analysis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutStep {
    /// Name of the group.
    pub group: String,
    /// Values of the unpruned network that are kept while the group is evaluated, ascending; the image
    /// is at hand besides.
    pub keep: Vec<NodeId>,
    /// Those of them that evaluations of the group begin from; pruning takes at most channels from them.
    pub usable: Vec<NodeId>,
    /// Size of `keep` for one image, fp32, in bytes.
    pub bytes: u64,
    /// Multiply–accumulates for one image to make these values from those of the step before; 0 where
    /// they are the same.
    pub prepare_macs: u64,
    /// Multiply–accumulates of one evaluation for one image, before anything is pruned.
    pub macs: u64,
}

/// An order of evaluation that keeps one set of values at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutPlan {
    /// Groups in the order in which to evaluate them.
    pub steps: Vec<CutStep>,
    /// Multiply–accumulates of the whole analysis for one image.
    pub macs: u64,
    /// The same if every evaluation runs the whole network.
    pub brute_force_macs: u64,
}

/// Plans the evaluation of `groups`, `runs` times each (the number of ratios), for images of
/// `image_size` (height, width), with at most `budget` bytes of kept values for one image.
///
/// Groups go from the front of the network to its end, and the kept values move along: a set is replaced
/// batch by batch, so that the budget holds for one set. For each group the plan takes the cheapest of
/// three: the set that is there, the group's own cut point, the latest cut through the whole graph before
/// the first node that must run anew that the budget allows. Each step is best for itself, with the cost of moving counted;
/// what a set is worth to later groups is not, which loses little as moving costs one run of many.
///
/// # Errors
/// See [`crate::infer_shapes`].
pub fn plan_cuts(
    graph: &Graph,
    groups: &[ChannelGroup],
    image_size: [usize; 2],
    budget: u64,
    runs: u32,
) -> Result<CutPlan, GraphError> {
    let sizes = Sizes::new(graph, image_size)?;
    let mut ordered: Vec<(&ChannelGroup, CutPoint)> = groups
        .iter()
        .map(|group| (group, cut_point(&sizes, group)))
        .collect();
    ordered.sort_by_key(|(_, cut)| cut.first);
    let frontiers = frontiers(&sizes);
    let affordable = |keep: &[NodeId]| sizes.bytes(keep) <= budget;

    let mut steps: Vec<CutStep> = Vec::with_capacity(ordered.len());
    let mut held: Vec<NodeId> = Vec::new();
    for (group, cut) in &ordered {
        let renewed = renewed(graph, group);
        let latest = frontiers[..cut.first]
            .iter()
            .rev()
            .find(|keep| affordable(keep));
        let others = [Some(&cut.keep).filter(|keep| affordable(keep)), latest];
        let mut best = step(&sizes, group, &renewed, &held, &held);
        for keep in others.into_iter().flatten() {
            let other = step(&sizes, group, &renewed, &held, keep);
            if total(&other, runs) < total(&best, runs) {
                best = other;
            }
        }
        held.clone_from(&best.keep);
        steps.push(best);
    }
    let whole: u64 = nodes_to_run(graph, &[], &sizes.outputs)
        .iter()
        .map(|&id| sizes.macs[id])
        .sum();
    Ok(CutPlan {
        macs: steps.iter().map(|s| total(s, runs)).sum(),
        brute_force_macs: whole * u64::from(runs) * steps.len() as u64,
        steps,
    })
}

fn total(step: &CutStep, runs: u32) -> u64 {
    step.prepare_macs + u64::from(runs) * step.macs
}

fn step(
    sizes: &Sizes,
    group: &ChannelGroup,
    renewed: &[bool],
    held: &[NodeId],
    keep: &[NodeId],
) -> CutStep {
    let macs = |available: &[NodeId], wanted: &[NodeId]| -> u64 {
        let run = nodes_to_run(sizes.graph, available, wanted);
        run.iter().map(|&id| sizes.macs[id]).sum()
    };
    let usable: Vec<NodeId> = keep.iter().copied().filter(|&id| !renewed[id]).collect();
    CutStep {
        group: group.name.clone(),
        keep: keep.to_vec(),
        bytes: sizes.bytes(keep),
        prepare_macs: macs(held, keep),
        macs: macs(&usable, &sizes.outputs),
        usable,
    }
}

/// For each node the values that it and those before it hand on to later ones (the image aside).
fn frontiers(sizes: &Sizes) -> Vec<Vec<NodeId>> {
    let graph = sizes.graph;
    let mut last_use: Vec<NodeId> = (0..graph.nodes.len()).collect();
    for (id, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|&input| last_use[input] = id);
    }
    sizes
        .outputs
        .iter()
        .for_each(|&id| last_use[id] = usize::MAX);
    let mut open: BTreeSet<NodeId> = BTreeSet::new();
    let mut frontiers = Vec::with_capacity(graph.nodes.len());
    for id in 0..graph.nodes.len() {
        if !sizes.is_image(id) {
            open.insert(id);
        }
        open.retain(|&value| last_use[value] > id);
        frontiers.push(open.iter().copied().collect());
    }
    frontiers
}
