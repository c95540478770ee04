//! Parameters and arithmetic of a network.
//!
//! Convention: `params` counts what is trained (weights, biases, batch-norm scale and shift) and not
//! running statistics, as torchvision's tables do. `macs` counts the multiply–accumulates of
//! convolutions and linear layers for one image; bias, norm, activation and pooling are left out.
//! `flops` is 2·macs. Most published "FLOPs" (torchvision's GFLOPS, PaddleClas's tables) are macs.

use crate::{Graph, GraphError, Node, Op, infer_shapes};

/// Size and cost of one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeCost {
    /// Trained values.
    pub params: u64,
    /// Running statistics.
    pub buffers: u64,
    /// Multiply–accumulates for one image.
    pub macs: u64,
}

/// Size and cost of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// Sum over all nodes.
    pub total: NodeCost,
    /// By node, in graph order.
    pub nodes: Vec<NodeCost>,
}

impl Cost {
    /// Floating-point operations of one forward pass of one image: 2·macs.
    pub fn flops(&self) -> u64 {
        2 * self.total.macs
    }
}

/// Number of trained values of a graph.
pub fn parameter_count(graph: &Graph) -> u64 {
    graph.nodes.iter().map(|node| sizes(node).0).sum()
}

/// Parameters and multiply–accumulates for images of `[height, width]`.
///
/// # Errors
/// See [`infer_shapes`].
pub fn cost(graph: &Graph, [height, width]: [usize; 2]) -> Result<Cost, GraphError> {
    let shapes = infer_shapes(graph, [1, graph.input_channels(), height, width])?;
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    let mut total = NodeCost::default();
    for (node, shape) in graph.nodes.iter().zip(&shapes) {
        let (params, buffers) = sizes(node);
        let outputs: usize = match node.op {
            // Each input value meets the whole kernel.
            Op::ConvTranspose2d { .. } => shapes[node.inputs[0]].iter().product(),
            _ => shape.iter().product(),
        };
        let per_output = match node.op {
            Op::Conv2d {
                in_channels,
                kernel,
                groups,
                ..
            } => in_channels / groups * kernel[0] * kernel[1],
            Op::DeformConv2d {
                in_channels,
                kernel,
                ..
            } => in_channels * kernel[0] * kernel[1],
            Op::ConvTranspose2d {
                out_channels,
                kernel,
                ..
            } => out_channels * kernel[0] * kernel[1],
            Op::Linear { in_features, .. } => in_features,
            _ => 0,
        };
        let cost = NodeCost {
            params,
            buffers,
            macs: (outputs as u64) * (per_output as u64),
        };
        total.params += cost.params;
        total.buffers += cost.buffers;
        total.macs += cost.macs;
        nodes.push(cost);
    }
    Ok(Cost { total, nodes })
}

fn sizes(node: &Node) -> (u64, u64) {
    let mut params = 0;
    let mut buffers = 0;
    for param in node.params() {
        let size = param.shape.iter().product::<usize>() as u64;
        if param.kind.is_statistic() {
            buffers += size;
        } else {
            params += size;
        }
    }
    (params, buffers)
}
