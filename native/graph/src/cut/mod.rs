//! Where to cut a network so that pruning one group re-runs only what changes.
//!
//! Sensitivity analysis evaluates the same images with one group pruned after the other. What stands
//! before a group's layers computes the same every time, and filters do not see each other: the first
//! layers of a group, and what treats channels one by one behind them, only lose channels
//! ([`crate::kept_channels`]). With those values kept, only the rest has to run. Pruning keeps node
//! numbers, so the nodes named here are those of the pruned graphs too.

mod plan;

use std::collections::BTreeSet;

use crate::channels::is_depthwise;
use crate::{ChannelGroup, Graph, GraphError, NodeId, Op, cost, infer_shapes};

pub use plan::{CutPlan, CutStep, plan_cuts};

const BYTES_PER_VALUE: u64 = 4;

/// What a group needs to be evaluated without the nodes before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutPoint {
    /// Name of the group.
    pub group: String,
    /// First node, in graph order, that must be computed anew when the group is pruned.
    pub first: NodeId,
    /// Values to keep, ascending; pruning takes at most channels from them. The image itself is not
    /// counted among them.
    pub keep: Vec<NodeId>,
    /// Their size for one image, fp32, in bytes.
    pub bytes: u64,
    /// Multiply–accumulates of what then runs for one image.
    pub macs: u64,
}

/// Nodes that must run, ascending, so that the values `wanted` exist when the values `available` do. The
/// input node is listed if the image is needed.
pub fn nodes_to_run(graph: &Graph, available: &[NodeId], wanted: &[NodeId]) -> Vec<NodeId> {
    let mut needed = BTreeSet::new();
    let mut open = wanted.to_vec();
    while let Some(node) = open.pop() {
        if !available.contains(&node) && needed.insert(node) {
            open.extend(&graph.nodes[node].inputs);
        }
    }
    needed.into_iter().collect()
}

/// The latest cut of each group for images of `image_size` (height, width), in the order of `groups`:
/// everything runs that must be computed anew, nothing else that multiplies. A value that a cheap operation (no
/// multiply–accumulates) makes of smaller ones, such as an enlarged map, is left out in favour of those.
///
/// # Errors
/// See [`infer_shapes`].
pub fn cut_points(
    graph: &Graph,
    groups: &[ChannelGroup],
    image_size: [usize; 2],
) -> Result<Vec<CutPoint>, GraphError> {
    let sizes = Sizes::new(graph, image_size)?;
    Ok(groups
        .iter()
        .map(|group| cut_point(&sizes, group))
        .collect())
}

fn cut_point(sizes: &Sizes, group: &ChannelGroup) -> CutPoint {
    let graph = sizes.graph;
    let renewed = renewed(graph, group);
    let needed = nodes_to_run(graph, &[], &sizes.outputs);
    let runs = || needed.iter().copied().filter(|&id| renewed[id]);
    let inputs = runs().flat_map(|id| &graph.nodes[id].inputs);
    let outputs = sizes.outputs.iter();
    let mut keep: BTreeSet<NodeId> = inputs.chain(outputs).copied().collect();
    keep.retain(|&id| !renewed[id]);
    sizes.shrink(&mut keep, &renewed);
    let keep: Vec<NodeId> = keep.into_iter().filter(|&id| !sizes.is_image(id)).collect();
    CutPoint {
        group: group.name.clone(),
        first: renewed.iter().position(|&r| r).unwrap_or(0),
        bytes: sizes.bytes(&keep),
        macs: runs().map(|id| sizes.macs[id]).sum(),
        keep,
    }
}

/// What pruning a group does to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    /// Nothing.
    Same,
    /// It loses channels; those that stay are the same.
    Fewer,
    /// It must be computed anew.
    New,
}

/// Which values must be computed anew when `group` is pruned: those that mix what has lost channels, and
/// all that comes from them.
fn renewed(graph: &Graph, group: &ChannelGroup) -> Vec<bool> {
    let mut effects: Vec<Effect> = Vec::with_capacity(graph.nodes.len());
    for (id, node) in graph.nodes.iter().enumerate() {
        let inputs = node.value_inputs().iter().map(|&input| effects[input]);
        let before = inputs.max().unwrap_or(Effect::Same);
        let mixes = match node.op {
            Op::Conv2d { .. } => !is_depthwise(&node.op),
            Op::DeformConv2d { .. } | Op::ConvTranspose2d { .. } => true,
            Op::Linear { .. } | Op::Softmax => true,
            _ => false,
        };
        effects.push(match before {
            Effect::Same if group.layers.contains(&id) => Effect::Fewer,
            Effect::Fewer if mixes => Effect::New,
            other => other,
        });
    }
    effects.into_iter().map(|e| e == Effect::New).collect()
}

/// Bytes and multiply–accumulates of every node, for one image.
struct Sizes<'a> {
    graph: &'a Graph,
    bytes: Vec<u64>,
    macs: Vec<u64>,
    outputs: Vec<NodeId>,
}

impl<'a> Sizes<'a> {
    fn new(graph: &'a Graph, image_size: [usize; 2]) -> Result<Self, GraphError> {
        let [height, width] = image_size;
        let shapes = infer_shapes(graph, [1, graph.input_channels(), height, width])?;
        let bytes = shapes.iter().map(|s| s.iter().product::<usize>() as u64);
        Ok(Self {
            graph,
            bytes: bytes.map(|values| values * BYTES_PER_VALUE).collect(),
            macs: cost(graph, image_size)?
                .nodes
                .iter()
                .map(|n| n.macs)
                .collect(),
            outputs: graph.outputs.iter().map(|o| o.node).collect(),
        })
    }

    /// The image needs no keeping: the decoded images are at hand anyway.
    fn is_image(&self, id: NodeId) -> bool {
        matches!(self.graph.nodes[id].op, Op::Input { .. })
    }

    fn bytes<'i>(&self, nodes: impl IntoIterator<Item = &'i NodeId>) -> u64 {
        let kept = nodes.into_iter().filter(|&&id| !self.is_image(id));
        kept.map(|&id| self.bytes[id]).sum()
    }

    /// Replaces values by what they are cheaply made of while that takes less room and does not change.
    fn shrink(&self, keep: &mut BTreeSet<NodeId>, renewed: &[bool]) {
        // From the back: what replaces a value stands before it.
        let mut at = keep.last().copied();
        while let Some(id) = at {
            let mut other = keep.clone();
            let mut source = id;
            while self.macs[source] == 0 {
                let inputs = &self.graph.nodes[source].inputs;
                // A map of which only the size is read may change.
                if inputs.iter().any(|&input| renewed[input]) {
                    break;
                }
                other.remove(&source);
                other.extend(inputs);
                if !inputs.is_empty() && self.bytes(&other) < self.bytes(&*keep) {
                    *keep = other;
                    break;
                }
                let [input] = inputs[..] else { break };
                source = input;
            }
            at = keep.range(..id).next_back().copied();
        }
    }
}
