//! Removing channels.

mod criterion;
mod search;
mod slice;

use std::collections::BTreeMap;

use crate::channels::{ChannelGroups, is_depthwise};
use crate::{Graph, GraphError, Node, NodeId, Op, WeightMap};

pub use criterion::{Criterion, Judges, keep_for_ratio, kept_count, unit_scores};
pub use search::{
    PruningPlan, Sensitivities, keep_by_ratios, plan_for_flops, plan_for_loss, ratios_for_loss,
    removed_share, tolerance_curve,
};

/// The units that stay, ascending, by name of their group. A group that is not named keeps all.
pub type Keep = BTreeMap<String, Vec<usize>>;

/// `graph` without the channels that `keep` leaves out. `groups` are those of `graph`
/// ([`crate::channel_groups`]). Names of nodes and outputs stay, so do the network's outputs' shapes.
///
/// # Errors
/// A group that does not exist, units that do not exist, are not ascending, or none at all.
pub fn prune_graph(
    graph: &Graph,
    groups: &ChannelGroups,
    keep: &Keep,
) -> Result<Graph, GraphError> {
    let kept = Kept::new(graph, groups, keep)?;
    let nodes = graph.nodes.iter().enumerate();
    let pruned = Graph {
        name: graph.name.clone(),
        nodes: nodes.map(|(id, node)| kept.node(id, node)).collect(),
        outputs: graph.outputs.clone(),
        head: graph.head.clone(),
    };
    pruned.validate()?;
    Ok(pruned)
}

/// The smaller graph and its weights, sliced from `weights`; weights that the graph does not name are
/// left out.
///
/// # Errors
/// See [`prune_graph`]; weights that are missing or misshapen.
pub fn prune(
    graph: &Graph,
    weights: &WeightMap,
    groups: &ChannelGroups,
    keep: &Keep,
) -> Result<(Graph, WeightMap), GraphError> {
    let (pruned, sliced) = slice_where(graph, weights, groups, keep, |_, _| true)?;
    pruned.validate_weights(&sliced)?;
    Ok((pruned, sliced))
}

/// As [`prune`], but only the weights that pruning changes: what shares the rest with the unpruned network
/// needs no more.
///
/// # Errors
/// See [`prune`].
pub fn prune_changes(
    graph: &Graph,
    weights: &WeightMap,
    groups: &ChannelGroups,
    keep: &Keep,
) -> Result<(Graph, WeightMap), GraphError> {
    // Every layer that loses channels says other sizes.
    slice_where(graph, weights, groups, keep, |before, after| {
        before.op != after.op
    })
}

/// The smaller graph, and the weights of those nodes for which `wanted(before, after)` holds.
fn slice_where(
    graph: &Graph,
    weights: &WeightMap,
    groups: &ChannelGroups,
    keep: &Keep,
    wanted: impl Fn(&Node, &Node) -> bool,
) -> Result<(Graph, WeightMap), GraphError> {
    graph.validate_weights(weights)?;
    let pruned = prune_graph(graph, groups, keep)?;
    let kept = Kept::new(graph, groups, keep)?;
    let mut sliced = WeightMap::new();
    for (id, node) in graph.nodes.iter().enumerate() {
        if wanted(node, &pruned.nodes[id]) {
            kept.slice(id, node, weights, &mut sliced);
        }
    }
    Ok((pruned, sliced))
}

/// The channels that `keep` leaves in the value of each of `nodes`, ascending.
///
/// # Errors
/// See [`prune_graph`].
pub fn kept_channels(
    graph: &Graph,
    groups: &ChannelGroups,
    keep: &Keep,
    nodes: &[NodeId],
) -> Result<Vec<Vec<usize>>, GraphError> {
    let kept = Kept::new(graph, groups, keep)?;
    Ok(nodes.iter().map(|&id| kept.alive(id)).collect())
}

/// Weights for the unpruned `graph` in which the channels that `keep` leaves out are dead: filters and
/// biases of convolutions and linear layers, scales and shifts of batch norms are zero for them.
/// Computes what the pruned network computes wherever activations map zero to zero or a dead factor
/// follows (a gate's sigmoid).
///
/// # Errors
/// See [`prune`].
pub fn mask(
    graph: &Graph,
    weights: &WeightMap,
    groups: &ChannelGroups,
    keep: &Keep,
) -> Result<WeightMap, GraphError> {
    graph.validate_weights(weights)?;
    let kept = Kept::new(graph, groups, keep)?;
    let mut masked = weights.clone();
    for (id, node) in graph.nodes.iter().enumerate() {
        for param in node.params() {
            if param.kind.is_statistic() {
                continue;
            }
            if let Some(tensor) = masked.get_mut(&format!("{}.{}", node.name, param.suffix)) {
                slice::zero_rows(tensor, &kept.dead(id));
            }
        }
    }
    Ok(masked)
}

