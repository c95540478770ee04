//! Shape inference, exact with a given input size or by channels only.

use crate::{Graph, GraphError, Node, Op};

/// Shape of one sample of a value: the batch axis is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// A feature map C×H×W; `hw` is unknown while a graph is built for any input size.
    Map {
        /// Channels.
        channels: usize,
        /// Height and width.
        hw: Option<[usize; 2]>,
    },
    /// A feature vector.
    Vector {
        /// Features.
        features: usize,
    },
}

impl Value {
    /// Channels of a map or features of a vector.
    pub fn channels(self) -> usize {
        match self {
            Value::Map { channels, .. } => channels,
            Value::Vector { features } => features,
        }
    }

    /// Full shape with the batch axis; `None` while height and width are unknown.
    pub fn with_batch(self, batch: usize) -> Option<Vec<usize>> {
        match self {
            Value::Map { channels, hw } => hw.map(|[h, w]| vec![batch, channels, h, w]),
            Value::Vector { features } => Some(vec![batch, features]),
        }
    }
}

/// Output shape of every node (indexed by node) for an input of shape `[n, c, h, w]`.
///
/// # Errors
/// Names the first node whose inputs do not fit, for example because the image is too small.
pub fn infer_shapes(graph: &Graph, input: [usize; 4]) -> Result<Vec<Vec<usize>>, GraphError> {
    let values = infer_values(graph, input[1], Some([input[2], input[3]]))?;
    // Height and width are given, so every map knows its own.
    Ok(values
        .into_iter()
        .filter_map(|v| v.with_batch(input[0]))
        .collect())
}

/// Like [`infer_shapes`] without the batch axis; with `hw` absent only channels are tracked.
pub(crate) fn infer_values(
    graph: &Graph,
    channels: usize,
    hw: Option<[usize; 2]>,
) -> Result<Vec<Value>, GraphError> {
    let mut values: Vec<Value> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for &id in &node.inputs {
            inputs.push(*values.get(id).ok_or_else(|| {
                graph.node_error(node, format!("its input {id} does not stand before it"))
            })?);
        }
        let value = if let Op::Input { channels: wanted } = node.op {
            if wanted != channels {
                return Err(graph.node_error(
                    node,
                    format!("the input has {channels} channels, the network takes {wanted}"),
                ));
            }
            if hw.is_some_and(|[h, w]| h == 0 || w == 0) {
                return Err(graph.node_error(node, "the image is empty".to_owned()));
            }
            Value::Map { channels, hw }
        } else {
            infer_node(node, &inputs).map_err(|reason| graph.node_error(node, reason))?
        };
        values.push(value);
    }
    Ok(values)
}

