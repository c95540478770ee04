//! Post-training quantization to 8 bits, as pairs of quantize and dequantize (QDQ) around what a runtime
//! computes in integers.
//!
//! Weights: int8, symmetric, one scale per output channel. Biases: int32 at the scale of the products.
//! Activations: uint8, one scale and zero point per value, from calibrated ranges. Network outputs stay
//! fp32. (onnxruntime turns int8 activations into uint8 on x86, but not all of them, and computes in fp32
//! where the two kinds meet: so they are uint8 from the beginning.) Fold batch norms first ([`crate::fold_batch_norm`]); [`crate::onnx::write_quantized`] writes the file.

mod calibrate;
mod histogram;
mod tensor;

use indexmap::IndexMap;

use crate::{Act, Graph, GraphError, NodeId, Op, WeightMap};

pub use calibrate::Calibration;
pub use histogram::Histogram;
pub use tensor::{QuantizedData, QuantizedTensor, weight_signal};

/// Least and greatest value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Least.
    pub min: f32,
    /// Greatest.
    pub max: f32,
}

/// value = (stored − zero_point) · scale
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// Step.
    pub scale: f32,
    /// What stands for 0.
    pub zero_point: u8,
}

impl Range {
    /// The 8-bit steps that cover this range and 0, which is always exact.
    pub fn affine(self) -> Affine {
        let (min, max) = (f64::from(self.min.min(0.0)), f64::from(self.max.max(0.0)));
        let scale = (max - min) / 255.0;
        if scale < f64::from(f32::MIN_POSITIVE) {
            return Affine {
                scale: 1.0,
                zero_point: 0,
            };
        }
        Affine {
            scale: scale as f32,
            zero_point: (-min / scale).round().clamp(0.0, 255.0) as u8,
        }
    }
}

/// Everything that a quantized file holds beside the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantization {
    /// For each node how its value is quantized for those who read it, if it is.
    pub values: Vec<Option<Affine>>,
    /// For each node whether it is an activation that does nothing any more: the steps of its value begin
    /// and end where it bounds, and nobody else reads the sum before it.
    pub absorbed: Vec<bool>,
    /// Weights and biases of convolutions and linear layers by full name; those that share parameters have biases of their
    /// own.
    pub params: IndexMap<String, QuantizedTensor>,
}

/// Nodes whose values are quantized. An activation that only bounds a sum of products is computed with it,
/// so the value between is left alone.
fn quantized(graph: &Graph) -> Vec<NodeId> {
    let bounded = bounded(graph);
    let mut readers: Vec<Vec<NodeId>> = vec![Vec::new(); graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        node.inputs
            .iter()
            .for_each(|&input| readers[input].push(id));
    }
    let last = |id: NodeId| shapes_output(graph, &readers, id);
    let in_integers = |id: NodeId| in_integers(&graph.nodes[id].op) && !last(id);
    let worth = |&id: &NodeId| {
        let reads = readers[id].iter().any(|&r| in_integers(r));
        let output = readers[id].iter().all(|&r| last(r));
        let makes = in_integers(id) && !output;
        (reads || makes)
            && !bounded[id]
            && !matches!(
                graph.nodes[id].op,
                Op::Dropout { .. } | Op::DropBlock { .. }
            )
    };
    (0..graph.nodes.len()).filter(worth).collect()
}

/// Whether the node only interpolates or cuts what then is an output: outputs stay fp32, and so does their source.
fn shapes_output(graph: &Graph, readers: &[Vec<NodeId>], id: NodeId) -> bool {
    matches!(graph.nodes[id].op, Op::Resize { .. } | Op::Slice { .. }) && readers[id].is_empty()
}

/// For each node whether it is a sum of products that only a bounding activation reads.
fn bounded(graph: &Graph) -> Vec<bool> {
    let uses = graph.uses();
    let mut bounded = vec![false; graph.nodes.len()];
    for node in &graph.nodes {
        if let Op::Activation(Act::Relu | Act::Relu6) = node.op {
            let input = node.inputs[0];
            bounded[input] = uses[input] == 1
                && matches!(
                    graph.nodes[input].op,
                    Op::Conv2d { .. } | Op::Linear { .. } | Op::Add
                );
        }
    }
    bounded
}

/// Whether runtimes have an integer form of the operation.
fn in_integers(op: &Op) -> bool {
    match op {
        // Runtimes interpolate integers without rounding the result.
        Op::Resize { .. } => false,
        Op::Input { .. } | Op::BatchNorm { .. } | Op::Softmax => false,
        Op::DeformConv2d { .. } | Op::ConvTranspose2d { .. } | Op::Coordinates { .. } => false,
        Op::Rois | Op::RoiAlign { .. } => false,
        Op::Activation(act) => matches!(
            act,
            Act::Relu | Act::Relu6 | Act::LeakyRelu { .. } | Act::Sigmoid
        ),
        _ => true,
    }
}

