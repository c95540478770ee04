//! Follows every channel from the layer that makes it through the graph.

use super::ties::Ties;
use crate::shape::infer_values;
use crate::{Graph, GraphError, Op};

/// Why channels must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FixedReason {
    /// They are tied to channels of the input image.
    Input,
    /// They are part of a network output: classes, for example.
    Output,
    /// A softmax runs over them.
    Softmax,
    /// A layer that makes or reads them has parameters that others use too.
    Shared,
    /// They are coordinates, places of samples, regions, or pooled or enlarged from regions.
    Detector,
    /// Slices and shuffles tie them so unevenly that no share of them can be removed: taking one
    /// channel of a layer would take different numbers of others.
    Uneven,
    /// There is only one that could go.
    Single,
}

/// The channels of all values, by node, and what ties them.
pub(super) struct Trace {
    pub values: Vec<Vec<u32>>,
    pub ties: Ties,
    pub fixed: Vec<(u32, FixedReason)>,
}

/// Whether the operation makes channels that pruning can remove, each by its filter.
pub(super) fn is_layer(op: &Op) -> bool {
    matches!(
        op,
        Op::Conv2d { .. } | Op::DeformConv2d { .. } | Op::Linear { .. }
    )
}

/// Whether each output channel sees a single input channel: its channels are those of its input.
pub(crate) fn is_depthwise(op: &Op) -> bool {
    matches!(*op, Op::Conv2d { in_channels, groups, .. } if groups > 1 && groups == in_channels)
}

/// Walks the graph once. A layer that mixes its inputs makes new channels; all others hand on, repeat,
/// reorder or tie what they get.
pub(super) fn trace(graph: &Graph) -> Result<Trace, GraphError> {
    graph.validate()?;
    let shapes = infer_values(graph, graph.input_channels(), None)?;
    let mut ties = Ties::default();
    let mut fixed = Vec::new();
    let mut values: Vec<Vec<u32>> = Vec::with_capacity(graph.nodes.len());
    for (id, node) in graph.nodes.iter().enumerate() {
        let input = |i: usize| &values[node.inputs[i]];
        let value = match node.op {
            Op::Input { channels } => {
                let value = ties.fresh(channels);
                fixed.extend(value.iter().map(|&c| (c, FixedReason::Input)));
                value
            }
            Op::Conv2d {
                out_channels,
                groups,
                ..
            } => {
                if is_depthwise(&node.op) {
                    let times = out_channels / groups;
                    repeat(input(0), times)
                } else {
                    let value = ties.fresh(out_channels);
                    if groups > 1 {
                        // Every group must keep equally many inputs and outputs.
                        ties.tie_parts(input(0), groups);
                        ties.tie_parts(&value, groups);
                    }
                    value
                }
            }
            Op::Linear { out_features, .. } => ties.fresh(out_features),
            Op::Add | Op::Mul => {
                for i in 1..node.inputs.len() {
                    ties.tie_all(input(0), input(i));
                }
                input(0).clone()
            }
            Op::Concat => node
                .inputs
                .iter()
                .flat_map(|&i| values[i].clone())
                .collect(),
            Op::Slice { start, len } => input(0)[start..start + len].to_vec(),
            Op::ChannelShuffle { groups } => {
                let before = input(0);
                ties.tie_parts(before, groups);
                let len = before.len() / groups;
                (0..before.len())
                    .map(|c| before[c % groups * len + c / groups])
                    .collect()
            }
            // Order C, H, W: each channel becomes H·W features side by side.
            Op::Flatten => repeat(input(0), shapes[id].channels() / input(0).len().max(1)),
            Op::Softmax => {
                fixed.extend(input(0).iter().map(|&c| (c, FixedReason::Softmax)));
                input(0).clone()
            }
            Op::BatchNorm { .. }
            | Op::Activation(_)
            | Op::MaxPool { .. }
            | Op::AvgPool { .. }
            | Op::GlobalAvgPool
            | Op::AdaptiveAvgPool { .. }
            | Op::Upsample { .. }
            | Op::Resize { .. }
            | Op::SamePad { .. }
            | Op::DropBlock { .. }
            | Op::Dropout { .. } => input(0).clone(),
            Op::DeformConv2d { out_channels, .. } => {
                let places = node.inputs[1..].iter().flat_map(|&i| &values[i]);
                fixed.extend(places.map(|&c| (c, FixedReason::Detector)));
                ties.fresh(out_channels)
            }
            Op::Coordinates { .. } => {
                let places = ties.fresh(2);
                fixed.extend(places.iter().map(|&c| (c, FixedReason::Detector)));
                [&input(0)[..], &places].concat()
            }
            // Two-stage detectors are not pruned.
            Op::ConvTranspose2d { .. } | Op::Rois | Op::RoiAlign { .. } => {
                let value = ties.fresh(shapes[id].channels());
                let read = node.inputs.iter().flat_map(|&i| &values[i]);
                let all = read.chain(&value);
                fixed.extend(all.map(|&c| (c, FixedReason::Detector)));
                value
            }
        };
        values.push(value);
    }
    let shared = graph.shared();
    for (id, node) in graph.nodes.iter().enumerate().filter(|(id, _)| shared[*id]) {
        let touched = node.inputs.iter().chain([&id]).flat_map(|&i| &values[i]);
        fixed.extend(touched.map(|&c| (c, FixedReason::Shared)));
    }
    for output in &graph.outputs {
        let channels = values[output.node].iter();
        fixed.extend(channels.map(|&c| (c, FixedReason::Output)));
    }
    Ok(Trace {
        values,
        ties,
        fixed,
    })
}

fn repeat(channels: &[u32], times: usize) -> Vec<u32> {
    let each = |&c| std::iter::repeat_n(c, times);
    channels.iter().flat_map(each).collect()
}
