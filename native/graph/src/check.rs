//! Validity of graphs and weights, dead nodes, JSON.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use crate::shape::infer_values;
use crate::{Graph, GraphError, Node, Op, WeightMap};

impl Op {
    /// Name of the kind of operation.
    pub fn kind(&self) -> &'static str {
        match self {
            Op::Input { .. } => "Input",
            Op::Conv2d { .. } => "Conv2d",
            Op::BatchNorm { .. } => "BatchNorm",
            Op::Activation(_) => "Activation",
            Op::MaxPool { .. } => "MaxPool",
            Op::AvgPool { .. } => "AvgPool",
            Op::GlobalAvgPool => "GlobalAvgPool",
            Op::AdaptiveAvgPool { .. } => "AdaptiveAvgPool",
            Op::Add => "Add",
            Op::Mul => "Mul",
            Op::Concat => "Concat",
            Op::Slice { .. } => "Slice",
            Op::ChannelShuffle { .. } => "ChannelShuffle",
            Op::Upsample { .. } => "Upsample",
            Op::Resize { .. } => "Resize",
            Op::SamePad { .. } => "SamePad",
            Op::Flatten => "Flatten",
            Op::Linear { .. } => "Linear",
            Op::Dropout { .. } => "Dropout",
            Op::Softmax => "Softmax",
            Op::DeformConv2d { .. } => "DeformConv2d",
            Op::ConvTranspose2d { .. } => "ConvTranspose2d",
            Op::Coordinates { .. } => "Coordinates",
            Op::DropBlock { .. } => "DropBlock",
            Op::Rois => "Rois",
            Op::RoiAlign { .. } => "RoiAlign",
        }
    }

    /// How many inputs it takes.
    pub fn arity(&self) -> RangeInclusive<usize> {
        match self {
            Op::Input { .. } | Op::Rois => 0..=0,
            Op::DeformConv2d { .. } => 3..=3,
            Op::RoiAlign { strides, .. } => strides.len() + 1..=strides.len() + 1,
            Op::Add => 2..=usize::MAX,
            Op::Concat => 1..=usize::MAX,
            Op::Mul | Op::Resize { .. } => 2..=2,
            _ => 1..=1,
        }
    }
}

/// Whether numbers are small enough that no later arithmetic overflows: graphs are also read from files.
fn plausible(op: &Op) -> bool {
    let channels = |c: usize| c <= 1 << 22;
    let window = |sizes: &[[usize; 2]]| sizes.iter().flatten().all(|&s| s <= 1 << 14);
    match op {
        Op::Input { channels: c } | Op::BatchNorm { channels: c, .. } => channels(*c),
        Op::ConvTranspose2d {
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
            ..
        } => {
            window(&[*kernel, *stride, *padding])
                && channels(*in_channels)
                && channels(*out_channels)
        }
        Op::RoiAlign {
            size,
            sampling,
            strides,
            ..
        } => {
            window(&[*size])
                && *sampling <= 64
                && (1..=8).contains(&strides.len())
                && strides.iter().all(|s| (1..=1024).contains(s))
        }
        Op::DropBlock { size, keep } => *size <= 1 << 14 && (0.0..=1.0).contains(keep),
        Op::DeformConv2d {
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
            dilation,
            ..
        }
        | Op::Conv2d {
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
            dilation,
            ..
        } => {
            let weight = in_channels.saturating_mul(*out_channels);
            window(&[*kernel, *stride, *padding, *dilation])
                && channels(*in_channels)
                && channels(*out_channels)
                && weight.saturating_mul(kernel[0] * kernel[1]) <= 1 << 34
        }
        Op::MaxPool {
            kernel,
            stride,
            padding,
            ..
        }
        | Op::AvgPool {
            kernel,
            stride,
            padding,
            ..
        } => window(&[*kernel, *stride, *padding]),
        Op::AdaptiveAvgPool { size } => window(&[*size]),
        Op::SamePad { kernel, stride } => window(&[*kernel, *stride]),
        Op::Slice { start, len } => channels(*start) && channels(*len),
        Op::Upsample { scale, .. } => *scale <= 256,
        Op::Linear {
            in_features,
            out_features,
            ..
        } => in_features.saturating_mul(*out_features) <= 1 << 32,
        _ => true,
    }
}

impl Graph {
    pub(crate) fn node_error(&self, node: &Node, reason: String) -> GraphError {
        GraphError::Node {
            graph: self.name.clone(),
            node: node.name.clone(),
            op: node.op.kind(),
            reason,
        }
    }

    pub(crate) fn error(&self, reason: impl Into<String>) -> GraphError {
        GraphError::Graph {
            graph: self.name.clone(),
            reason: reason.into(),
        }
    }

    /// Channels of the input node; 0 if there is none.
    pub fn input_channels(&self) -> usize {
        let find = |node: &Node| match node.op {
            Op::Input { channels } => Some(channels),
            _ => None,
        };
        self.nodes.iter().find_map(find).unwrap_or(0)
    }

