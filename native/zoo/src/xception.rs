//! Xception 41, 65 and 71 as PaddleClas has them: the deeper entry flows of DeepLabV3+ (Chen et al.
//! 2018), pointwise before depthwise convolutions, max pooling for the strides, a bare convolution in
//! the shortcuts. Names are our own, after PaddleClas.

use oarlock_graph::{Act, Conv, NodeId};

use crate::net::{Names, Net, UNDERSCORED};
use crate::{Built, Origin};

pub(crate) fn build(name: &str, layers: u32, origin: Origin, classes: usize) -> Built {
    let middle_blocks = if layers == 41 { 8 } else { 16 };
    let entry: &[(usize, usize)] = if layers == 71 {
        &[(128, 2), (256, 1), (256, 2), (728, 1), (728, 2)]
    } else {
        &[(128, 2), (256, 2), (728, 2)]
    };
    let (mut net, image) = Net::new(name, origin, UNDERSCORED);
    let names = Names::pair("entry_flow.conv1", "_entry_flow._conv1");
    let x = net.unit_act(image, &names, Conv::new(32, 3).stride(2), Act::Relu);
    let names = Names::pair("entry_flow.conv2", "_entry_flow._conv2");
    let mut x = net.unit_act(x, &names, Conv::new(64, 3), Act::Relu);
    for (index, &(out, stride)) in entry.iter().enumerate() {
        let block = Down {
            ours: format!("entry_flow.{index}"),
            paddle: format!("_entry_flow._conv_{index}"),
            parts: ["_conv1", "_conv2"],
            channels: [out, out],
            stride,
            activated: index > 0,
        };
        x = block.build(&mut net, x);
    }
    for index in 0..middle_blocks {
        let mut y = x;
        for part in 0..3 {
            y = net.b.act(y, Act::Relu);
            let ours = format!("middle_flow.{index}.{part}");
            let paddle = format!("_middle_flow._conv_{index}._conv_{part}");
            y = separable(&mut net, y, &ours, &paddle, 728);
        }
        x = net.b.add(x, y);
    }
    let block = Down {
        ours: "exit_flow.0".to_owned(),
        paddle: "_exit_flow._conv_0".to_owned(),
        parts: ["_conv_1", "_conv_2"],
        channels: [728, 1024],
        stride: 2,
        activated: true,
    };
    x = block.build(&mut net, x);
    for (index, out) in [(1, 1536), (2, 2048)] {
        let paddle = format!("_exit_flow._conv_{index}");
        x = separable(&mut net, x, &format!("exit_flow.{index}"), &paddle, out);
        x = net.b.act(x, Act::Relu);
    }
    let x = net.pool_flat(x);
    let logits = net.linear(x, "fc", "_exit_flow._out", classes, 1.0);
    net.finish(logits)
}

/// Two separable convolutions and a max pool beside a strided 1×1 convolution.
struct Down {
    ours: String,
    paddle: String,
    parts: [&'static str; 2],
    channels: [usize; 2],
    stride: usize,
    /// Whether it begins with a ReLU.
    activated: bool,
}

impl Down {
    fn build(&self, net: &mut Net, input: NodeId) -> NodeId {
        let Self { ours, paddle, .. } = self;
        let conv = Conv::new(self.channels[1], 1).stride(self.stride);
        let shortcut = net.conv(
            input,
            &format!("{ours}.shortcut"),
            &format!("{paddle}._short"),
            conv,
        );
        let mut x = input;
        for (index, (part, out)) in self.parts.into_iter().zip(self.channels).enumerate() {
            if index > 0 || self.activated {
                x = net.b.act(x, Act::Relu);
            }
            x = separable(
                net,
                x,
                &format!("{ours}.{index}"),
                &format!("{paddle}.{part}"),
                out,
            );
        }
        x = net.b.max_pool(x, 3, self.stride, 1);
        net.b.add(shortcut, x)
    }
}

fn separable(net: &mut Net, x: NodeId, ours: &str, paddle: &str, out: usize) -> NodeId {
    let names = Names::pair(
        &format!("{ours}.pointwise"),
        format!("{paddle}._pointwise_conv"),
    );
    let x = net.unit(x, &names, Conv::new(out, 1));
    let names = Names::pair(
        &format!("{ours}.depthwise"),
        format!("{paddle}._depthwise_conv"),
    );
    net.unit(x, &names, Conv::depthwise(out, 3))
}
