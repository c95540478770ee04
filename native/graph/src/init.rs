//! Initial weights, the same for the same seed on every machine and thread count.
//!
//! Convolutions: He et al. 2015, normal with variance 2 / fan-out, where fan-out is
//! `kernel area · out_channels / groups` (torchvision's choice, corrected for groups so that
//! depthwise layers keep the variance). Linear: uniform in ±1/√fan-in (PyTorch and PaddleClas); so are the
//! convolutions that make a network's outputs, as in PyTorch: their fan-out is the number of classes, and a
//! training should begin with small logits. Convolutions that neither a norm nor an activation follows (those of
//! a feature pyramid) keep the variance: normal with 1 / fan-in (Glorot and Bengio 2010). Transposed convolutions:
//! normal with 2 / the number of values that make an output pixel. The convolutions that place the samples of
//! deformable ones begin at 0, so that these begin as plain ones (Dai et al. 2017). The last convolutions of PicoDet:
//! normal with deviation 0.01, and a bias with which each class begins at a chance of 1 % (Lin et al. 2017, "Focal Loss";
//! so PaddleDetection, where the distributions of sides have the same bias, which their softmax does not notice). Other
//! biases 0; batch norm scale 1, shift 0, mean 0, variance 1.

use rayon::prelude::*;

use crate::{Graph, Head, HostTensor, Node, NodeId, Op, Param, ParamKind, WeightMap};

/// How a parameter begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// One value everywhere.
    Constant(f32),
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform in ±bound.
    Uniform {
        /// Bound.
        bound: f64,
    },
}

/// How `param` of `op` begins.
pub fn init_of(op: &Op, param: &Param) -> Init {
    match (param.kind, op) {
        (
            ParamKind::Weight,
            Op::Conv2d {
                out_channels,
                kernel,
                groups,
                ..
            },
        ) => he(kernel[0] * kernel[1] * out_channels / groups),
        (
            ParamKind::Weight,
            Op::DeformConv2d {
                out_channels,
                kernel,
                ..
            },
        ) => he(kernel[0] * kernel[1] * out_channels),
        (
            ParamKind::Weight,
            Op::ConvTranspose2d {
                in_channels,
                kernel,
                stride,
                ..
            },
        ) => he(in_channels * kernel[0].div_ceil(stride[0]) * kernel[1].div_ceil(stride[1])),
        (ParamKind::Weight, Op::Linear { in_features, .. }) => uniform(*in_features),
        (ParamKind::NormScale | ParamKind::RunningVar, _) => Init::Constant(1.0),
        _ => Init::Constant(0.0),
    }
}

fn he(fan: usize) -> Init {
    Init::Normal {
        std: (2.0 / fan.max(1) as f64).sqrt(),
    }
}

fn uniform(fan_in: usize) -> Init {
    let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
    Init::Uniform { bound }
}

/// The convolutions and linear layers that make the outputs, which may be enlarged after them.
fn heads(graph: &Graph) -> Vec<NodeId> {
    let source = |mut id: NodeId| {
        while let Op::Resize { .. } = graph.nodes[id].op {
            id = graph.nodes[id].inputs[0];
        }
        id
    };
    let sources = graph.outputs.iter().map(|o| source(o.node));
    sources.map(|id| graph.owner(id)).collect()
}

/// Chance of a class that no training has changed yet.
const PRIOR: f64 = 0.01;
/// Deviation of the weights before such chances.
const PRIOR_STD: f64 = 0.01;

/// The convolutions whose scores begin at [`PRIOR`].
fn rare(graph: &Graph) -> Vec<NodeId> {
    let Some(Head::Pico(_)) = graph.head else {
        return Vec::new();
    };
    let source = |mut id: NodeId| {
        while let Op::Slice { .. } = graph.nodes[id].op {
            id = graph.nodes[id].inputs[0];
        }
        id
    };
    graph.outputs.iter().map(|o| source(o.node)).collect()
}

/// The convolutions that make the offsets and factors of deformable ones.
fn placing(graph: &Graph) -> Vec<NodeId> {
    let source = |mut id: NodeId| {
        while let Op::Slice { .. } | Op::Activation(_) = graph.nodes[id].op {
            id = graph.nodes[id].inputs[0];
        }
        graph.owner(id)
    };
    let deformable = |node: &&Node| matches!(node.op, Op::DeformConv2d { .. });
    let nodes = graph.nodes.iter().filter(deformable);
    nodes
        .flat_map(|node| node.inputs[1..].iter().map(|&id| source(id)))
        .collect()
}

/// The convolutions with something else than a norm or an activation behind them.
fn linear_convs(graph: &Graph) -> Vec<bool> {
    let mut linear = vec![true; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        if let Op::BatchNorm { .. } | Op::Activation(_) = node.op {
            linear[node.inputs[0]] = false;
        }
        linear[id] &= matches!(node.op, Op::Conv2d { .. });
    }
    linear
}

/// Fresh weights for the whole graph. A parameter's values depend on the seed and its name only,
/// so two networks that share layers begin them alike (heads aside).
pub fn init_weights(graph: &Graph, seed: u64) -> WeightMap {
    let (heads, placing, rare) = (heads(graph), placing(graph), rare(graph));
    let linear = linear_convs(graph);
    let jobs: Vec<(String, Param, Init)> = graph
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(id, node)| {
            let (head, places) = (heads.contains(&id), placing.contains(&id));
            let (linear, rare) = (linear[id], rare.contains(&id));
            node.params().into_iter().map(move |param| {
                let init = match param.kind {
                    ParamKind::Weight if places => Init::Constant(0.0),
                    ParamKind::Weight if rare => Init::Normal { std: PRIOR_STD },
                    ParamKind::Bias if rare => Init::Constant((PRIOR / (1.0 - PRIOR)).ln() as f32),
                    ParamKind::Weight if head => uniform(param.shape[1..].iter().product()),
                    ParamKind::Weight if linear => {
                        let fan_in: usize = param.shape[1..].iter().product();
                        Init::Normal {
                            std: (1.0 / fan_in.max(1) as f64).sqrt(),
                        }
                    }
                    _ => init_of(&node.op, &param),
                };
                (format!("{}.{}", node.name, param.suffix), param, init)
            })
        })
        .collect();
    let tensors: Vec<(String, HostTensor)> = jobs
        .into_par_iter()
        .map(|(name, param, init)| {
            let data = fill(param.shape.iter().product(), init, seed ^ hash(&name));
            (
                name,
                HostTensor {
                    shape: param.shape,
                    data,
                },
            )
        })
        .collect();
    tensors.into_iter().collect()
}

fn fill(len: usize, init: Init, seed: u64) -> Vec<f32> {
    let mut random = SplitMix(seed);
    match init {
        Init::Constant(value) => vec![value; len],
        Init::Uniform { bound } => (0..len)
            .map(|_| ((2.0 * random.unit() - 1.0) * bound) as f32)
            .collect(),
        Init::Normal { std } => {
            let mut data = Vec::with_capacity(len + 1);
            while data.len() < len {
                // Box–Muller; 1 - u keeps the logarithm finite.
                let radius = std * (-2.0 * (1.0 - random.unit()).ln()).sqrt();
                let (sin, cos) = (std::f64::consts::TAU * random.unit()).sin_cos();
                data.push((radius * cos) as f32);
                data.push((radius * sin) as f32);
            }
            data.truncate(len);
            data
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, portable, good enough to draw initial weights.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// FNV-1a: a stable hash, unlike the standard library's.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}
