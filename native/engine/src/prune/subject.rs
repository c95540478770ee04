//! A model that is analysed.

use oarlock_graph::{
    ChannelGroups, Criterion, Graph, NodeId, WeightMap, channel_groups, fold_batch_norm,
    unit_scores,
};
use oarlock_jobs::ErrorCode;

use super::{JUDGES, unusable};
use crate::exec::Network;
use crate::runtime::Placement;
use crate::{EngineError, Result};

/// A model whose layers are measured, ready to run.
pub struct Subject {
    pub(super) graph: Graph,
    pub(super) weights: WeightMap,
    pub(super) groups: ChannelGroups,
    /// Importance of each unit, by group.
    pub(super) scores: Vec<Vec<f64>>,
    pub(super) network: Network,
}

impl Subject {
    /// Judges the filters of `graph` and folds its batch norms.
    ///
    /// # Errors
    /// `Unsupported` when nothing in the network can be pruned; `InvalidData` for weights that are not its own; out of
    /// memory.
    pub fn new(
        graph: &Graph,
        weights: &WeightMap,
        criterion: Criterion,
        placement: Placement,
    ) -> Result<Self> {
        // Auxiliary heads have no part in what is measured.
        let graph = &graph.without_auxiliary();
        let trained = channel_groups(graph).map_err(unusable)?;
        if trained.groups.is_empty() {
            return Err(EngineError::new(
                ErrorCode::Unsupported,
                format!("no layer of {} can be pruned", graph.name),
            ));
        }
        // Filters are judged as they were trained: folding scales them.
        let scores = trained
            .groups
            .iter()
            .map(|group| unit_scores(graph, weights, &trained, group, criterion, JUDGES))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(unusable)?;
        let (folded, folded_weights) = fold_batch_norm(graph, weights).map_err(unusable)?;
        let groups = channel_groups(&folded).map_err(unusable)?;
        let names = |groups: &ChannelGroups| -> Vec<(String, usize)> {
            let all = groups.groups.iter();
            all.map(|g| (g.name.clone(), g.size())).collect()
        };
        if names(&groups) != names(&trained) {
            return Err(EngineError::internal(
                "folding the batch norms changed which channels belong together",
            ));
        }
        let network = Network::for_inference(graph, weights, placement)?;
        Ok(Self {
            graph: folded,
            weights: folded_weights,
            groups,
            scores,
            network,
        })
    }

    /// Groups of layers that can be pruned.
    pub fn groups(&self) -> usize {
        self.groups.groups.len()
    }

    pub(super) fn outputs(&self) -> Vec<NodeId> {
        self.graph.outputs.iter().map(|o| o.node).collect()
    }
}
