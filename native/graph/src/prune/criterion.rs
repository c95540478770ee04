//! How much a channel matters, judged by the weights alone.

use rayon::prelude::*;

use crate::{ChannelGroup, ChannelGroups, Graph, GraphError, HostTensor, NodeId, WeightMap};

/// Measure of a filter's importance; the least important go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Criterion {
    /// Mean absolute weight of the filter (Li et al. 2017, "Pruning Filters for Efficient ConvNets"; their
    /// sum, divided by the filter's size as PaddleSlim does, which orders the filters of a layer alike).
    L1Norm,
    /// Sum of the Euclidean distances to all filters of the layer (He et al. 2019, "Filter Pruning via
    /// Geometric Median"): a filter near the median can be replaced by the others.
    GeometricMedian,
}

/// Whose filters are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judges {
    /// Those of the group's representative alone, as PaddleSlim does.
    Representative,
    /// Those of all layers of the group; importances are added up.
    All,
}

/// Importance of each unit of `group`, in its order. A unit with several filters in a layer (grouped
/// convolutions, shuffles) counts with their mean.
///
/// # Errors
/// A weight that is missing or misshapen.
pub fn unit_scores(
    graph: &Graph,
    weights: &WeightMap,
    groups: &ChannelGroups,
    group: &ChannelGroup,
    criterion: Criterion,
    judges: Judges,
) -> Result<Vec<f64>, GraphError> {
    let layers: &[NodeId] = match judges {
        Judges::Representative => std::slice::from_ref(&group.representative),
        Judges::All => &group.layers,
    };
    let mut scores = vec![0.0; group.size()];
    for &layer in layers {
        let filters = filter_scores(weight(graph, weights, layer)?, criterion);
        let mut sums = vec![(0.0, 0u32); groups.unit_count];
        for (&unit, score) in groups.units[layer].iter().zip(&filters) {
            let (sum, count) = &mut sums[unit as usize];
            *sum += score;
            *count += 1;
        }
        for (score, &unit) in scores.iter_mut().zip(&group.units) {
            let (sum, count) = sums[unit as usize];
            *score += sum / f64::from(count.max(1));
        }
    }
    Ok(scores)
}

fn weight<'a>(
    graph: &Graph,
    weights: &'a WeightMap,
    layer: NodeId,
) -> Result<&'a HostTensor, GraphError> {
    let node = &graph.nodes[layer];
    let name = format!("{}.weight", node.name);
    let expected = node.op.params().swap_remove(0).shape;
    let Some(tensor) = weights.get(&name) else {
        return Err(GraphError::MissingWeight {
            graph: graph.name.clone(),
            name,
            shape: expected,
        });
    };
    if tensor.shape != expected || tensor.data.len() != expected.iter().product::<usize>() {
        return Err(GraphError::WeightShape {
            graph: graph.name.clone(),
            name,
            expected,
            found: tensor.shape.clone(),
        });
    }
    Ok(tensor)
}

/// Importance of each slice along the first axis.
fn filter_scores(weight: &HostTensor, criterion: Criterion) -> Vec<f64> {
    let len = (weight.data.len() / weight.shape[0].max(1)).max(1);
    let filters: Vec<&[f32]> = weight.data.chunks_exact(len).collect();
    match criterion {
        Criterion::L1Norm => {
            let mean = |filter: &&[f32]| {
                filter.iter().map(|&w| f64::from(w.abs())).sum::<f64>() / len as f64
            };
            filters.iter().map(mean).collect()
        }
        Criterion::GeometricMedian => filters
            .par_iter()
            .map(|a| filters.iter().map(|b| distance(a, b)).sum())
            .collect(),
    }
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let squares = a.iter().zip(b).map(|(&a, &b)| f64::from(a - b).powi(2));
    squares.sum::<f64>().sqrt()
}

/// How many of `size` units stay when the share `ratio` is removed, at least one. Without `align`,
/// ⌊size·ratio⌉ go (ties to even, as in PaddleSlim); with it, the number that stays is rounded
/// up to a multiple of `align`, so that no more goes than the ratio says, at most to all. Nothing goes at ratio 0.
pub fn kept_count(size: usize, ratio: f64, align: Option<usize>) -> usize {
    let kept = match align {
        _ if ratio <= 0.0 => size,
        None | Some(0) => size.saturating_sub((size as f64 * ratio).round_ties_even() as usize),
        Some(align) => {
            // Less what rounding may have added to a whole number.
            let multiples = ((1.0 - ratio) * size as f64 / align as f64 - 1e-9).ceil();
            align * (multiples as usize).max(1)
        }
    };
    kept.max(1).min(size)
}

/// The most important units, ascending, when the share `ratio` of them is removed ([`kept_count`]). Of
/// equally important ones the later stay.
pub fn keep_for_ratio(scores: &[f64], ratio: f64, align: Option<usize>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let removed = scores.len() - kept_count(scores.len(), ratio, align);
    let mut kept = order.split_off(removed);
    kept.sort_unstable();
    kept
}
