//! MobileNetV2 (Sandler et al. 2018). Names: torchvision. PaddleClas's first block expands too
//! (by a factor of 1) and it has no dropout.

use oarlock_graph::{Act, Conv, NodeId};

use crate::net::{Names, Net, UNDERSCORED, make_divisible};
use crate::{Built, Origin};

/// Expansion, output channels, repeats, stride of the first.
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

pub(crate) fn build(name: &str, origin: Origin, classes: usize) -> Built {
    let (mut net, image) = Net::new(name, origin, UNDERSCORED);
    let blocks = features(&mut net, image, 1.0, 32);
    let names = Names::sequence(&format!("features.{}", blocks.len() + 1), 0, "conv9");
    let last = blocks[blocks.len() - 1];
    let mut x = net.unit_act(last, &names, Conv::new(1280, 1), Act::Relu6);
    x = net.pool_flat(x);
    if origin == Origin::Torch {
        x = net.b.dropout(x, 0.2);
    }
    let logits = net.linear(x, "classifier.1", "out", classes, 1.0);
    net.finish(logits)
}

/// What the 17 blocks make, with `width` times the usual channels. From where the map would become
/// smaller than 1/`output_stride` of the image, blocks are dilated instead.
pub(crate) fn features(
    net: &mut Net,
    image: NodeId,
    width: f64,
    output_stride: usize,
) -> Vec<NodeId> {
    // torchvision rounds to multiples of 8, PaddleClas cuts.
    let channels = |net: &Net, c: usize| match net.origin {
        Origin::Torch => make_divisible(c as f64 * width),
        Origin::Paddle => (c as f64 * width) as usize,
    };
    let names = Names::sequence("features.0", 0, "conv1");
    let conv = Conv::new(channels(net, 32), 3).stride(2);
    let mut x = net.unit_act(image, &names, conv, Act::Relu6);
    let (mut reached, mut dilation) = (2, 1);
    let mut blocks = Vec::new();
    for (stage, &(expansion, out, repeats, stride)) in STAGES.iter().enumerate() {
        let stride = if reached * stride > output_stride {
            dilation *= stride;
            1
        } else {
            reached *= stride;
            stride
        };
        for repeat in 0..repeats {
            let (stage, conv) = (stage + 2, repeat + 1);
            let block = Block {
                name: format!("features.{}", blocks.len() + 1),
                paddle: if repeat == 0 {
                    format!("conv{stage}._first_block")
                } else {
                    format!("conv{stage}.conv{stage}_{conv}")
                },
                expansion,
                out: channels(net, out),
                stride: if repeat == 0 { stride } else { 1 },
                dilation,
                shortcut: repeat > 0,
            };
            x = block.build(net, x);
            blocks.push(x);
        }
    }
    blocks
}

/// An inverted residual.
struct Block {
    name: String,
    paddle: String,
    expansion: usize,
    out: usize,
    stride: usize,
    dilation: usize,
    /// PaddleClas never adds the input of a stage's first block; torchvision does where shapes allow it,
    /// which narrow networks only do.
    shortcut: bool,
}

impl Block {
    fn build(&self, net: &mut Net, input: NodeId) -> NodeId {
        let Self { name, paddle, .. } = self;
        let in_channels = net.b.channels(input);
        let expanded = in_channels * self.expansion;
        let mut x = input;
        let mut part = 0;
        if self.expansion != 1 || net.origin == Origin::Paddle {
            // PaddleClas's extra expansion gets a name of its own, so that all others stay the same.
            let extra = self.expansion == 1;
            let prefix = format!("{name}.{}", if extra { "expand" } else { "conv.0" });
            let names = Names::sequence(&prefix, 0, format!("{paddle}._expand_conv"));
            x = net.unit_act(x, &names, Conv::new(expanded, 1), Act::Relu6);
            part += usize::from(!extra);
        }
        let prefix = format!("{name}.conv.{part}");
        let names = Names::sequence(&prefix, 0, format!("{paddle}._bottleneck_conv"));
        let conv = Conv::depthwise(expanded, 3).stride(self.stride);
        x = net.unit_act(x, &names, conv.dilation(self.dilation), Act::Relu6);
        let prefix = format!("{name}.conv");
        let names = Names::sequence(&prefix, part + 1, format!("{paddle}._linear_conv"));
        x = net.unit(x, &names, Conv::new(self.out, 1));
        let same = self.stride == 1 && in_channels == self.out;
        if same && (self.shortcut || net.origin == Origin::Torch) {
            net.b.add(input, x)
        } else {
            x
        }
    }
}