/// Output of one operation other than `Input`; the error is the reason alone.
pub(crate) fn infer_node(node: &Node, inputs: &[Value]) -> Result<Value, String> {
    let wanted = node.op.arity();
    if !wanted.contains(&inputs.len()) {
        return Err(format!(
            "it has {} inputs, expected {wanted:?}",
            inputs.len()
        ));
    }
    match &node.op {
        Op::Input { .. } => Err("an input cannot have inputs".to_owned()),
        Op::Conv2d {
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
            dilation,
            groups,
            ..
        } => {
            let (channels, hw) = map(inputs[0])?;
            if channels != *in_channels {
                return Err(format!(
                    "it gets {channels} channels but is built for {in_channels}"
                ));
            }
            if *groups == 0 || in_channels % groups != 0 || out_channels % groups != 0 {
                return Err(format!(
                    "{in_channels} → {out_channels} channels cannot be split into {groups} groups"
                ));
            }
            let hw = window(hw, *kernel, *stride, *padding, *dilation, false)?;
            Ok(Value::Map {
                channels: *out_channels,
                hw,
            })
        }
        Op::BatchNorm {
            channels: wanted, ..
        } => {
            let (channels, hw) = map(inputs[0])?;
            if channels != *wanted {
                return Err(format!(
                    "it gets {channels} channels but is built for {wanted}"
                ));
            }
            Ok(Value::Map { channels, hw })
        }
        Op::Activation(_) | Op::Dropout { .. } | Op::DropBlock { .. } => Ok(inputs[0]),
        Op::DeformConv2d {
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
            dilation,
            ..
        } => {
            let (channels, hw) = map(inputs[0])?;
            let taps = kernel[0] * kernel[1];
            for (value, wanted) in [
                (channels, *in_channels),
                (map(inputs[1])?.0, 2 * taps),
                (map(inputs[2])?.0, taps),
            ] {
                if value != wanted {
                    return Err(format!(
                        "it gets {value} channels where it is built for {wanted}"
                    ));
                }
            }
            let hw = window(hw, *kernel, *stride, *padding, *dilation, false)?;
            for &more in &inputs[1..] {
                if map(more)?.1 != hw {
                    return Err(mismatch(inputs));
                }
            }
            Ok(Value::Map {
                channels: *out_channels,
                hw,
            })
        }
        Op::ConvTranspose2d {
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
            ..
        } => {
            let (channels, hw) = map(inputs[0])?;
            if channels != *in_channels {
                return Err(format!(
                    "it gets {channels} channels but is built for {in_channels}"
                ));
            }
            if (0..2).any(|i| kernel[i] == 0 || stride[i] == 0 || 2 * padding[i] > kernel[i]) {
                return Err(
                    "kernel and stride must be at least 1, padding at most half a kernel"
                        .to_owned(),
                );
            }
            let hw = hw.map(|hw| {
                [0, 1].map(|i| (hw[i].max(1) - 1) * stride[i] + kernel[i] - 2 * padding[i])
            });
            Ok(Value::Map {
                channels: *out_channels,
                hw,
            })
        }
        Op::Coordinates { .. } => {
            let (channels, hw) = map(inputs[0])?;
            Ok(Value::Map {
                channels: channels + 2,
                hw,
            })
        }
        Op::Rois => Ok(Value::Vector { features: 5 }),
        Op::RoiAlign { size, .. } => {
            if !matches!(inputs[0], Value::Vector { features: 5 }) {
                return Err("its first input must be regions of interest".to_owned());
            }
            let (channels, _) = map(inputs[1])?;
            for &level in &inputs[2..] {
                if map(level)?.0 != channels {
                    return Err(mismatch(inputs));
                }
            }
            Ok(Value::Map {
                channels,
                hw: Some(*size),
            })
        }
        Op::Softmax => match inputs[0] {
            Value::Vector { .. } => Ok(inputs[0]),
            Value::Map { .. } => Err("it works on vectors only".to_owned()),
        },
        Op::MaxPool {
            kernel,
            stride,
            padding,
            ceil,
        }
        | Op::AvgPool {
            kernel,
            stride,
            padding,
            ceil,
            ..
        } => {
            let (channels, hw) = map(inputs[0])?;
            if (0..2).any(|i| padding[i] * 2 > kernel[i]) {
                return Err(format!(
                    "padding {padding:?} is more than half of window {kernel:?}"
                ));
            }
            let hw = window(hw, *kernel, *stride, *padding, [1, 1], *ceil)?;
            Ok(Value::Map { channels, hw })
        }
        Op::GlobalAvgPool => {
            let (channels, _) = map(inputs[0])?;
            Ok(Value::Map {
                channels,
                hw: Some([1, 1]),
            })
        }
        Op::AdaptiveAvgPool { size } => {
            let (channels, _) = map(inputs[0])?;
            if size[0] == 0 || size[1] == 0 {
                return Err("its output size is 0".to_owned());
            }
            Ok(Value::Map {
                channels,
                hw: Some(*size),
            })
        }
        Op::Add => same(inputs),
        Op::Mul => {
            let (channels, hw) = map(inputs[0])?;
            let (gate_channels, gate_hw) = map(inputs[1])?;
            if channels != gate_channels || (gate_hw != Some([1, 1]) && gate_hw != hw) {
                return Err(mismatch(inputs));
            }
            Ok(Value::Map { channels, hw })
        }
        Op::Concat => {
            let (mut channels, hw) = map(inputs[0])?;
            for &input in &inputs[1..] {
                let (more, other) = map(input)?;
                if other != hw {
                    return Err(mismatch(inputs));
                }
                channels += more;
            }
            Ok(Value::Map { channels, hw })
        }
        Op::Slice { start, len } => {
            let (channels, hw) = map(inputs[0])?;
            if *len == 0 || start + len > channels {
                return Err(format!(
                    "channels {start}..{} do not exist in a map of {channels}",
                    start + len
                ));
            }
            Ok(Value::Map { channels: *len, hw })
        }
        Op::ChannelShuffle { groups } => {
            let (channels, hw) = map(inputs[0])?;
            if *groups == 0 || channels % groups != 0 {
                return Err(format!(
                    "{channels} channels cannot be split into {groups} groups"
                ));
            }
            Ok(Value::Map { channels, hw })
        }
        Op::Upsample { scale, .. } => {
            let (channels, hw) = map(inputs[0])?;
            if *scale == 0 {
                return Err("its factor is 0".to_owned());
            }
            Ok(Value::Map {
                channels,
                hw: hw.map(|[h, w]| [h * scale, w * scale]),
            })
        }
        Op::Resize { .. } => {
            let (channels, _) = map(inputs[0])?;
            let (_, hw) = map(inputs[1])?;
            Ok(Value::Map { channels, hw })
        }
        Op::SamePad { kernel, stride } => {
            let (channels, hw) = map(inputs[0])?;
            if (0..2).any(|i| kernel[i] == 0 || stride[i] == 0) {
                return Err("kernel and stride must be at least 1".to_owned());
            }
            let hw = hw.map(|hw| {
                [0, 1].map(|i| {
                    hw[i]
                        + same_padding(hw[i], kernel[i], stride[i])
                            .iter()
                            .sum::<usize>()
                })
            });
            Ok(Value::Map { channels, hw })
        }
        Op::Flatten => {
            let (channels, hw) = map(inputs[0])?;
            let [h, w] = hw.ok_or(
                "the size before it depends on the image: put a global or adaptive pool before it",
            )?;
            Ok(Value::Vector {
                features: channels * h * w,
            })
        }
        Op::Linear {
            in_features,
            out_features,
            ..
        } => match inputs[0] {
            Value::Vector { features } if features == *in_features => Ok(Value::Vector {
                features: *out_features,
            }),
            Value::Vector { features } => Err(format!(
                "it gets {features} features but is built for {in_features}"
            )),
            Value::Map { .. } => Err("it gets a feature map: flatten it first".to_owned()),
        },
    }
}