/// Which units stay, resolved against a graph.
struct Kept<'a> {
    groups: &'a ChannelGroups,
    units: Vec<bool>,
}

impl<'a> Kept<'a> {
    fn new(graph: &Graph, groups: &'a ChannelGroups, keep: &Keep) -> Result<Self, GraphError> {
        if groups.units.len() != graph.nodes.len() {
            return Err(graph.error("its channel groups are those of another graph"));
        }
        let mut units = vec![true; groups.unit_count];
        for (name, kept) in keep {
            let group = groups
                .get(name)
                .ok_or_else(|| graph.error(format!("it has no channel group `{name}`")))?;
            let ascending = kept.windows(2).all(|pair| pair[0] < pair[1]);
            if kept.is_empty() || !ascending || kept.iter().any(|&i| i >= group.size()) {
                let reason = format!(
                    "channel group `{name}` must keep at least one of its {} units, each once and in order",
                    group.size()
                );
                return Err(graph.error(reason));
            }
            group
                .units
                .iter()
                .for_each(|&unit| units[unit as usize] = false);
            kept.iter()
                .for_each(|&i| units[group.units[i] as usize] = true);
        }
        Ok(Self { groups, units })
    }

    fn positions(&self, node: usize, kept: bool) -> Vec<usize> {
        let value = self.groups.units[node].iter().enumerate();
        let found = value.filter(|(_, unit)| self.units[**unit as usize] == kept);
        found.map(|(channel, _)| channel).collect()
    }

    /// Channels of the value of `node` that stay.
    fn alive(&self, node: usize) -> Vec<usize> {
        self.positions(node, true)
    }

    /// Channels of the value of `node` that go.
    fn dead(&self, node: usize) -> Vec<usize> {
        self.positions(node, false)
    }

    /// `node` with fewer channels.
    fn node(&self, id: usize, node: &Node) -> Node {
        let mut node = node.clone();
        let depthwise = is_depthwise(&node.op);
        let input = node.inputs.first().copied().unwrap_or(id);
        match &mut node.op {
            Op::Conv2d {
                in_channels,
                out_channels,
                groups,
                ..
            } => {
                *in_channels = self.alive(input).len();
                *out_channels = self.alive(id).len();
                if depthwise {
                    *groups = *in_channels;
                }
            }
            Op::DeformConv2d {
                in_channels,
                out_channels,
                ..
            } => {
                *in_channels = self.alive(input).len();
                *out_channels = self.alive(id).len();
            }
            Op::BatchNorm { channels, .. } => *channels = self.alive(id).len(),
            Op::Linear {
                in_features,
                out_features,
                ..
            } => {
                *in_features = self.alive(input).len();
                *out_features = self.alive(id).len();
            }
            Op::Slice { start, len } => {
                *start = self.alive(input).iter().filter(|&&c| c < *start).count();
                *len = self.alive(id).len();
            }
            // Shuffles keep their number of groups: units hold one channel of each. The rest has no sizes.
            _ => {}
        }
        node
    }

    /// Adds what is left of the parameters of `node` to `sliced`.
    fn slice(&self, id: usize, node: &Node, weights: &WeightMap, sliced: &mut WeightMap) {
        let outputs = self.alive(id);
        // What the second axis of a weight counts; `None` where it does not change.
        let inputs = match node.op {
            Op::Linear { .. } | Op::DeformConv2d { .. } => Some(self.alive(node.inputs[0])),
            Op::Conv2d {
                in_channels,
                groups,
                ..
            } if !is_depthwise(&node.op) => {
                // All groups of a grouped convolution keep the same places: those of the first.
                let mut alive = self.alive(node.inputs[0]);
                alive.retain(|&c| c < in_channels / groups);
                Some(alive)
            }
            _ => None,
        };
        for param in node.params() {
            let name = format!("{}.{}", node.name, param.suffix);
            if matches!(node.op, Op::ConvTranspose2d { .. }) {
                sliced.insert(name.clone(), weights[&name].clone()); // keeps all its channels
                continue;
            }
            let mut tensor = slice::select(&weights[&name], 0, &outputs);
            if let (Some(inputs), true) = (&inputs, param.shape.len() > 1) {
                tensor = slice::select(&tensor, 1, inputs);
            }
            sliced.insert(name, tensor);
        }
    }
}