/// Whether the operation hands on values as they are: its result has the steps of its input.
fn hands_on(op: &Op) -> bool {
    matches!(
        op,
        Op::MaxPool { .. }
            | Op::Slice { .. }
            | Op::ChannelShuffle { .. }
            | Op::Flatten
            | Op::Dropout { .. }
            | Op::DropBlock { .. }
            | Op::SamePad { .. }
            | Op::Upsample {
                bilinear: false,
                ..
            }
    )
}

/// Names of the nodes whose ranges [`quantize`] needs, in graph order.
pub fn calibration_values(graph: &Graph) -> Vec<&str> {
    let nodes = quantized(graph).into_iter().map(|id| &graph.nodes[id]);
    nodes
        .filter(|node| !hands_on(&node.op))
        .map(|node| node.name.as_str())
        .collect()
}

/// Quantizes `graph`, whose batch norms are folded, with the `ranges` of [`calibration_values`] by name of
/// the node.
///
/// # Errors
/// Batch norms that could be folded, a range that is missing or not finite, weights that are missing or
/// misshapen.
pub fn quantize(
    graph: &Graph,
    weights: &WeightMap,
    ranges: &IndexMap<String, Range>,
) -> Result<Quantization, GraphError> {
    graph.validate()?;
    graph.validate_weights(weights)?;
    if let Some(norm) = crate::fold::foldable(graph).next() {
        let reason = "fold batch norms before quantizing".to_owned();
        return Err(graph.node_error(&graph.nodes[norm], reason));
    }
    let bounded = bounded(graph);
    let mut values: Vec<Option<Affine>> = vec![None; graph.nodes.len()];
    let mut absorbed = vec![false; graph.nodes.len()];
    for id in quantized(graph) {
        let node = &graph.nodes[id];
        values[id] = if hands_on(&node.op) {
            source(graph, &values, node.inputs[0])
        } else {
            let range = valid(ranges.get(&node.name));
            let missing =
                || graph.node_error(node, "it has no valid range to quantize to".to_owned());
            let range = range.ok_or_else(missing)?;
            absorbed[id] = bounds_within(&node.op, range) && bounded[node.inputs[0]];
            Some(range.affine())
        };
    }
    let params = params(graph, weights, &values);
    Ok(Quantization {
        values,
        absorbed,
        params,
    })
}

/// Integers of all layers that read integers. Layers that use one weight have a bias each, under their own names: a
/// quantized bias has the scale of its input.
fn params(
    graph: &Graph,
    weights: &WeightMap,
    values: &[Option<Affine>],
) -> IndexMap<String, QuantizedTensor> {
    let mut params = IndexMap::new();
    let layer = |op: &Op| matches!(op, Op::Conv2d { .. } | Op::Linear { .. });
    for (id, node) in graph.nodes.iter().enumerate() {
        if !layer(&node.op) || node.shares.is_some() {
            continue;
        }
        let users = graph.nodes.iter().enumerate();
        let users = users.filter(|(other, _)| graph.owner(*other) == id);
        let inputs: Option<Vec<(&str, f32)>> = users
            .map(|(_, user)| {
                let input = source(graph, values, user.inputs[0])?;
                Some((user.name.as_str(), input.scale))
            })
            .collect();
        // Where one of them reads fp32, the weight is of no use as integers.
        let Some(inputs) = inputs else { continue };
        let least = inputs.iter().fold(f32::INFINITY, |m, (_, s)| m.min(*s));
        let bias = weights
            .get(&format!("{}.bias", node.name))
            .filter(|_| node.op.params().len() > 1);
        let weight = tensor::weight(&weights[&format!("{}.weight", node.name)], bias, least);
        if let Some(bias) = bias {
            for (name, scale) in inputs {
                params.insert(format!("{name}.bias"), tensor::bias(bias, &weight, scale));
            }
        }
        params.insert(format!("{}.weight", node.name), weight);
    }
    params
}

fn valid(range: Option<&Range>) -> Option<Range> {
    let finite = |r: &Range| r.min.is_finite() && r.max.is_finite() && r.min <= r.max;
    range.copied().filter(finite)
}

/// Whether integers that cover `range` need no bounds by `op`.
fn bounds_within(op: &Op, range: Range) -> bool {
    match op {
        Op::Activation(Act::Relu) => range.min >= 0.0,
        Op::Activation(Act::Relu6) => range.min >= 0.0 && range.max <= 6.0,
        _ => false,
    }
}

/// How the value of `id` is quantized; dropout is its input.
fn source(graph: &Graph, values: &[Option<Affine>], mut id: NodeId) -> Option<Affine> {
    while let Op::Dropout { .. } | Op::DropBlock { .. } = graph.nodes[id].op {
        id = graph.nodes[id].inputs[0];
    }
    values[id]
}