/// Zeros before and after `size` values that a window of `kernel` needs to give ⌈size / stride⌉ results.
pub fn same_padding(size: usize, kernel: usize, stride: usize) -> [usize; 2] {
    let covered = (size.div_ceil(stride.max(1)).max(1) - 1) * stride + kernel;
    let zeros = covered.saturating_sub(size);
    [zeros / 2, zeros - zeros / 2]
}

/// Channels and size of a feature map.
fn map(value: Value) -> Result<(usize, Option<[usize; 2]>), String> {
    match value {
        Value::Map { channels, hw } => Ok((channels, hw)),
        Value::Vector { features } => Err(format!(
            "it needs a feature map but gets a vector of {features}"
        )),
    }
}

fn same(inputs: &[Value]) -> Result<Value, String> {
    if inputs.iter().any(|v| *v != inputs[0]) {
        return Err(mismatch(inputs));
    }
    Ok(inputs[0])
}

fn mismatch(inputs: &[Value]) -> String {
    let texts: Vec<String> = inputs
        .iter()
        .map(|value| match value {
            Value::Map {
                channels,
                hw: Some([h, w]),
            } => format!("{channels}×{h}×{w}"),
            Value::Map { channels, hw: None } => format!("{channels}×?×?"),
            Value::Vector { features } => features.to_string(),
        })
        .collect();
    format!("its inputs do not fit together: {}", texts.join(", "))
}

/// Output size of a sliding window, by PyTorch's rules (with `ceil`, a window must begin inside the
/// image or its leading padding).
fn window(
    hw: Option<[usize; 2]>,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    ceil: bool,
) -> Result<Option<[usize; 2]>, String> {
    if (0..2).any(|i| kernel[i] == 0 || stride[i] == 0 || dilation[i] == 0) {
        return Err("kernel, stride and dilation must be at least 1".to_owned());
    }
    let Some(hw) = hw else { return Ok(None) };
    let mut out = [0; 2];
    for i in 0..2 {
        let (size, pad, stride) = (hw[i] as i64, padding[i] as i64, stride[i] as i64);
        let room = size + 2 * pad - (dilation[i] * (kernel[i] - 1) + 1) as i64;
        let mut steps = (room + if ceil { stride - 1 } else { 0 }).div_euclid(stride);
        if ceil && steps > 0 && steps * stride >= size + pad {
            steps -= 1;
        }
        out[i] = usize::try_from(steps + 1).unwrap_or(0);
        if out[i] == 0 {
            return Err(format!(
                "the map of {}×{} is smaller than its {}×{} window: use a larger image",
                hw[0], hw[1], kernel[0], kernel[1]
            ));
        }
    }
    Ok(Some(out))
}
