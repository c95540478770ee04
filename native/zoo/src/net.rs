//! The builder that networks are written with: a graph builder that also notes what PaddleClas
//! calls each layer.

use oarlock_graph::{Act, Conv, Graph, GraphBuilder, GraphError, NodeId, Op};

use crate::{Origin, PaddleWeight};

/// PaddleClas's attribute names of a convolution and its batch norm inside its `ConvBNLayer`.
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
/// Older ("model zoo") networks.
pub(crate) const UNDERSCORED: Suffixes = Suffixes {
    conv: "_conv",
    norm: "_batch_norm",
};

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
    suffixes: Suffixes,
    weights: Vec<PaddleWeight>,
}

impl Net {
    /// An empty network and its image input.
    pub fn new(name: &str, origin: Origin, suffixes: Suffixes) -> (Self, NodeId) {
        let mut b = GraphBuilder::new(name);
        let image = b.input(3);
        (
            Self {
                b,
                origin,
                eps: 1e-5,
                suffixes,
                weights: Vec::new(),
            },
            image,
        )
    }

    fn note(&mut self, name: String, paddle_name: String, transposed: bool, scale: f32) {
        self.weights.push(PaddleWeight {
            name,
            paddle_name,
            transposed,
            scale,
        });
    }

    /// Convolution alone.
    pub fn conv(&mut self, x: NodeId, name: &str, paddle: &str, conv: Conv) -> NodeId {
        let node = self.b.conv(name, x, conv);
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
        self.b.batch_norm_with(name, x, self.eps, 0.1)
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
        self.b.linear(name, x, features)
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

    /// Declares `logits` and hands out the graph.
    pub fn finish(mut self, logits: NodeId) -> Result<(Graph, Vec<PaddleWeight>), GraphError> {
        self.b.output("logits", logits);
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
