//! PP-LCNet (Cui et al. 2021). Names: PaddleClas's, which are PaddleDetection's too.

use oarlock_graph::{Act, Conv, NodeId};

use crate::net::{Names, Net, PLAIN, make_divisible};
use crate::{Built, Origin};

/// PaddleClas's block, kernel, output channels, stride, squeeze-and-excitation.
const BLOCKS: [(&str, usize, usize, usize, bool); 13] = [
    ("blocks2.0", 3, 32, 1, false),
    ("blocks3.0", 3, 64, 2, false),
    ("blocks3.1", 3, 64, 1, false),
    ("blocks4.0", 3, 128, 2, false),
    ("blocks4.1", 3, 128, 1, false),
    ("blocks5.0", 3, 256, 2, false),
    ("blocks5.1", 5, 256, 1, false),
    ("blocks5.2", 5, 256, 1, false),
    ("blocks5.3", 5, 256, 1, false),
    ("blocks5.4", 5, 256, 1, false),
    ("blocks5.5", 5, 256, 1, false),
    ("blocks6.0", 5, 512, 2, true),
    ("blocks6.1", 5, 512, 1, true),
];

pub(crate) fn build(name: &str, origin: Origin, classes: usize) -> Built {
    let (mut net, image) = Net::new(name, origin, PLAIN);
    let blocks = features(&mut net, image, 1.0);
    let mut x = blocks[blocks.len() - 1];
    x = net.b.global_avg_pool(x);
    x = net.conv(x, "last_conv", "last_conv", Conv::new(1280, 1));
    x = net.b.act(x, Act::HardSwish);
    x = net.b.dropout(x, 0.2);
    x = net.b.flatten(x);
    let logits = net.linear(x, "fc", "fc", classes, 0.8);
    net.finish(logits)
}

/// What the 13 blocks make, with `scale` times the channels.
pub(crate) fn features(net: &mut Net, image: NodeId, scale: f64) -> Vec<NodeId> {
    let scaled = |channels: usize| make_divisible(channels as f64 * scale);
    let names = Names::pair("conv1", "conv1");
    let mut x = net.unit_act(
        image,
        &names,
        Conv::new(scaled(16), 3).stride(2),
        Act::HardSwish,
    );
    let mut blocks = Vec::new();
    for (block, kernel, out, stride, squeeze) in BLOCKS {
        let channels = net.b.channels(x);
        let depthwise = format!("{block}.dw_conv");
        let conv = Conv::depthwise(channels, kernel).stride(stride);
        x = net.unit_act(
            x,
            &Names::pair(&depthwise, depthwise.as_str()),
            conv,
            Act::HardSwish,
        );
        if squeeze {
            let se = format!("{block}.se");
            let names = [format!("{se}.conv1"), format!("{se}.conv2")];
            x = net.squeeze_excite(x, names, &se, channels / 4, 1.0 / 6.0);
        }
        let pointwise = format!("{block}.pw_conv");
        let names = Names::pair(&pointwise, pointwise.as_str());
        x = net.unit_act(x, &names, Conv::new(scaled(out), 1), Act::HardSwish);
        blocks.push(x);
    }
    blocks
}
