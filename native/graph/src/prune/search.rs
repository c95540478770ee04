//! From sensitivities to ratios.
//!
//! The rules are PaddleSlim's: a layer may be pruned as far as its own loss stays within a tolerance,
//! between measured ratios the loss is taken as linear, and a target of removed FLOPs is reached by
//! bisecting the tolerance.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::criterion::{Criterion, Judges, keep_for_ratio, kept_count, unit_scores};
use super::{Keep, prune_graph};
use crate::channels::ChannelGroups;
use crate::{Graph, GraphError, WeightMap, cost, parameter_count};

/// Measured (ratio, loss) pairs by name of the group. The loss is relative: (base − pruned) / base of
/// the evaluation metric; it may be negative.
pub type Sensitivities = IndexMap<String, Vec<(f64, f64)>>;

/// What to remove and what that saves.
#[derive(Debug, Clone, PartialEq)]
pub struct PruningPlan {
    /// Loss that each layer alone may cost.
    pub tolerance: f64,
    /// Share to remove by name of the group; groups that keep all are left out.
    pub ratios: BTreeMap<String, f64>,
    /// Share of the multiply–accumulates that goes.
    pub removed_flops: f64,
    /// Share of the parameters that goes.
    pub removed_params: f64,
}

/// For each group the largest share that costs at most `loss`: the greatest measured ratio within it,
/// plus what linear interpolation to the next one allows. Zero for a group whose smallest measured
/// ratio costs more. A loss that is not a number counts as unbearable.
pub fn ratios_for_loss(sensitivities: &Sensitivities, loss: f64) -> BTreeMap<String, f64> {
    let ratio = |points: &[(f64, f64)]| {
        let mut points = points.to_vec();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let last = points.iter().rposition(|&(_, l)| l <= loss)?;
        let (r0, l0) = points[last];
        let Some(&(r1, l1)) = points.get(last + 1) else {
            return Some(r0);
        };
        let share = if l1.is_nan() {
            0.0
        } else {
            (loss - l0) / (l1 - l0)
        };
        Some(r0 + share * (r1 - r0))
    };
    let pairs = sensitivities.iter();
    pairs
        .map(|(name, points)| (name.clone(), ratio(points).unwrap_or(0.0)))
        .collect()
}

/// The units that stay when each group loses the share that `ratios` gives, by importance.
///
/// # Errors
/// A group that does not exist, or weights that are missing or misshapen.
pub fn keep_by_ratios(
    graph: &Graph,
    weights: &WeightMap,
    groups: &ChannelGroups,
    ratios: &BTreeMap<String, f64>,
    criterion: Criterion,
    judges: Judges,
    align: Option<usize>,
) -> Result<Keep, GraphError> {
    let mut keep = Keep::new();
    for (name, &ratio) in ratios {
        let group = named(graph, groups, name)?;
        let scores = unit_scores(graph, weights, groups, group, criterion, judges)?;
        keep.insert(name.clone(), keep_for_ratio(&scores, ratio, align));
    }
    Ok(keep)
}

fn named<'a>(
    graph: &Graph,
    groups: &'a ChannelGroups,
    name: &str,
) -> Result<&'a crate::ChannelGroup, GraphError> {
    let unknown = || graph.error(format!("it has no channel group `{name}`"));
    groups.get(name).ok_or_else(unknown)
}

/// Shares of the multiply–accumulates (for images of `image_size`, height and width) and of the
/// parameters that `keep` removes.
///
/// # Errors
/// See [`prune_graph`] and [`cost`].
pub fn removed_share(
    graph: &Graph,
    groups: &ChannelGroups,
    keep: &Keep,
    image_size: [usize; 2],
) -> Result<(f64, f64), GraphError> {
    let before = cost(graph, image_size)?.total;
    let after = cost(&prune_graph(graph, groups, keep)?, image_size)?.total;
    let share = |before: u64, after: u64| 1.0 - after as f64 / before.max(1) as f64;
    Ok((
        share(before.macs, after.macs),
        share(before.params, after.params),
    ))
}

