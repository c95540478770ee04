//! From sensitivities to the network that a pruned training begins with.

use std::path::Path;

use indexmap::IndexMap;
use oarlock_graph::{
    ChannelGroups, Criterion, Graph, Keep, PruningPlan, Sensitivities, WeightMap, channel_groups,
    cost, keep_by_ratios, plan_for_flops, plan_for_loss, prune,
};
use oarlock_jobs::{ErrorCode, ModelSource, PruneSpec, PruneSummary, PruneTarget};

use super::table::{Table, graph_hash, weights_hash};
use super::{JUDGES, unusable};
use crate::jobs::model::{self, Model};
use crate::{EngineError, Result};

/// Channels stay multiples of this: processors and GPUs compute odd numbers of channels no faster.
const ALIGN: Option<usize> = Some(8);
/// Largest difference between the share of FLOPs asked for and reached.
const MAX_MISS: f64 = 0.05;

/// What a pruned training begins with.
#[derive(Debug)]
pub struct Start {
    /// The smaller network.
    pub graph: Graph,
    /// Its weights, those of the parent that stay.
    pub weights: WeightMap,
    /// What was done.
    pub summary: PruneSummary,
    /// The same for people.
    pub notes: Vec<String>,
}

/// What a pruned training wants.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Checkpoint folder of the parent.
    pub checkpoint: &'a str,
    /// The network before it was pruned: its name, backbone included, and channels are those of the parent.
    pub whole: &'a Graph,
    /// Classes of the dataset.
    pub labels: &'a [String],
    /// Height and width of its images.
    pub image_size: [usize; 2],
    /// How filters are judged.
    pub criterion: Criterion,
}

/// Opens the parent's model and prunes it.
///
/// # Errors
/// `NotReady` when the sensitivities are missing or incomplete; `InvalidData` when they belong to another network, or the
/// parent to other classes; `InvalidArgument` when the target makes no sense, cannot be reached, or leaves all as it is;
/// what opening the checkpoint says.
pub fn start(spec: &PruneSpec, wanted: Wanted) -> Result<Start> {
    check_target(&spec.target)?;
    let model = model::open(&ModelSource {
        checkpoint: wanted.checkpoint.to_owned(),
        epoch: None,
    })?;
    check_parent(&model, wanted)?;
    let table = Table::read(Path::new(&spec.sensitivities))?;
    if !table.complete() {
        return Err(EngineError::new(
            ErrorCode::NotReady,
            format!(
                "the sensitivity analysis was stopped after {} of {} layers",
                table.sensitivities.len(),
                table.groups
            ),
        )
        .hint("start it again: it goes on where it stopped"));
    }
    if table.fingerprint.graph != graph_hash(&model.graph)? {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            format!(
                "the sensitivities were measured on another network ({}) than the parent's model",
                table.model
            ),
        )
        .with("path", spec.sensitivities.clone())
        .hint("run the sensitivity analysis of the parent task again"));
    }
    let mut start = cut(&model, &table.sensitivities, &spec.target, wanted)?;
    if table.fingerprint.weights != weights_hash(&model.weights) {
        start.notes.push(
            "the parent was trained further since its sensitivities were measured".to_owned(),
        );
    }
    Ok(start)
}

fn check_target(target: &PruneTarget) -> Result<()> {
    let (good, what) = match *target {
        PruneTarget::Loss { value } => (
            value >= 0.0 && value.is_finite(),
            format!("the metric loss must be a number of at least 0, not {value}"),
        ),
        PruneTarget::Flops { value } => (
            value > 0.0 && value < 1.0,
            format!("the share of pruned FLOPs must lie between 0 and 1, not {value}"),
        ),
    };
    if good {
        Ok(())
    } else {
        Err(EngineError::new(ErrorCode::InvalidArgument, what))
    }
}

