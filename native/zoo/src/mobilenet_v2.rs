//! MobileNetV2 (Sandler et al. 2018). Names: torchvision. PaddleClas's first block expands too
//! (by a factor of 1) and it has no dropout.

use oarlock_graph::{Act, Conv, NodeId};

use crate::net::{Names, Net, UNDERSCORED};
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
    let names = Names::sequence("features.0", 0, "conv1");
    let mut x = net.unit_act(image, &names, Conv::new(32, 3).stride(2), Act::Relu6);
    let mut index = 1;
    for (stage, &(expansion, out, repeats, stride)) in STAGES.iter().enumerate() {
        for repeat in 0..repeats {
            let (stage, conv) = (stage + 2, repeat + 1);
            let paddle = if repeat == 0 {
                format!("conv{stage}._first_block")
            } else {
                format!("conv{stage}.conv{stage}_{conv}")
            };
            let stride = if repeat == 0 { stride } else { 1 };
            let block = format!("features.{index}");
            x = inverted_residual(&mut net, x, &block, &paddle, expansion, out, stride);
            index += 1;
        }
    }
    let names = Names::sequence(&format!("features.{index}"), 0, "conv9");
    x = net.unit_act(x, &names, Conv::new(1280, 1), Act::Relu6);
    x = net.pool_flat(x);
    if origin == Origin::Torch {
        x = net.b.dropout(x, 0.2);
    }
    let logits = net.linear(x, "classifier.1", "out", classes, 1.0);
    net.finish(logits)
}

fn inverted_residual(
    net: &mut Net,
    input: NodeId,
    block: &str,
    paddle: &str,
    expansion: usize,
    out: usize,
    stride: usize,
) -> NodeId {
    let in_channels = net.b.channels(input);
    let expanded = in_channels * expansion;
    let mut x = input;
    let mut part = 0;
    if expansion != 1 || net.origin == Origin::Paddle {
        // PaddleClas's extra expansion gets a name of its own, so that all others stay the same.
        let prefix = format!(
            "{block}.{}",
            if expansion == 1 { "expand" } else { "conv.0" }
        );
        let names = Names::sequence(&prefix, 0, format!("{paddle}._expand_conv"));
        x = net.unit_act(x, &names, Conv::new(expanded, 1), Act::Relu6);
        part += usize::from(expansion != 1);
    }
    let names = Names::sequence(
        &format!("{block}.conv.{part}"),
        0,
        format!("{paddle}._bottleneck_conv"),
    );
    x = net.unit_act(
        x,
        &names,
        Conv::depthwise(expanded, 3).stride(stride),
        Act::Relu6,
    );
    let names = Names::sequence(
        &format!("{block}.conv"),
        part + 1,
        format!("{paddle}._linear_conv"),
    );
    x = net.unit(x, &names, Conv::new(out, 1));
    if stride == 1 && in_channels == out {
        net.b.add(input, x)
    } else {
        x
    }
}
