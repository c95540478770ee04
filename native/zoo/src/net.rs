//! The builder that networks are written with: a graph builder that also notes what PaddleClas or
//! PaddleSeg calls each layer.

use oarlock_graph::{Act, Conv, Graph, GraphBuilder, GraphError, NodeId, Op};

use crate::{Origin, PaddleWeight};

/// PaddleClas's or PaddleSeg's attribute names of a convolution and its batch norm inside its `ConvBNLayer`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suffixes {
    pub conv: &'static str,
    pub norm: &'static str,
}

/// Newer ("legendary") networks.
pub(crate) const PLAIN: Suffixes = Suffixes {
    conv: "conv",
    norm: "bn",
};
/// Older ("model zoo") networks, and PaddleSeg's.
pub(crate) const UNDERSCORED: Suffixes = Suffixes {
    conv: "_conv",
    norm: "_batch_norm",
};
/// PaddleDetection's.
pub(crate) const NORMED: Suffixes = Suffixes {
    conv: "conv",
    norm: "norm",
};

/// Whose version of a family that all have a Paddle origin is: they differ in names and padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    /// PaddleClas, whose networks classify.
    Clas,
    /// PaddleSeg, for which they are backbones.
    Seg,
    /// PaddleDetection, for which they are backbones too.
    Det,
}

/// Names of a convolution and its batch norm here, and of the pair in PaddleClas.
pub(crate) struct Names {
    pub conv: String,
    pub norm: String,
    pub paddle: String,
}

impl Names {
    pub fn new(
        conv: impl Into<String>,
        norm: impl Into<String>,
        paddle: impl Into<String>,
    ) -> Self {
        Self {
            conv: conv.into(),
            norm: norm.into(),
            paddle: paddle.into(),
        }
    }

    /// `<prefix>.<first>` and `<prefix>.<first + 1>`, as in a PyTorch `Sequential`.
    pub fn sequence(prefix: &str, first: usize, paddle: impl Into<String>) -> Self {
        Self::new(
            format!("{prefix}.{first}"),
            format!("{prefix}.{}", first + 1),
            paddle,
        )
    }

    /// `<prefix>.conv` and `<prefix>.bn`, where no PyTorch name is established.
    pub fn pair(prefix: &str, paddle: impl Into<String>) -> Self {
        Self::new(format!("{prefix}.conv"), format!("{prefix}.bn"), paddle)
    }
}

pub(crate) struct Net {
    pub b: GraphBuilder,
    pub origin: Origin,
    pub eps: f64,
    pub suffixes: Suffixes,
    /// Before all names here: empty, or with a dot at its end.
    prefix: String,
    /// The same in Paddle.
    paddle_prefix: String,
    weights: Vec<PaddleWeight>,
}

impl Net {
    /// An empty network and its image input.
    pub fn new(name: &str, origin: Origin, suffixes: Suffixes) -> (Self, NodeId) {
        Self::with_channels(name, 3, origin, suffixes)
    }

    /// The same for images of any number of channels.
    pub fn with_channels(
        name: &str,
        channels: usize,
        origin: Origin,
        suffixes: Suffixes,
    ) -> (Self, NodeId) {
        let mut b = GraphBuilder::new(name);
        let image = b.input(channels);
        (
            Self {
                b,
                origin,
                eps: 1e-5,
                suffixes,
                prefix: String::new(),
                paddle_prefix: String::new(),
                weights: Vec::new(),
            },
            image,
        )
    }

    /// What `build` makes, with `prefix.` before its names; suffixes and epsilon that it sets end with it.
    pub fn within<T>(&mut self, prefix: &str, build: impl FnOnce(&mut Self) -> T) -> T {
        self.within_both(prefix, prefix, build)
    }

    /// The same with another prefix before the names in Paddle.
    pub fn within_both<T>(
        &mut self,
        prefix: &str,
        paddle: &str,
        build: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let (suffixes, eps) = (self.suffixes, self.eps);
        let outer = (self.prefix.clone(), self.paddle_prefix.clone());
        self.prefix = format!("{}{prefix}.", outer.0);
        self.paddle_prefix = format!("{}{paddle}.", outer.1);
        let built = build(self);
        (self.prefix, self.paddle_prefix) = outer;
        (self.suffixes, self.eps) = (suffixes, eps);
        built
    }