fn check_parent(parent: &Model, wanted: Wanted) -> Result<()> {
    if parent.graph.name != wanted.whole.name {
        return Err(EngineError::new(
            ErrorCode::InvalidArgument,
            format!(
                "the parent's model is {}, this task wants {}",
                parent.graph.name, wanted.whole.name
            ),
        )
        .hint("a pruned training keeps its parent's model"));
    }
    let [theirs, ours] = [&parent.graph, wanted.whole].map(Graph::input_channels);
    if theirs != ours {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            format!(
                "the parent takes pictures of {theirs} channels, those of the dataset have {ours}"
            ),
        )
        .hint("a pruned training needs the channels of its parent"));
    }
    if parent.yml.labels != wanted.labels {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            format!(
                "the parent knows the classes {:?}, the dataset has {:?}",
                parent.yml.labels, wanted.labels
            ),
        )
        .hint("a pruned training needs the classes of its parent"));
    }
    Ok(())
}

fn cut(
    model: &Model,
    sensitivities: &Sensitivities,
    target: &PruneTarget,
    wanted: Wanted,
) -> Result<Start> {
    let (graph, weights) = (&model.graph, &model.weights);
    let groups = channel_groups(graph).map_err(unusable)?;
    let size = wanted.image_size;
    let plan = match *target {
        PruneTarget::Loss { value } => {
            plan_for_loss(graph, &groups, sensitivities, value, size, ALIGN)
        }
        PruneTarget::Flops { value } => {
            plan_for_flops(graph, &groups, sensitivities, value, size, ALIGN)
        }
    };
    let plan = plan.map_err(unusable)?;
    check_reached(&plan, target, sensitivities)?;
    let keep = keep_by_ratios(
        graph,
        weights,
        &groups,
        &plan.ratios,
        wanted.criterion,
        JUDGES,
        ALIGN,
    )
    .map_err(unusable)?;
    let (pruned, sliced) = prune(graph, weights, &groups, &keep).map_err(unusable)?;
    let [before, after] = [graph, &pruned].map(|graph| cost(graph, size));
    let (before, after) = (
        before.map_err(unusable)?.total,
        after.map_err(unusable)?.total,
    );
    let summary = PruneSummary {
        macs_before: before.macs,
        macs_after: after.macs,
        parameters_before: before.params,
        parameters_after: after.params,
        tolerance: plan.tolerance,
        ratios: shares(&groups, &keep),
    };
    let notes = vec![format!(
        "pruned: {:.1} % of the multiply-accumulates ({} to {}) and {:.1} % of the parameters ({} to {}) are gone",
        100.0 * plan.removed_flops,
        before.macs,
        after.macs,
        100.0 * plan.removed_params,
        before.params,
        after.params
    )];
    Ok(Start {
        graph: pruned,
        weights: sliced,
        summary,
        notes,
    })
}

fn check_reached(
    plan: &PruningPlan,
    target: &PruneTarget,
    sensitivities: &Sensitivities,
) -> Result<()> {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    if let PruneTarget::Flops { value } = *target
        && plan.removed_flops < value - MAX_MISS
    {
        return Err(EngineError::new(
            ErrorCode::InvalidArgument,
            format!(
                "{} of the FLOPs cannot be pruned: removing all that was measured reaches {}",
                percent(value),
                percent(plan.removed_flops)
            ),
        )
        .with("reached", plan.removed_flops)
        .hint("ask for a smaller share"));
    }
    if plan.removed_params <= 0.0 {
        let least = sensitivities.values().flatten().map(|&(_, loss)| loss);
        let least = least.fold(f64::INFINITY, f64::min);
        return Err(EngineError::new(
            ErrorCode::InvalidArgument,
            format!(
                "nothing is left to prune at a metric loss of {}: the smallest loss measured is {least:.4}, and channels go in eights",
                plan.tolerance
            ),
        )
        .with("smallest_loss", least)
        .hint("allow a larger loss"));
    }
    Ok(())
}

/// Share of its channels that each group really lost.
fn shares(groups: &ChannelGroups, keep: &Keep) -> IndexMap<String, f64> {
    let all = groups.groups.iter();
    all.filter_map(|group| {
        let kept = keep.get(&group.name)?.len();
        let share = 1.0 - kept as f64 / group.size().max(1) as f64;
        (share > 0.0).then(|| (group.name.clone(), share))
    })
    .collect()
}
