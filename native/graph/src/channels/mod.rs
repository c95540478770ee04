//! Which channels must be removed together.
//!
//! Every value of the graph is a list of channels. Layers that mix their inputs (convolutions, linear
//! layers) make new channels; element-wise sums and products tie two channels; concatenation, slices,
//! shuffles and flattening only rearrange the lists. Channels that are tied, directly or through
//! others, form a *unit*: all of it goes or stays. Units that occur in the same values equally often
//! form a *group*, within which any share can be removed: so each layer keeps channels as long as each
//! group keeps a unit. Nothing here knows any particular network.

mod group;
mod ties;
mod trace;

use crate::{Graph, GraphError, NodeId};

pub use trace::FixedReason;
pub(crate) use trace::is_depthwise;

/// Number of a unit of channels, from 0 in graph order.
pub(crate) type Unit = u32;

/// Layers that lose the same channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelGroup {
    /// Name of its representative; `<name>#2` … if that layer represents more groups than one.
    pub name: String,
    /// The first convolution of the group in graph order that is not depthwise, or the first linear
    /// layer if there is none: the layer by whose filters channels are judged (as in PaddleSlim, where
    /// the first convolution of a group is its master).
    pub representative: NodeId,
    /// All convolutions (depthwise ones too) and linear layers whose outputs belong to the group, in
    /// graph order.
    pub layers: Vec<NodeId>,
    /// Its units, in the order of the representative's outputs.
    pub(crate) units: Vec<Unit>,
}

impl ChannelGroup {
    /// How many units it has: the channels of the representative, in all usual networks.
    pub fn size(&self) -> usize {
        self.units.len()
    }
}

/// Layers whose channels cannot be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedLayers {
    /// Convolutions and linear layers with such outputs, in graph order.
    pub layers: Vec<NodeId>,
    /// Why.
    pub reason: FixedReason,
}

/// What can be removed from a graph, and what cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelGroups {
    /// What can be pruned, in graph order.
    pub groups: Vec<ChannelGroup>,
    /// What cannot.
    pub fixed: Vec<FixedLayers>,
    /// Unit of each channel of each node's value.
    pub(crate) units: Vec<Vec<Unit>>,
    /// Number of units.
    pub(crate) unit_count: usize,
}

impl ChannelGroups {
    /// The group called `name`.
    pub fn get(&self, name: &str) -> Option<&ChannelGroup> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The outputs of `node` that belong to unit number `index` of `group`, ascending; empty if none do.
    pub fn channels(&self, node: NodeId, group: &ChannelGroup, index: usize) -> Vec<usize> {
        let (Some(&unit), Some(value)) = (group.units.get(index), self.units.get(node)) else {
            return Vec::new();
        };
        let found = value.iter().enumerate().filter(|(_, u)| **u == unit);
        found.map(|(channel, _)| channel).collect()
    }
}

/// Finds the groups of `graph`.
///
/// # Errors
/// An invalid graph.
pub fn channel_groups(graph: &Graph) -> Result<ChannelGroups, GraphError> {
    Ok(group::group(graph, trace::trace(graph)?))
}