    fn note(&mut self, name: String, paddle_name: String, transposed: bool, scale: f32) {
        self.weights.push(PaddleWeight {
            name: format!("{}{name}", self.prefix),
            paddle_name: format!("{}{paddle_name}", self.paddle_prefix),
            transposed,
            scale,
        });
    }

    /// Convolution alone.
    pub fn conv(&mut self, x: NodeId, name: &str, paddle: &str, conv: Conv) -> NodeId {
        let node = self.b.conv(format!("{}{name}", self.prefix), x, conv);
        self.note(
            format!("{name}.weight"),
            format!("{paddle}.weight"),
            false,
            1.0,
        );
        if conv.has_bias() {
            self.note(format!("{name}.bias"), format!("{paddle}.bias"), false, 1.0);
        }
        node
    }

    /// Deformable convolution with modulation and batch norm; offsets and factors come from a convolution of the
    /// same kernel, called as it with `_offset` behind.
    pub fn deformable_unit(
        &mut self,
        x: NodeId,
        names: &Names,
        out: usize,
        kernel: usize,
        stride: usize,
    ) -> NodeId {
        let (ours, taps) = (&names.conv, kernel * kernel);
        let paddle = format!("{}.{}", names.paddle, self.suffixes.conv);
        let offsets = Conv::new(3 * taps, kernel).stride(stride).bias();
        let moves = self.conv(
            x,
            &format!("{ours}_offset"),
            &format!("{paddle}_offset"),
            offsets,
        );
        let offsets = self.b.slice(moves, 0, 2 * taps);
        let factors = self.b.slice(moves, 2 * taps, taps);
        let factors = self.b.act(factors, Act::Sigmoid);
        let op = Op::DeformConv2d {
            in_channels: self.b.channels(x),
            out_channels: out,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [kernel / 2; 2],
            dilation: [1; 2],
            bias: false,
        };
        self.note(
            format!("{ours}.weight"),
            format!("{paddle}.weight"),
            false,
            1.0,
        );
        let name = format!("{}{ours}", self.prefix);
        let x = self.b.op(name, op, &[x, offsets, factors]);
        let paddle = format!("{}.{}", names.paddle, self.suffixes.norm);
        self.norm(x, &names.norm, &paddle)
    }

    /// Transposed convolution with bias that enlarges `kernel` times.
    pub fn enlarge(
        &mut self,
        x: NodeId,
        name: &str,
        paddle: &str,
        out: usize,
        kernel: usize,
    ) -> NodeId {
        for suffix in ["weight", "bias"] {
            self.note(
                format!("{name}.{suffix}"),
                format!("{paddle}.{suffix}"),
                false,
                1.0,
            );
        }
        let op = Op::ConvTranspose2d {
            in_channels: self.b.channels(x),
            out_channels: out,
            kernel: [kernel; 2],
            stride: [kernel; 2],
            padding: [0; 2],
            bias: true,
        };
        self.b.op(format!("{}{name}", self.prefix), op, &[x])
    }

    /// Batch norm alone. Momentum is 0.1 everywhere (PaddleX's), also where torchvision has 0.01:
    /// short trainings need running statistics that follow.
    pub fn norm(&mut self, x: NodeId, name: &str, paddle: &str) -> NodeId {
        for (ours, theirs) in [
            ("weight", "weight"),
            ("bias", "bias"),
            ("running_mean", "_mean"),
            ("running_var", "_variance"),
        ] {
            self.note(
                format!("{name}.{ours}"),
                format!("{paddle}.{theirs}"),
                false,
                1.0,
            );
        }
        self.b
            .batch_norm_with(format!("{}{name}", self.prefix), x, self.eps, 0.1)
    }

    /// Convolution and batch norm.
    pub fn unit(&mut self, x: NodeId, names: &Names, conv: Conv) -> NodeId {
        let paddle = format!("{}.{}", names.paddle, self.suffixes.conv);
        let x = self.conv(x, &names.conv, &paddle, conv);
        let paddle = format!("{}.{}", names.paddle, self.suffixes.norm);
        self.norm(x, &names.norm, &paddle)
    }

