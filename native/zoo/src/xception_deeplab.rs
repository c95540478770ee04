//! Xception 41 and 65 as DeepLabV3+ has them (Chen et al. 2018): depthwise before pointwise convolutions,
//! strides instead of max pooling. Names: timm's (`xception41`, `xception65`), PaddleSeg's beside them.
//!
//! The output stride is 16: the exit flow keeps the size, its last convolutions are dilated.

use oarlock_graph::{Act, Conv, NodeId};

use crate::net::{Names, Net, Suffixes};

const SUFFIXES: Suffixes = Suffixes {
    conv: "_conv",
    norm: "_bn",
};

/// What the first block (1/4 of the image, 128 channels) and the last one (1/16, 2048) make.
pub(crate) fn features(net: &mut Net, image: NodeId, layers: u32) -> [NodeId; 2] {
    net.suffixes = SUFFIXES;
    net.eps = 1e-3;
    let names = Names::pair("stem.0", "_conv1");
    let x = net.unit_act(image, &names, Conv::new(32, 3).stride(2), Act::Relu);
    let names = Names::pair("stem.1", "_conv2");
    let mut x = net.unit_act(x, &names, Conv::new(64, 3), Act::Relu);
    let mut index = 0;
    let mut next = |paddle: String| {
        index += 1;
        Block {
            name: format!("blocks.{}", index - 1),
            paddle,
            channels: [728; 3],
            stride: 1,
            dilation: 1,
            shortcut: Shortcut::Plain,
        }
    };
    let mut low = x;
    for (i, out) in [128, 256, 728].into_iter().enumerate() {
        let block = Block {
            channels: [out; 3],
            stride: 2,
            shortcut: Shortcut::Conv,
            ..next(format!("xception_{layers}/entry_flow/block{}", i + 1))
        };
        x = block.build(net, x);
        if i == 0 {
            low = x;
        }
    }
    for i in 0..if layers == 41 { 8 } else { 16 } {
        x = next(format!("xception_{layers}/middle_flow/block{}", i + 1)).build(net, x);
    }
    let block = Block {
        channels: [728, 1024, 1024],
        shortcut: Shortcut::Conv,
        ..next("_exit_flow_1".to_owned())
    };
    x = block.build(net, x);
    let block = Block {
        channels: [1536, 1536, 2048],
        dilation: 2,
        shortcut: Shortcut::None,
        ..next("_exit_flow_2".to_owned())
    };
    [low, block.build(net, x)]
}

#[derive(Clone, Copy, PartialEq)]
enum Shortcut {
    Conv,
    Plain,
    /// No shortcut; activations follow the convolutions instead of going before them.
    None,
}

/// Three separable convolutions.
struct Block {
    name: String,
    paddle: String,
    channels: [usize; 3],
    stride: usize,
    dilation: usize,
    shortcut: Shortcut,
}

impl Block {
    fn build(&self, net: &mut Net, input: NodeId) -> NodeId {
        let mut x = input;
        for i in 0..3 {
            if self.shortcut != Shortcut::None {
                x = net.b.act(x, Act::Relu);
            }
            x = self.separable(net, x, i);
        }
        match self.shortcut {
            Shortcut::None => x,
            Shortcut::Plain => net.b.add(x, input),
            Shortcut::Conv => {
                let prefix = format!("{}.shortcut", self.name);
                let names = Names::pair(&prefix, format!("{}._short", self.paddle));
                let conv = Conv::new(self.channels[2], 1).stride(self.stride);
                let short = net.unit(input, &names, conv);
                net.b.add(x, short)
            }
        }
    }

    fn separable(&self, net: &mut Net, input: NodeId, i: usize) -> NodeId {
        let ours = format!("{}.stack.conv{}", self.name, i + 1);
        let paddle = format!("{}._conv{}", self.paddle, i + 1);
        let stride = if i == 2 { self.stride } else { 1 };
        let depthwise = Conv::depthwise(net.b.channels(input), 3)
            .stride(stride)
            .dilation(self.dilation);
        let mut x = input;
        for (part, number, conv) in [
            ("dw", 1, depthwise),
            ("pw", 2, Conv::new(self.channels[i], 1)),
        ] {
            let name = format!("{ours}.conv_{part}");
            x = net.conv(x, &name, &format!("{paddle}._conv{number}"), conv);
            let name = format!("{ours}.bn_{part}");
            x = net.norm(x, &name, &format!("{paddle}._bn{number}"));
            if self.shortcut == Shortcut::None {
                x = net.b.act(x, Act::Relu);
            }
        }
        x
    }
}
