//! Building graphs: names, channels and order are kept track of.

use std::ops::Range;

use crate::shape::{Value, infer_node};
use crate::{Act, Graph, GraphError, Head, Node, NodeId, Op, Output};

/// Hyper-parameters of a convolution; the input's channels come from the builder.
#[derive(Debug, Clone, Copy)]
pub struct Conv {
    out: usize,
    kernel: usize,
    stride: usize,
    padding: Option<usize>,
    dilation: usize,
    groups: usize,
    bias: bool,
}

impl Conv {
    /// Square convolution, stride 1, padded so that stride 1 keeps the size (odd kernels), no bias.
    pub fn new(out: usize, kernel: usize) -> Self {
        Self {
            out,
            kernel,
            stride: 1,
            padding: None,
            dilation: 1,
            groups: 1,
            bias: false,
        }
    }

    /// Depthwise: one filter for each of `channels`.
    pub fn depthwise(channels: usize, kernel: usize) -> Self {
        Self {
            groups: channels,
            ..Self::new(channels, kernel)
        }
    }

    /// Sets the stride.
    #[must_use]
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Sets the padding.
    #[must_use]
    pub fn padding(self, padding: usize) -> Self {
        Self {
            padding: Some(padding),
            ..self
        }
    }

    /// Sets the dilation.
    #[must_use]
    pub fn dilation(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }

    /// Sets the number of groups.
    #[must_use]
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Adds a bias.
    #[must_use]
    pub fn bias(self) -> Self {
        Self { bias: true, ..self }
    }

    /// Whether it has a bias.
    pub fn has_bias(&self) -> bool {
        self.bias
    }

    fn op(self, in_channels: usize) -> Op {
        let padding = self
            .padding
            .unwrap_or(self.dilation * (self.kernel.max(1) - 1) / 2);
        Op::Conv2d {
            in_channels,
            out_channels: self.out,
            kernel: [self.kernel; 2],
            stride: [self.stride; 2],
            padding: [padding; 2],
            dilation: [self.dilation; 2],
            groups: self.groups,
            bias: self.bias,
        }
    }
}

/// Appends nodes one by one. The first mistake is remembered and told by [`GraphBuilder::finish`],
/// so that builders of networks read without error handling.
#[derive(Debug)]
pub struct GraphBuilder {
    graph: Graph,
    values: Vec<Value>,
    error: Option<GraphError>,
}

impl GraphBuilder {
    /// An empty graph called `name`.
    pub fn new(name: &str) -> Self {
        let graph = Graph {
            name: name.to_owned(),
            nodes: Vec::new(),
            outputs: Vec::new(),
            head: None,
        };
        Self {
            graph,
            values: Vec::new(),
            error: None,
        }
    }

    /// Says how the outputs of a detector become boxes.
    pub fn head(&mut self, head: Head) {
        self.graph.head = Some(head);
    }

    /// The image batch with `channels` channels.
    pub fn input(&mut self, channels: usize) -> NodeId {
        self.push(
            "input",
            Op::Input { channels },
            Vec::new(),
            Value::Map { channels, hw: None },
        )
    }

