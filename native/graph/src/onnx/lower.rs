//! Our operations as ONNX nodes.

use indexmap::IndexMap;

use super::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};
use crate::shape::Value;
use crate::{Act, Graph, GraphError, HostTensor, Node, Op, QuantizedTensor, WeightMap};

pub(super) const FLOAT: i32 = 1;
pub(super) const INT64: i32 = 7;

/// A graph in ONNX's terms. Weights stay where they are: they are written after `proto`.
pub(super) struct Lowered<'a> {
    pub proto: GraphProto,
    pub weights: Vec<(String, &'a HostTensor)>,
}

/// Translates nodes one by one; `names[id]` is the ONNX value that holds node `id`.
pub(super) struct Lowering<'a> {
    graph: &'a Graph,
    weights: &'a WeightMap,
    values: &'a [Value],
    integers: Option<&'a IndexMap<String, QuantizedTensor>>,
    out: Lowered<'a>,
}

impl<'a> Lowering<'a> {
    /// Weights named in `integers` are written from there.
    pub fn new(
        graph: &'a Graph,
        weights: &'a WeightMap,
        values: &'a [Value],
        integers: Option<&'a IndexMap<String, QuantizedTensor>>,
    ) -> Self {
        let out = Lowered {
            proto: GraphProto::default(),
            weights: Vec::new(),
        };
        Self {
            graph,
            weights,
            values,
            integers,
            out,
        }
    }