    /// How often each node's value is used, outputs included.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len()];
        let inputs = self.nodes.iter().flat_map(|node| &node.inputs);
        for &id in inputs.chain(self.outputs.iter().map(|o| &o.node)) {
            if let Some(count) = uses.get_mut(id) {
                *count += 1;
            }
        }
        uses
    }

    /// Checks order, names, arity, channel counts and outputs.
    ///
    /// # Errors
    /// The first thing that is wrong, by node.
    pub fn validate(&self) -> Result<(), GraphError> {
        let mut names = HashSet::new();
        for (id, node) in self.nodes.iter().enumerate() {
            if node.name.is_empty() || !names.insert(node.name.as_str()) {
                return Err(self.node_error(node, "its name is empty or used twice".to_owned()));
            }
            if !plausible(&node.op) {
                return Err(self.node_error(node, "its sizes are beyond all reason".to_owned()));
            }
            if let Some(owner) = node.shares {
                let same = self.nodes[..id].get(owner);
                if !same.is_some_and(|o| o.shares.is_none() && o.op == node.op) {
                    return Err(self.node_error(
                        node,
                        "the node whose parameters it shares is not the same operation before it"
                            .to_owned(),
                    ));
                }
            }
            if let Some(bad) = node.inputs.iter().find(|&&input| input >= id) {
                return Err(self.node_error(
                    node,
                    format!("its input {bad} does not stand before it (it is node {id})"),
                ));
            }
        }
        let inputs = self
            .nodes
            .iter()
            .filter(|n| matches!(n.op, Op::Input { .. }))
            .count();
        if inputs != 1 {
            return Err(self.error(format!("it has {inputs} inputs, expected exactly one")));
        }
        if self.outputs.iter().all(|o| o.auxiliary.is_some()) {
            return Err(self.error("it has no output"));
        }
        let mut outputs = HashSet::new();
        for output in &self.outputs {
            if output.node >= self.nodes.len() {
                return Err(self.error(format!("output `{}` names no node", output.name)));
            }
            if output.name.is_empty() || !outputs.insert(output.name.as_str()) {
                return Err(self.error("an output's name is empty or used twice"));
            }
        }
        infer_values(self, self.input_channels(), None).map(|_| ())
    }

    /// Checks that every parameter is in `weights` with the right shape; others are ignored.
    ///
    /// # Errors
    /// The first one missing or misshapen.
    pub fn validate_weights(&self, weights: &WeightMap) -> Result<(), GraphError> {
        for (name, param) in self.params() {
            let Some(tensor) = weights.get(&name) else {
                return Err(GraphError::MissingWeight {
                    graph: self.name.clone(),
                    name,
                    shape: param.shape,
                });
            };
            if tensor.shape != param.shape
                || tensor.data.len() != param.shape.iter().product::<usize>()
            {
                return Err(GraphError::WeightShape {
                    graph: self.name.clone(),
                    name,
                    expected: param.shape,
                    found: tensor.shape.clone(),
                });
            }
        }
        Ok(())
    }

    /// The same graph without its auxiliary heads.
    #[must_use]
    pub fn without_auxiliary(&self) -> Graph {
        let mut graph = self.clone();
        graph.outputs.retain(|output| output.auxiliary.is_none());
        graph.without_dead_nodes()
    }

    /// The same graph without nodes that no output needs (the input always stays).
    #[must_use]
    pub fn without_dead_nodes(&self) -> Graph {
        let mut needed = vec![false; self.nodes.len()];
        for output in &self.outputs {
            needed[output.node] = true;
        }
        for (id, node) in self.nodes.iter().enumerate().rev() {
            if needed[id] {
                let owner = node.shares.iter();
                owner
                    .chain(&node.inputs)
                    .for_each(|&input| needed[input] = true);
            }
        }
        let mut new_id = vec![usize::MAX; self.nodes.len()];
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for (id, node) in self.nodes.iter().enumerate() {
            if needed[id] || matches!(node.op, Op::Input { .. }) {
                new_id[id] = nodes.len();
                let inputs = node.inputs.iter().map(|&input| new_id[input]).collect();
                nodes.push(Node {
                    inputs,
                    shares: node.shares.map(|owner| new_id[owner]),
                    ..node.clone()
                });
            }
        }
        let mut outputs = self.outputs.clone();
        outputs
            .iter_mut()
            .for_each(|output| output.node = new_id[output.node]);
        Graph {
            name: self.name.clone(),
            nodes,
            outputs,
            head: self.head.clone(),
        }
    }

    /// The graph as JSON text.
    ///
    /// # Errors
    /// Only for a number that JSON cannot hold (NaN, infinity).
    pub fn to_json(&self) -> Result<String, GraphError> {
        serde_json::to_string(self).map_err(|e| GraphError::Json {
            reason: e.to_string(),
        })
    }

    /// Reads and validates what [`Graph::to_json`] wrote.
    ///
    /// # Errors
    /// Text that is no graph, or a graph that is not valid.
    pub fn from_json(text: &str) -> Result<Graph, GraphError> {
        let graph: Graph = serde_json::from_str(text).map_err(|e| GraphError::Json {
            reason: e.to_string(),
        })?;
        graph.validate()?;
        Ok(graph)
    }
}