    /// Convolution, batch norm, activation.
    pub fn unit_act(&mut self, x: NodeId, names: &Names, conv: Conv, act: Act) -> NodeId {
        let x = self.unit(x, names, conv);
        self.b.act(x, act)
    }

    /// With a bias where PaddleSeg has one before a batch norm, which takes it away again.
    pub fn biased(&self, conv: Conv) -> Conv {
        match self.origin {
            Origin::Paddle => conv.bias(),
            Origin::Torch => conv,
        }
    }

    /// What to do before a convolution of this kernel and stride that PaddleSeg pads with `'same'`: its
    /// input, and the padding left to the convolution itself. PyTorch's networks pad evenly.
    pub fn same_pad(&mut self, x: NodeId, kernel: usize, stride: usize) -> (NodeId, usize) {
        if stride == 1 || self.origin == Origin::Torch {
            return (x, kernel / 2);
        }
        let (kernel, stride) = ([kernel; 2], [stride; 2]);
        (self.b.plain(Op::SamePad { kernel, stride }, &[x]), 0)
    }

    /// Fully connected layer with bias. `kept` is the share of inputs that a dropout before it keeps
    /// *if* PaddleClas's dropout there scales at inference instead of in training (its
    /// `downscale_in_infer` mode); its weights are then multiplied by it when they are read. Else 1.
    pub fn linear(
        &mut self,
        x: NodeId,
        name: &str,
        paddle: &str,
        features: usize,
        kept: f32,
    ) -> NodeId {
        self.note(
            format!("{name}.weight"),
            format!("{paddle}.weight"),
            true,
            kept,
        );
        self.note(format!("{name}.bias"), format!("{paddle}.bias"), false, 1.0);
        self.b.linear(format!("{}{name}", self.prefix), x, features)
    }

    /// Squeeze-and-excitation (Hu et al. 2018): pool, two 1×1 convolutions, gate.
    pub fn squeeze_excite(
        &mut self,
        x: NodeId,
        [first, second]: [String; 2],
        paddle: &str,
        squeezed: usize,
        slope: f32,
    ) -> NodeId {
        let channels = self.b.channels(x);
        let gate = self.b.global_avg_pool(x);
        let conv = Conv::new(squeezed, 1).bias();
        let gate = self.conv(gate, &first, &format!("{paddle}.conv1"), conv);
        let gate = self.b.act(gate, Act::Relu);
        let conv = Conv::new(channels, 1).bias();
        let gate = self.conv(gate, &second, &format!("{paddle}.conv2"), conv);
        let gate = self.b.act(gate, Act::HardSigmoid { slope, offset: 0.5 });
        self.b.mul(x, gate)
    }

    /// Global average pooling, flattened.
    pub fn pool_flat(&mut self, x: NodeId) -> NodeId {
        let x = self.b.plain(Op::GlobalAvgPool, &[x]);
        self.b.flatten(x)
    }

    /// The graph of a detector, which has declared its outputs and its head.
    pub fn finish_detector(self) -> Result<(Graph, Vec<PaddleWeight>), GraphError> {
        Ok((self.b.finish()?, self.weights))
    }

    /// Declares `logits` and hands out the graph.
    pub fn finish(self, logits: NodeId) -> Result<(Graph, Vec<PaddleWeight>), GraphError> {
        self.finish_with(logits, &[])
    }

    /// The same with the outputs of auxiliary heads and the weights of their losses.
    pub fn finish_with(
        mut self,
        logits: NodeId,
        auxiliary: &[(NodeId, f32)],
    ) -> Result<(Graph, Vec<PaddleWeight>), GraphError> {
        self.b.output("logits", logits);
        for (i, &(node, loss_weight)) in auxiliary.iter().enumerate() {
            let name = format!("auxiliary{}", i + 1);
            self.b.auxiliary_output(&name, node, loss_weight);
        }
        Ok((self.b.finish()?, self.weights))
    }
}

/// Nearest multiple of 8, at most 10 % below `channels` (MobileNet's rule).
pub(crate) fn make_divisible(channels: f64) -> usize {
    let rounded = ((channels + 4.0) as usize / 8 * 8).max(8);
    if (rounded as f64) < 0.9 * channels {
        rounded + 8
    } else {
        rounded
    }
}
