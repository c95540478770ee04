//! From tied channels to groups.

use std::collections::{BTreeMap, HashMap};

use indexmap::IndexMap;

use super::trace::{FixedReason, Trace, is_depthwise, is_layer};
use super::{ChannelGroup, ChannelGroups, FixedLayers, Unit};
use crate::{Graph, NodeId, Op};

/// The values that a unit occurs in, and how often.
type Signature = Vec<(NodeId, u32)>;

pub(super) fn group(graph: &Graph, mut trace: Trace) -> ChannelGroups {
    let mut numbers: HashMap<u32, Unit> = HashMap::new();
    let mut unit_of = |channel: u32| {
        let root = trace.ties.find(channel);
        let next = numbers.len() as Unit;
        *numbers.entry(root).or_insert(next)
    };
    let units: Vec<Vec<Unit>> = trace
        .values
        .iter()
        .map(|value| value.iter().map(|&channel| unit_of(channel)).collect())
        .collect();
    let mut reasons: BTreeMap<Unit, FixedReason> = BTreeMap::new();
    for (channel, reason) in trace.fixed {
        reasons.entry(unit_of(channel)).or_insert(reason);
    }
    let signatures = signatures(&units, numbers.len());
    for unit in uneven(graph, &units, &signatures) {
        reasons.entry(unit).or_insert(FixedReason::Uneven);
    }

    let mut free: IndexMap<&Signature, Vec<Unit>> = IndexMap::new();
    for (unit, signature) in signatures.iter().enumerate() {
        if !reasons.contains_key(&(unit as Unit)) {
            free.entry(signature).or_default().push(unit as Unit);
        }
    }
    let mut groups: Vec<ChannelGroup> = Vec::new();
    for (signature, members) in free {
        let layers = layers(graph, signature);
        let Some(representative) = representative(graph, &layers) else {
            continue; // cannot happen: only layers make channels that are not fixed
        };
        if let [unit] = members[..] {
            reasons.insert(unit, FixedReason::Single);
            continue;
        }
        groups.push(ChannelGroup {
            name: name(graph, representative, &groups),
            representative,
            layers,
            units: ordered(&units[representative], &members),
        });
    }
    ChannelGroups {
        groups,
        fixed: fixed_layers(graph, &signatures, &reasons),
        units,
        unit_count: signatures.len(),
    }
}

fn signatures(units: &[Vec<Unit>], count: usize) -> Vec<Signature> {
    let mut signatures: Vec<Signature> = vec![Vec::new(); count];
    for (node, value) in units.iter().enumerate() {
        for &unit in value {
            match signatures[unit as usize].last_mut() {
                Some((last, times)) if *last == node => *times += 1,
                _ => signatures[unit as usize].push((node, 1)),
            }
        }
    }
    signatures
}

/// Units that share a layer in which some unit occurs more often than another, and all that is bound to
/// them by shared layers.
fn uneven(graph: &Graph, units: &[Vec<Unit>], signatures: &[Signature]) -> Vec<Unit> {
    let is_layer = |node: NodeId| is_layer(&graph.nodes[node].op);
    let mut times: HashMap<NodeId, u32> = HashMap::new();
    let mut bad: Vec<bool> = vec![false; graph.nodes.len()];
    for &(node, count) in signatures.iter().flatten() {
        if is_layer(node) && *times.entry(node).or_insert(count) != count {
            bad[node] = true;
        }
    }
    let mut found = vec![false; signatures.len()];
    let mut open: Vec<NodeId> = (0..bad.len()).filter(|&node| bad[node]).collect();
    while let Some(node) = open.pop() {
        for &unit in &units[node] {
            if std::mem::replace(&mut found[unit as usize], true) {
                continue;
            }
            for &(other, _) in &signatures[unit as usize] {
                if is_layer(other) && !std::mem::replace(&mut bad[other], true) {
                    open.push(other);
                }
            }
        }
    }
    let found = found.iter().enumerate().filter(|(_, found)| **found);
    found.map(|(unit, _)| unit as Unit).collect()
}

fn layers(graph: &Graph, signature: &Signature) -> Vec<NodeId> {
    let nodes = signature.iter().map(|&(node, _)| node);
    nodes
        .filter(|&node| is_layer(&graph.nodes[node].op))
        .collect()
}

fn representative(graph: &Graph, layers: &[NodeId]) -> Option<NodeId> {
    let op = |node: NodeId| &graph.nodes[node].op;
    let conv = |&&node: &&NodeId| {
        let conv = matches!(op(node), Op::Conv2d { .. } | Op::DeformConv2d { .. });
        conv && !is_depthwise(op(node))
    };
    let linear = |&&node: &&NodeId| matches!(op(node), Op::Linear { .. });
    layers
        .iter()
        .find(conv)
        .or_else(|| layers.iter().find(linear))
        .copied()
}

fn name(graph: &Graph, representative: NodeId, groups: &[ChannelGroup]) -> String {
    let layer = &graph.nodes[representative].name;
    match groups
        .iter()
        .filter(|g| g.representative == representative)
        .count()
    {
        0 => layer.clone(),
        before => format!("{layer}#{}", before + 1),
    }
}

/// `members` in the order in which `value` first has them.
fn ordered(value: &[Unit], members: &[Unit]) -> Vec<Unit> {
    let mut left: std::collections::HashSet<Unit> = members.iter().copied().collect();
    value
        .iter()
        .copied()
        .filter(|unit| left.remove(unit))
        .collect()
}

fn fixed_layers(
    graph: &Graph,
    signatures: &[Signature],
    reasons: &BTreeMap<Unit, FixedReason>,
) -> Vec<FixedLayers> {
    let mut fixed: IndexMap<Vec<NodeId>, FixedReason> = IndexMap::new();
    for (&unit, &reason) in reasons {
        let layers = layers(graph, &signatures[unit as usize]);
        if !layers.is_empty() {
            fixed.entry(layers).or_insert(reason);
        }
    }
    let pairs = fixed.into_iter();
    pairs
        .map(|(layers, reason)| FixedLayers { layers, reason })
        .collect()
}