    pub fn finish(self) -> Lowered<'a> {
        self.out
    }

    /// Appends one ONNX node.
    pub fn emit(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<AttributeProto>,
    ) {
        self.emit_all(op_type, inputs, &[output], attribute);
    }

    /// The same with several results.
    pub fn emit_all(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        outputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) {
        let owned = |names: &[&str]| names.iter().map(|&s| s.to_owned()).collect();
        self.out.proto.node.push(NodeProto {
            input: owned(inputs),
            output: owned(outputs),
            name: outputs.first().copied().unwrap_or_default().to_owned(),
            op_type: op_type.to_owned(),
            attribute,
        });
    }

    pub fn constant(
        &mut self,
        name: String,
        dims: &[usize],
        data_type: i32,
        raw: Vec<u8>,
    ) -> String {
        self.out.proto.initializer.push(TensorProto {
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type,
            name: name.clone(),
            raw_data: Some(raw),
        });
        name
    }

    pub fn floats(&mut self, name: String, dims: &[usize], data: &[f32]) -> String {
        let raw = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, dims, FLOAT, raw)
    }

    pub fn ints(&mut self, name: String, data: &[usize]) -> String {
        let raw = data
            .iter()
            .flat_map(|&v| (v as i64).to_le_bytes())
            .collect();
        self.constant(name, &[data.len()], INT64, raw)
    }

    /// Names of the parameters that the node uses; those of its own are noted for writing.
    pub fn params(&mut self, node: &Node) -> Vec<String> {
        let owner = node.shares.map_or(node, |owner| &self.graph.nodes[owner]);
        let mut names = Vec::new();
        for param in node.op.params() {
            let name = format!("{}.{}", node.name, param.suffix);
            // A bias may have the steps of its own input.
            let own = self.integers.is_some_and(|all| all.contains_key(&name));
            if node.shares.is_some() && !own {
                names.push(format!("{}.{}", owner.name, param.suffix));
                continue;
            }
            if let Some(tensor) = self.integers.and_then(|all| all.get(&name)) {
                self.quantized_param(&name, tensor);
            } else if let Some(tensor) = self.weights.get(&name) {
                self.out.weights.push((name.clone(), tensor));
            }
            names.push(name);
        }
        names
    }

    /// Appends the ONNX nodes of `node`; the last one makes the value `out`.
    pub fn node(
        &mut self,
        id: usize,
        node: &Node,
        x: &[&str],
        out: &str,
    ) -> Result<(), GraphError> {
        match &node.op {
            Op::Input { .. } | Op::Dropout { .. } => {}
            Op::Conv2d {
                kernel,
                stride,
                padding,
                dilation,
                groups,
                ..
            } => {
                let params = self.params(node);
                let mut attributes = window(*kernel, *stride, *padding);
                attributes.push(ints("dilations", dilation));
                attributes.push(int("group", *groups));
                self.emit("Conv", &all(x, &params), out, attributes);
            }
            Op::BatchNorm { eps, .. } => {
                let params = self.params(node);
                let epsilon = float("epsilon", *eps as f32);
                self.emit("BatchNormalization", &all(x, &params), out, vec![epsilon]);
            }
            Op::Activation(act) => self.activation(*act, x[0], out),
            Op::MaxPool {
                kernel,
                stride,
                padding,
                ceil,
            } => {
                let attributes = self.pool_window(id, *kernel, *stride, *padding, *ceil)?;
                self.emit("MaxPool", x, out, attributes);
            }
            Op::AvgPool {
                kernel,
                stride,
                padding,
                ceil,
                count_include_pad,
            } => {
                let fits = (0..2).all(|i| stride[i] + padding[i] <= kernel[i]);
                if *ceil && *count_include_pad && !fits {
                    return Err(self.error("ONNX has no rounded-up average that counts padding"));
                }
                let mut attributes = self.pool_window(id, *kernel, *stride, *padding, *ceil)?;
                attributes.push(int("count_include_pad", usize::from(*count_include_pad)));
                self.emit("AveragePool", x, out, attributes);
            }
            Op::GlobalAvgPool => self.emit("GlobalAveragePool", x, out, Vec::new()),
            Op::AdaptiveAvgPool { size } => self.adaptive_pool(id, *size, x[0], out)?,
            Op::Add => {
                let op = if x.len() == 2 { "Add" } else { "Sum" };
                self.emit(op, x, out, Vec::new());
            }
            Op::Mul => self.emit("Mul", x, out, Vec::new()),
            Op::Concat => self.emit("Concat", x, out, vec![int("axis", 1)]),
            Op::Slice { start, len } => {
                let starts = self.ints(format!("{out}.starts"), &[*start]);
                let ends = self.ints(format!("{out}.ends"), &[start + len]);
                let axes = self.ints(format!("{out}.axes"), &[1]);
                self.emit("Slice", &[x[0], &starts, &ends, &axes], out, Vec::new());
            }
            Op::ChannelShuffle { groups } => {
                // As a permutation of channels, which works for any height and width.
                let channels = self.values[id].channels();
                let per_group = channels / groups;
                let order: Vec<usize> = (0..channels)
                    .map(|c| c % groups * per_group + c / groups)
                    .collect();
                let order = self.ints(format!("{out}.order"), &order);
                self.emit("Gather", &[x[0], &order], out, vec![int("axis", 1)]);
            }
            Op::Upsample { scale, bilinear } => {
                let factor = *scale as f32;
                let scales =
                    self.floats(format!("{out}.scales"), &[4], &[1.0, 1.0, factor, factor]);
                let attributes = if *bilinear {
                    vec![
                        text("mode", "linear"),
                        text("coordinate_transformation_mode", "half_pixel"),
                    ]
                } else {
                    vec![
                        text("mode", "nearest"),
                        text("coordinate_transformation_mode", "asymmetric"),
                        text("nearest_mode", "floor"),
                    ]
                };
                self.emit("Resize", &[x[0], "", &scales], out, attributes);
            }
            Op::Resize { align_corners } => self.resize(id, *align_corners, [x[0], x[1]], out),
            Op::SamePad { kernel, stride } => self.same_pad(id, *kernel, *stride, x[0], out)?,
            Op::Flatten => self.emit("Flatten", x, out, vec![int("axis", 1)]),
            Op::Linear { .. } => {
                let params = self.params(node);
                self.emit("Gemm", &all(x, &params), out, vec![int("transB", 1)]);
            }
            Op::Softmax => self.softmax(id, x[0], out),
            Op::DropBlock { .. } | Op::Rois => {}
            Op::DeformConv2d { .. }
            | Op::ConvTranspose2d { .. }
            | Op::Coordinates { .. }
            | Op::RoiAlign { .. } => self.sampling(node, x, out),
        }
        Ok(())
    }

    /// Softmax of the value of node `id` over its classes: channels of a map, features of a vector.
    pub fn softmax(&mut self, id: usize, x: &str, out: &str) {
        let axis = match self.values[id] {
            Value::Map { .. } => 1,
            Value::Vector { .. } => -1,
        };
        let axis = AttributeProto {
            i: Some(axis),
            ..int("axis", 0)
        };
        self.emit("Softmax", &[x], out, vec![axis]);
    }

    /// The greatest channel of each pixel of a map.
    pub fn greatest_channel(&mut self, x: &str, out: &str) {
        let attributes = vec![int("axis", 1), int("keepdims", 0)];
        self.emit("ArgMax", &[x], out, attributes);
    }

    fn activation(&mut self, act: Act, x: &str, out: &str) {
        match act {
            Act::Relu => self.emit("Relu", &[x], out, Vec::new()),
            Act::Relu6 => {
                let low = self.floats(format!("{out}.min"), &[], &[0.0]);
                let high = self.floats(format!("{out}.max"), &[], &[6.0]);
                self.emit("Clip", &[x, &low, &high], out, Vec::new());
            }
            Act::HardSwish => self.emit("HardSwish", &[x], out, Vec::new()),
            Act::HardSigmoid { slope, offset } => {
                let attributes = vec![float("alpha", slope), float("beta", offset)];
                self.emit("HardSigmoid", &[x], out, attributes);
            }
            Act::Swish => {
                let gate = format!("{out}.sigmoid");
                self.emit("Sigmoid", &[x], &gate, Vec::new());
                self.emit("Mul", &[x, &gate], out, Vec::new());
            }
            Act::Sigmoid => self.emit("Sigmoid", &[x], out, Vec::new()),
            Act::LeakyRelu { slope } => {
                self.emit("LeakyRelu", &[x], out, vec![float("alpha", slope)]);
            }
            Act::Mish => {
                let (soft, gate) = (format!("{out}.softplus"), format!("{out}.tanh"));
                self.emit("Softplus", &[x], &soft, Vec::new());
                self.emit("Tanh", &[&soft], &gate, Vec::new());
                self.emit("Mul", &[x, &gate], out, Vec::new());
            }
        }
    }

    /// Height and width of the value of a node, where they are known.
    pub fn size(&self, id: usize) -> Option<[usize; 2]> {
        match self.values[id] {
            Value::Map { hw, .. } => hw,
            Value::Vector { .. } => None,
        }
    }

    /// What the node reads.
    pub fn inputs(&self, id: usize) -> &'a [usize] {
        &self.graph.nodes[id].inputs
    }

    /// Attributes of a pooling. When rounding up, PyTorch drops a last window that begins in the
    /// trailing padding and ONNX keeps it; where that can happen, the trailing padding is spelled out
    /// for the known size instead.
    fn pool_window(
        &self,
        id: usize,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        ceil: bool,
    ) -> Result<Vec<AttributeProto>, GraphError> {
        let mut attributes = window(kernel, stride, padding);
        let agree = (0..2).all(|i| stride[i] + padding[i] <= kernel[i]);
        attributes.push(int("ceil_mode", usize::from(ceil && agree)));
        if !ceil || agree {
            return Ok(attributes);
        }
        let source = self.values[self.graph.nodes[id].inputs[0]];
        let (Value::Map { hw: Some(from), .. }, Value::Map { hw: Some(to), .. }) =
            (source, self.values[id])
        else {
            return Err(self.error("its rounded-up pooling needs a fixed image size: give one"));
        };
        let [bottom, right] = [0, 1].map(|i| {
            ((to[i] - 1) * stride[i] + kernel[i])
                .saturating_sub(from[i] + padding[i])
                .max(padding[i])
        });
        attributes[2] = ints("pads", &[padding[0], padding[1], bottom, right]);
        Ok(attributes)
    }

    pub fn error(&self, reason: &str) -> GraphError {
        GraphError::Export {
            graph: self.graph.name.clone(),
            reason: reason.to_owned(),
        }
    }

    /// ONNX has no adaptive pooling: for a known size it is a pooling when sizes divide, else the
    /// product with an averaging matrix on each side.
    fn adaptive_pool(
        &mut self,
        id: usize,
        size: [usize; 2],
        x: &str,
        out: &str,
    ) -> Result<(), GraphError> {
        if size == [1, 1] {
            self.emit("GlobalAveragePool", &[x], out, Vec::new());
            return Ok(());
        }
        let Value::Map { hw: Some(from), .. } = self.values[self.graph.nodes[id].inputs[0]] else {
            return Err(self.error("its adaptive pooling needs a fixed image size: give one"));
        };
        if from[0].is_multiple_of(size[0]) && from[1].is_multiple_of(size[1]) {
            let kernel = [from[0] / size[0], from[1] / size[1]];
            self.emit("AveragePool", &[x], out, window(kernel, kernel, [0, 0]));
            return Ok(());
        }
        let rows = averaging(from[0], size[0]);
        let rows = self.floats(format!("{out}.rows"), &[size[0], from[0]], &rows);
        let columns = transposed(&averaging(from[1], size[1]), from[1]);
        let columns = self.floats(format!("{out}.columns"), &[from[1], size[1]], &columns);
        let half = format!("{out}.half");
        self.emit("MatMul", &[&rows, x], &half, Vec::new());
        self.emit("MatMul", &[&half, &columns], out, Vec::new());
        Ok(())
    }
}