/// Any units in the right numbers: sizes do not depend on which ones stay.
fn keep_any(
    graph: &Graph,
    groups: &ChannelGroups,
    ratios: &BTreeMap<String, f64>,
    align: Option<usize>,
) -> Result<Keep, GraphError> {
    let mut keep = Keep::new();
    for (name, &ratio) in ratios {
        let size = named(graph, groups, name)?.size();
        keep.insert(name.clone(), (0..kept_count(size, ratio, align)).collect());
    }
    Ok(keep)
}

/// Prunes every group as far as a loss of `tolerance` in that group alone allows. `align` rounds
/// channels to a multiple, see [`kept_count`].
///
/// # Errors
/// A group that does not exist, or an image size that the network cannot take.
pub fn plan_for_loss(
    graph: &Graph,
    groups: &ChannelGroups,
    sensitivities: &Sensitivities,
    tolerance: f64,
    image_size: [usize; 2],
    align: Option<usize>,
) -> Result<PruningPlan, GraphError> {
    let ratios = ratios_for_loss(sensitivities, tolerance);
    plan(graph, groups, ratios, tolerance, image_size, align)
}

fn plan(
    graph: &Graph,
    groups: &ChannelGroups,
    mut ratios: BTreeMap<String, f64>,
    tolerance: f64,
    image_size: [usize; 2],
    align: Option<usize>,
) -> Result<PruningPlan, GraphError> {
    ratios.retain(|_, ratio| *ratio > 0.0);
    let keep = keep_any(graph, groups, &ratios, align)?;
    let (removed_flops, removed_params) = removed_share(graph, groups, &keep, image_size)?;
    Ok(PruningPlan {
        tolerance,
        ratios,
        removed_flops,
        removed_params,
    })
}

/// Searches the tolerance in 0…1 that removes the share `target` of the multiply–accumulates: bisection
/// until both ends agree in the fourth decimal. Where no loss at all allows more than that, all ratios are
/// taken back by one factor instead. Returns the plan nearest to the target, which may be far from it
/// where the sensitivities do not allow more: see its `removed_flops`.
///
/// # Errors
/// See [`plan_for_loss`].
pub fn plan_for_flops(
    graph: &Graph,
    groups: &ChannelGroups,
    sensitivities: &Sensitivities,
    target: f64,
    image_size: [usize; 2],
    align: Option<usize>,
) -> Result<PruningPlan, GraphError> {
    let at = |loss| plan_for_loss(graph, groups, sensitivities, loss, image_size, align);
    let far = |plan: &PruningPlan| (plan.removed_flops - target).abs();
    // Shares grow with the tolerance and with the factor.
    let search = |make: &dyn Fn(f64) -> Result<PruningPlan, GraphError>| {
        let (mut from, mut to) = (0.0, 1.0);
        let (mut low, mut high) = (make(from)?, make(to)?);
        while low.removed_flops < target && target < high.removed_flops {
            if to - from < 1e-9 || high.removed_flops - low.removed_flops < 1e-4 {
                break;
            }
            let middle = (from + to) / 2.0;
            let plan = make(middle)?;
            if plan.removed_flops < target {
                (from, low) = (middle, plan);
            } else {
                (to, high) = (middle, plan);
            }
        }
        Ok(if far(&low) < far(&high) { low } else { high })
    };
    let free = at(0.0)?;
    if free.removed_flops <= target {
        return search(&at);
    }
    search(&|factor| {
        let scaled = free
            .ratios
            .iter()
            .map(|(name, r)| (name.clone(), r * factor));
        plan(graph, groups, scaled.collect(), 0.0, image_size, align)
    })
}

/// The curve behind PaddleX's picture of sensitivities: for tolerances 0.05, 0.10 … 0.95 the share of
/// the parameters that goes, as (share, tolerance).
///
/// # Errors
/// A group that does not exist.
pub fn tolerance_curve(
    graph: &Graph,
    groups: &ChannelGroups,
    sensitivities: &Sensitivities,
) -> Result<Vec<(f64, f64)>, GraphError> {
    let before = parameter_count(graph).max(1) as f64;
    let mut curve = Vec::with_capacity(19);
    for step in 1..20 {
        let tolerance = f64::from(step) / 20.0;
        let ratios = ratios_for_loss(sensitivities, tolerance);
        let keep = keep_any(graph, groups, &ratios, None)?;
        let after = parameter_count(&prune_graph(graph, groups, &keep)?) as f64;
        curve.push((1.0 - after / before, tolerance));
    }
    Ok(curve)
}
