//! Nodes, operations and parameters.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::Head;

/// Index of a node in [`Graph::nodes`]; inputs always have smaller indices (topological order).
pub type NodeId = usize;

/// A dense fp32 tensor in host memory, row-major (convolution weights `[out, in/groups, kh, kw]`,
/// linear weights `[out, in]`).
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` values.
    pub data: Vec<f32>,
}

/// Parameters and buffers by full name (`<node>.<suffix>`), in graph order.
pub type WeightMap = IndexMap<String, HostTensor>;

/// Element-wise functions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// max(x, 0)
    Relu,
    /// min(max(x, 0), 6)
    Relu6,
    /// x · relu6(x + 3) / 6
    HardSwish,
    /// min(max(slope · x + offset, 0), 1)
    HardSigmoid {
        /// Slope (PyTorch 1/6, Paddle 0.2).
        slope: f32,
        /// Offset, 0.5.
        offset: f32,
    },
    /// x · sigmoid(x)
    Swish,
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// max(x, slope · x)
    LeakyRelu {
        /// Slope of the negative side.
        slope: f32,
    },
    /// x · tanh(softplus(x))
    Mish,
}

/// An operation. Feature maps are N×C×H×W in meaning, whatever their memory order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// The image batch, already normalised.
    Input {
        /// Channels of the input.
        channels: usize,
    },
    /// 2-d convolution.
    Conv2d {
        /// Input channels.
        in_channels: usize,
        /// Output channels.
        out_channels: usize,
        /// Kernel height and width.
        kernel: [usize; 2],
        /// Stride by height and width.
        stride: [usize; 2],
        /// Symmetric zero padding by height and width.
        padding: [usize; 2],
        /// Dilation by height and width.
        dilation: [usize; 2],
        /// Groups; equal to the channels for a depthwise convolution.
        groups: usize,
        /// Whether it has a bias.
        bias: bool,
    },
    /// Batch normalisation over N, H, W.
    BatchNorm {
        /// Channels.
        channels: usize,
        /// Added to the variance.
        eps: f64,
        /// Weight of the *new* batch statistic in the running one (PyTorch's convention; Paddle's 0.9 is 0.1 here).
        momentum: f64,
    },
    /// Element-wise activation.
    Activation(Act),
    /// Maximum pooling.
    MaxPool {
        /// Window.
        kernel: [usize; 2],
        /// Stride.
        stride: [usize; 2],
        /// Padding, never counted.
        padding: [usize; 2],
        /// Round output sizes up.
        ceil: bool,
    },
    /// Average pooling.
    AvgPool {
        /// Window.
        kernel: [usize; 2],
        /// Stride.
        stride: [usize; 2],
        /// Zero padding.
        padding: [usize; 2],
        /// Round output sizes up.
        ceil: bool,
        /// Whether padding counts in the divisor.
        count_include_pad: bool,
    },
    /// Average over H×W, keeps N×C×1×1.
    GlobalAvgPool,
    /// Average to a fixed output size (AlexNet's head).
    AdaptiveAvgPool {
        /// Output height and width.
        size: [usize; 2],
    },
    /// Sum of two or more maps of one shape.
    Add,
    /// Product of a map and an N×C×1×1 gate (first input is the map), or of two maps of one shape.
    Mul,
    /// Concatenation of channels.
    Concat,
    /// A contiguous range of channels.
    Slice {
        /// First channel.
        start: usize,
        /// Number of channels.
        len: usize,
    },
    /// Interleaves `groups` groups of channels (ShuffleNet).
    ChannelShuffle {
        /// Number of groups.
        groups: usize,
    },
    /// Enlarges H×W by an integer factor.
    Upsample {
        /// Factor.
        scale: usize,
        /// Bilinear instead of nearest.
        bilinear: bool,
    },
    /// Bilinear interpolation of the first input to the height and width of the second, of which nothing
    /// else is used (PyTorch's `interpolate`, without antialiasing).
    Resize {
        /// Whether the centres of corner pixels stay at the corners, instead of the corners themselves.
        align_corners: bool,
    },
    /// Zeros around a map so that a convolution of this kernel and stride without padding of its own gives
    /// ⌈size / stride⌉: the `SAME` padding of TensorFlow and Paddle. An odd zero goes to the bottom or right.
    SamePad {
        /// Kernel of what follows.
        kernel: [usize; 2],
        /// Stride of what follows.
        stride: [usize; 2],
    },
    /// N×C×H×W → N×(C·H·W).
    Flatten,
    /// Fully connected layer.
    Linear {
        /// Input features.
        in_features: usize,
        /// Output features.
        out_features: usize,
        /// Whether it has a bias.
        bias: bool,
    },
    /// Dropout in training, identity else.
    Dropout {
        /// Probability of zeroing.
        p: f64,
    },
    /// Softmax over the last axis (only in exported graphs).
    Softmax,
    /// Deformable convolution with modulation (Zhu et al. 2019, "Deformable ConvNets v2"). Inputs: the map;
    /// offsets with 2·kh·kw channels at the output's size, for each tap of the kernel (row by row) first down,
    /// then right, in pixels of the input; factors with kh·kw channels, already between 0 and 1. Pixels outside
    /// the map are 0; values between pixels are bilinear.
    DeformConv2d {
        /// Input channels.
        in_channels: usize,
        /// Output channels.
        out_channels: usize,
        /// Kernel height and width.
        kernel: [usize; 2],
        /// Stride by height and width.
        stride: [usize; 2],
        /// Zero padding by height and width.
        padding: [usize; 2],
        /// Dilation by height and width.
        dilation: [usize; 2],
        /// Whether it has a bias.
        bias: bool,
    },
    /// Transposed convolution; weights `[in, out, kh, kw]`. Output size (size − 1)·stride − 2·padding + kernel.
    ConvTranspose2d {
        /// Input channels.
        in_channels: usize,
        /// Output channels.
        out_channels: usize,
        /// Kernel height and width.
        kernel: [usize; 2],
        /// Stride by height and width.
        stride: [usize; 2],
        /// Padding taken from the output's sides.
        padding: [usize; 2],
        /// Whether it has a bias.
        bias: bool,
    },
    /// The map with two more channels: the place of each pixel from left to right, then from top to bottom,
    /// each linear from −1 at the first pixel (Liu et al. 2018, "CoordConv"); −1 on a side of one pixel.
    Coordinates {
        /// Value at the last pixel: 1, in PaddleDetection −0.5.
        last: f32,
    },
    /// Zeroes square blocks in training, and scales the rest so that the mean stays (Ghiasi et al. 2018,
    /// "DropBlock"); identity else.
    DropBlock {
        /// Side of a block.
        size: usize,
        /// Share of values that stays.
        keep: f64,
    },
    /// Regions of interest, given from outside like the image: K×5, the image's index in the batch, then left,
    /// top, right and bottom in pixels of the network's input.
    Rois,
    /// Pools regions to a fixed size (He et al. 2017, "Mask R-CNN"): inputs are regions, then one map for each
    /// level. Output K×C×h×w, in the order of the regions.
    RoiAlign {
        /// Height and width of the result.
        size: [usize; 2],
        /// Samples along each side of a cell; 0 = ⌈cell size⌉.
        sampling: usize,
        /// Pixels of the input for one of each level's map (4, 8, 16, 32), rising.
        strides: Vec<usize>,
        /// Whether coordinates are shifted by half a pixel, which is right (PaddleDetection: on).
        aligned: bool,
    },
}

/// Level of a feature pyramid that a region of `area` pixels is pooled from, from 0: the stride-16 one for 224²,
/// one less for each halving of the side (Lin et al. 2017, "Feature Pyramid Networks", equation 1).
pub fn pyramid_level(area: f32, strides: &[usize]) -> usize {
    let least = level_areas(strides);
    least.iter().filter(|&&least| area >= least).count()
}

/// Areas from which on a region is pooled from the second, third … level; without logarithms, so that every
/// runtime decides alike.
pub fn level_areas(strides: &[usize]) -> Vec<f32> {
    let first = strides.first().map_or(1.0, |&s| s as f32);
    let side = |level: usize| 224.0 / 16.0 * first * 2f32.powi(level as i32);
    (1..strides.len()).map(|l| side(l) * side(l)).collect()
}

/// What a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParamKind {
    /// Convolution or linear weight: decayed.
    Weight,
    /// Bias of a convolution or linear layer.
    Bias,
    /// Scale of a batch norm (`weight`).
    NormScale,
    /// Shift of a batch norm (`bias`).
    NormShift,
    /// Running mean: a buffer, no gradient.
    RunningMean,
    /// Running variance: a buffer, no gradient.
    RunningVar,
}

impl ParamKind {
    /// Whether it is a running statistic: measured, not trained.
    pub fn is_statistic(self) -> bool {
        matches!(self, ParamKind::RunningMean | ParamKind::RunningVar)
    }
}

/// A parameter or buffer of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Last part of the full name: `weight`, `bias`, `running_mean`, `running_var`.
    pub suffix: &'static str,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Role.
    pub kind: ParamKind,
}

impl Op {
    /// Parameters and buffers of this operation, in PyTorch's order.
    pub fn params(&self) -> Vec<Param> {
        let p = |suffix, shape, kind| Param {
            suffix,
            shape,
            kind,
        };
        let layer = |weight: Vec<usize>, outputs: usize, bias: bool| {
            let bias = bias.then(|| p("bias", vec![outputs], ParamKind::Bias));
            let weight = p("weight", weight, ParamKind::Weight);
            std::iter::once(weight).chain(bias).collect()
        };
        match *self {
            Op::Conv2d {
                in_channels,
                out_channels: out,
                kernel: [height, width],
                groups,
                bias,
                ..
            } => layer(vec![out, in_channels / groups, height, width], out, bias),
            Op::DeformConv2d {
                in_channels,
                out_channels: out,
                kernel: [height, width],
                bias,
                ..
            } => layer(vec![out, in_channels, height, width], out, bias),
            Op::ConvTranspose2d {
                in_channels,
                out_channels: out,
                kernel: [height, width],
                bias,
                ..
            } => layer(vec![in_channels, out, height, width], out, bias),
            Op::Linear {
                in_features,
                out_features: out,
                bias,
            } => layer(vec![out, in_features], out, bias),
            Op::BatchNorm { channels, .. } => vec![
                p("weight", vec![channels], ParamKind::NormScale),
                p("bias", vec![channels], ParamKind::NormShift),
                p("running_mean", vec![channels], ParamKind::RunningMean),
                p("running_var", vec![channels], ParamKind::RunningVar),
            ],
            _ => Vec::new(),
        }
    }
}

/// One operation with its place in the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique name; parameters are `<name>.<suffix>`. Torchvision's names where it has the network.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Where its inputs come from, in the operation's order.
    pub inputs: Vec<NodeId>,
    /// An earlier node with the same operation whose parameters it uses; it then has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<NodeId>,
}

impl Node {
    /// Parameters and buffers of its own: none where it shares those of another.
    pub fn params(&self) -> Vec<Param> {
        match self.shares {
            Some(_) => Vec::new(),
            None => self.op.params(),
        }
    }

    /// The inputs whose values it reads: all but those of which it takes only the size.
    pub fn value_inputs(&self) -> &[NodeId] {
        match self.op {
            Op::Resize { .. } => &self.inputs[..self.inputs.len().min(1)],
            _ => &self.inputs,
        }
    }
}

/// A named result of a graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Name in exported models.
    pub name: String,
    /// Producing node.
    pub node: NodeId,
    /// Set for the output of an auxiliary head, which only training reads: the weight of its loss. The
    /// inference graph ([`crate::fold_batch_norm`]) is without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auxiliary: Option<f32>,
}

/// A network. Nodes stand in topological order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// Model name as in `params.md` (`ResNet50_vd` …).
    pub name: String,
    /// Nodes in execution order.
    pub nodes: Vec<Node>,
    /// Results; a classifier has one, `logits`, N×classes. A segmenter's `logits`, N×classes×H×W, come first,
    /// those of its auxiliary heads follow. A detector's are named by its [`Head`].
    pub outputs: Vec<Output>,
    /// How the outputs of a detector become boxes; `None` for other networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
}

impl Graph {
    /// All parameters and buffers with their full names, in graph order.
    pub fn params(&self) -> impl Iterator<Item = (String, Param)> + '_ {
        self.nodes.iter().flat_map(|node| {
            node.params()
                .into_iter()
                .map(move |p| (format!("{}.{}", node.name, p.suffix), p))
        })
    }

    /// The node whose parameters a node uses: itself, or the one it shares with.
    pub fn owner(&self, id: NodeId) -> NodeId {
        self.nodes[id].shares.unwrap_or(id)
    }

    /// For each node whether others use the same parameters.
    pub fn shared(&self) -> Vec<bool> {
        let mut shared = vec![false; self.nodes.len()];
        for (id, node) in self.nodes.iter().enumerate() {
            if let Some(owner) = node.shares {
                shared[owner] = true;
                shared[id] = true;
            }
        }
        shared
    }

    /// Weight of the loss of each output: 1 except for auxiliary heads.
    pub fn loss_weights(&self) -> Vec<f32> {
        let outputs = self.outputs.iter();
        outputs.map(|o| o.auxiliary.unwrap_or(1.0)).collect()
    }
}