/// `to`×`from` matrix that averages as PyTorch's adaptive pooling: cell i spans
/// ⌊i·from/to⌋ … ⌈(i+1)·from/to⌉.
fn averaging(from: usize, to: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; to * from];
    for (i, row) in matrix.chunks_exact_mut(from).enumerate() {
        let (start, end) = (i * from / to, ((i + 1) * from).div_ceil(to));
        row[start..end].fill(1.0 / (end - start) as f32);
    }
    matrix
}

fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    let rows = matrix.len() / columns;
    (0..matrix.len())
        .map(|i| matrix[i % rows * columns + i / rows])
        .collect()
}

pub(super) fn all<'s>(inputs: &[&'s str], params: &'s [String]) -> Vec<&'s str> {
    inputs
        .iter()
        .copied()
        .chain(params.iter().map(String::as_str))
        .collect()
}

pub(super) fn window(
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Vec<AttributeProto> {
    let [top, left] = padding;
    vec![
        ints("kernel_shape", &kernel),
        ints("strides", &stride),
        ints("pads", &[top, left, top, left]),
    ]
}

pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        f: Some(value),
        r#type: 1,
        ..Default::default()
    }
}

pub(super) fn int(name: &str, value: usize) -> AttributeProto {
    let i = Some(value as i64);
    AttributeProto {
        name: name.to_owned(),
        i,
        r#type: 2,
        ..Default::default()
    }
}

pub(super) fn text(name: &str, value: &str) -> AttributeProto {
    let s = Some(value.as_bytes().to_vec());
    AttributeProto {
        name: name.to_owned(),
        s,
        r#type: 3,
        ..Default::default()
    }
}

pub(super) fn ints(name: &str, values: &[usize]) -> AttributeProto {
    let ints = values.iter().map(|&v| v as i64).collect();
    AttributeProto {
        name: name.to_owned(),
        ints,
        r#type: 7,
        ..Default::default()
    }
}