    /// Any operation under a name of its own; parameters will be `<name>.<suffix>`.
    pub fn op(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> NodeId {
        let node = Node {
            name: name.into(),
            op,
            inputs: inputs.to_vec(),
            shares: None,
        };
        let values: Vec<Value> = inputs
            .iter()
            .filter_map(|&id| self.values.get(id).copied())
            .collect();
        match infer_node(&node, &values) {
            Ok(value) => self.push(node.name, node.op, node.inputs, value),
            Err(reason) => {
                let error = self.graph.node_error(&node, reason);
                self.error.get_or_insert(error);
                // Keeps ids valid; finish() never lets this value out.
                let value = values
                    .first()
                    .copied()
                    .unwrap_or(Value::Vector { features: 0 });
                self.push(node.name, node.op, node.inputs, value)
            }
        }
    }

    /// The operation of `owner` on other inputs, with the same parameters.
    pub fn shared(&mut self, name: impl Into<String>, owner: NodeId, inputs: &[NodeId]) -> NodeId {
        let Some(op) = self.graph.nodes.get(owner).map(|node| node.op.clone()) else {
            return owner;
        };
        let id = self.op(name, op, inputs);
        self.graph.nodes[id].shares = Some(self.graph.owner(owner));
        id
    }

    /// A row of nodes once more, with the same parameters, reading `to` where they read `from`; returns what stands
    /// for the last one. Their names get `suffix`.
    pub fn repeated(
        &mut self,
        nodes: Range<NodeId>,
        from: NodeId,
        to: NodeId,
        suffix: &str,
    ) -> NodeId {
        let mut new_id: Vec<NodeId> = (0..self.graph.nodes.len()).collect();
        if let Some(id) = new_id.get_mut(from) {
            *id = to;
        }
        let mut last = to;
        for id in nodes {
            let node = self.graph.nodes[id].clone();
            let inputs: Vec<NodeId> = node.inputs.iter().map(|&input| new_id[input]).collect();
            last = self.op(format!("{}{suffix}", node.name), node.op, &inputs);
            if !self.graph.nodes[last].op.params().is_empty() {
                self.graph.nodes[last].shares = Some(self.graph.owner(id));
            }
            new_id[id] = last;
        }
        last
    }

    /// An operation without parameters, named by its kind and position.
    pub fn plain(&mut self, op: Op, inputs: &[NodeId]) -> NodeId {
        let name = format!("{}_{}", op.kind().to_lowercase(), self.graph.nodes.len());
        self.op(name, op, inputs)
    }

    fn push(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: Vec<NodeId>,
        value: Value,
    ) -> NodeId {
        self.graph.nodes.push(Node {
            name: name.into(),
            op,
            inputs,
            shares: None,
        });
        self.values.push(value);
        self.values.len() - 1
    }

    /// Channels of a map, features of a vector.
    pub fn channels(&self, node: NodeId) -> usize {
        self.values.get(node).map_or(0, |v| v.channels())
    }

    /// Convolution.
    pub fn conv(&mut self, name: impl Into<String>, x: NodeId, conv: Conv) -> NodeId {
        let op = conv.op(self.channels(x));
        self.op(name, op, &[x])
    }

    /// Batch norm with PyTorch's and Paddle's usual epsilon 1e-5 and momentum 0.1.
    pub fn batch_norm(&mut self, name: impl Into<String>, x: NodeId) -> NodeId {
        self.batch_norm_with(name, x, 1e-5, 0.1)
    }

    /// Batch norm with its own epsilon and momentum (weight of the new statistic).
    pub fn batch_norm_with(
        &mut self,
        name: impl Into<String>,
        x: NodeId,
        eps: f64,
        momentum: f64,
    ) -> NodeId {
        let channels = self.channels(x);
        self.op(
            name,
            Op::BatchNorm {
                channels,
                eps,
                momentum,
            },
            &[x],
        )
    }

    /// Activation.
    pub fn act(&mut self, x: NodeId, act: Act) -> NodeId {
        self.plain(Op::Activation(act), &[x])
    }

    /// Maximum pooling, sizes rounded down.
    pub fn max_pool(&mut self, x: NodeId, kernel: usize, stride: usize, padding: usize) -> NodeId {
        let op = Op::MaxPool {
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [padding; 2],
            ceil: false,
        };
        self.plain(op, &[x])
    }

    /// Average pooling without padding.
    pub fn avg_pool(&mut self, x: NodeId, kernel: usize, stride: usize, ceil: bool) -> NodeId {
        let op = Op::AvgPool {
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [0; 2],
            ceil,
            count_include_pad: false,
        };
        self.plain(op, &[x])
    }

    /// Average over the whole map.
    pub fn global_avg_pool(&mut self, x: NodeId) -> NodeId {
        self.plain(Op::GlobalAvgPool, &[x])
    }

    /// Sum of two maps.
    pub fn add(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.plain(Op::Add, &[a, b])
    }

    /// A map times its gate.
    pub fn mul(&mut self, map: NodeId, gate: NodeId) -> NodeId {
        self.plain(Op::Mul, &[map, gate])
    }

    /// Concatenated channels.
    pub fn concat(&mut self, inputs: &[NodeId]) -> NodeId {
        self.plain(Op::Concat, inputs)
    }

    /// Channels `start..start + len`.
    pub fn slice(&mut self, x: NodeId, start: usize, len: usize) -> NodeId {
        self.plain(Op::Slice { start, len }, &[x])
    }

    /// `x` enlarged or reduced to the height and width of `like`.
    pub fn resize(&mut self, x: NodeId, like: NodeId, align_corners: bool) -> NodeId {
        self.plain(Op::Resize { align_corners }, &[x, like])
    }

    /// Map to vector.
    pub fn flatten(&mut self, x: NodeId) -> NodeId {
        self.plain(Op::Flatten, &[x])
    }

    /// Fully connected layer with bias.
    pub fn linear(&mut self, name: impl Into<String>, x: NodeId, out_features: usize) -> NodeId {
        let op = Op::Linear {
            in_features: self.channels(x),
            out_features,
            bias: true,
        };
        self.op(name, op, &[x])
    }

    /// Dropout.
    pub fn dropout(&mut self, x: NodeId, p: f64) -> NodeId {
        self.plain(Op::Dropout { p }, &[x])
    }

    /// Declares a result.
    pub fn output(&mut self, name: &str, node: NodeId) {
        self.graph.outputs.push(Output {
            name: name.to_owned(),
            node,
            auxiliary: None,
        });
    }

    /// Declares the result of an auxiliary head, whose loss counts `loss_weight` times in training.
    pub fn auxiliary_output(&mut self, name: &str, node: NodeId, loss_weight: f32) {
        self.graph.outputs.push(Output {
            name: name.to_owned(),
            node,
            auxiliary: Some(loss_weight),
        });
    }

    /// The graph.
    ///
    /// # Errors
    /// The first mistake made while building, or what [`Graph::validate`] finds.
    pub fn finish(self) -> Result<Graph, GraphError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.graph.validate()?;
        Ok(self.graph)
    }
}
