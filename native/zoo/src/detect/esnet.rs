//! ESNet (Yu et al. 2021, "PP-PicoDet"): ShuffleNetV2 with squeeze-and-excitation and searched widths.
//! Names: PaddleDetection's.

use oarlock_graph::{Act, Conv, NodeId, Op};

use crate::net::{Names, Net};

const ACT: Act = Act::HardSwish;

/// Share of a block's width that its middle has.
const RATIOS_S: [f64; 13] = [
    0.875, 0.5, 0.5, 0.5, 0.625, 0.5, 0.625, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5,
];
const RATIOS: [f64; 13] = [
    0.875, 0.5, 1.0, 0.625, 0.5, 0.75, 0.625, 0.625, 0.5, 0.625, 1.0, 0.625, 0.75,
];

/// What the three stages make, of sizes s, m and l.
pub(super) fn features(net: &mut Net, image: NodeId, backbone: &str) -> Vec<NodeId> {
    let (scale, ratios) = match backbone {
        "ESNet_s" => (0.75, RATIOS_S),
        "ESNet_l" => (1.25, RATIOS),
        _ => (1.0, RATIOS),
    };
    let names = Names::pair("conv1", "_conv1");
    let x = net.unit_act(image, &names, Conv::new(24, 3).stride(2), ACT);
    let mut x = net.b.max_pool(x, 3, 2, 1);
    let mut ratios = ratios.into_iter();
    let mut stages = Vec::new();
    for (stage, repeats) in [3, 7, 3].into_iter().enumerate() {
        let out = divisible((128 << stage) as f64 * scale, 16);
        for (repeat, ratio) in (0..repeats).zip(&mut ratios) {
            let middle = divisible((out as f64 * ratio).trunc(), 8);
            let block = Block {
                ours: format!("stage{}.{repeat}", stage + 2),
                paddle: format!("{}_{}", stage + 2, repeat + 1),
                half: out / 2,
                middle: middle / 2,
            };
            x = if repeat == 0 {
                block.halving(net, x)
            } else {
                block.keeping(net, x)
            };
        }
        stages.push(x);
    }
    stages
}

/// Nearest multiple, at most 10 % below.
fn divisible(channels: f64, divisor: usize) -> usize {
    let rounded = ((channels + divisor as f64 / 2.0) as usize / divisor * divisor).max(divisor);
    if (rounded as f64) < 0.9 * channels {
        rounded + divisor
    } else {
        rounded
    }
}

struct Block {
    ours: String,
    paddle: String,
    half: usize,
    middle: usize,
}

impl Block {
    fn names(&self, layer: &str) -> Names {
        let (ours, paddle) = (&self.ours, &self.paddle);
        Names::pair(
            &format!("{ours}.{layer}"),
            format!("{paddle}._conv_{layer}"),
        )
    }

    fn pointwise(&self, net: &mut Net, x: NodeId, layer: &str, out: usize) -> NodeId {
        net.unit_act(x, &self.names(layer), Conv::new(out, 1), ACT)
    }

    fn depthwise(&self, net: &mut Net, x: NodeId, layer: &str, stride: usize) -> NodeId {
        let conv = Conv::depthwise(net.b.channels(x), 3).stride(stride);
        net.unit(x, &self.names(layer), conv)
    }

    fn gate(&self, net: &mut Net, x: NodeId) -> NodeId {
        let names = ["conv1", "conv2"].map(|conv| format!("{}.se.{conv}", self.ours));
        let squeezed = net.b.channels(x) / 4;
        let paddle = format!("{}._se", self.paddle);
        net.squeeze_excite(x, names, &paddle, squeezed, 1.0 / 6.0)
    }

    /// The first of a stage: all channels pass both branches.
    fn halving(&self, net: &mut Net, input: NodeId) -> NodeId {
        let left = self.depthwise(net, input, "dw_1", 2);
        let left = self.pointwise(net, left, "linear_1", self.half);
        let x = self.pointwise(net, input, "pw_2", self.middle);
        let x = self.depthwise(net, x, "dw_2", 2);
        let x = self.gate(net, x);
        let right = self.pointwise(net, x, "linear_2", self.half);
        let x = net.b.concat(&[left, right]);
        let x = self.depthwise(net, x, "dw_mv1", 1);
        let x = net.b.act(x, ACT);
        self.pointwise(net, x, "pw_mv1", 2 * self.half)
    }

    /// The others: half of the channels pass by.
    fn keeping(&self, net: &mut Net, input: NodeId) -> NodeId {
        let left = net.b.slice(input, 0, self.half);
        let right = net.b.slice(input, self.half, self.half);
        let narrow = self.pointwise(net, right, "pw", self.middle);
        let deep = self.depthwise(net, narrow, "dw", 1);
        let x = net.b.concat(&[narrow, deep]);
        let x = self.gate(net, x);
        let x = self.pointwise(net, x, "linear", self.half);
        let x = net.b.concat(&[left, x]);
        net.b.plain(Op::ChannelShuffle { groups: 2 }, &[x])
    }
}
