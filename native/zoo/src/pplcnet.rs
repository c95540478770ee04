//! PP-LCNet ×1.0 (Cui et al. 2021). Names: PaddleClas.

use oarlock_graph::{Act, Conv};

use crate::net::{Names, Net, PLAIN};
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
    let names = Names::pair("conv1", "conv1");
    let mut x = net.unit_act(image, &names, Conv::new(16, 3).stride(2), Act::HardSwish);
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
        x = net.unit_act(x, &names, Conv::new(out, 1), Act::HardSwish);
    }
    x = net.b.global_avg_pool(x);
    x = net.conv(x, "last_conv", "last_conv", Conv::new(1280, 1));
    x = net.b.act(x, Act::HardSwish);
    x = net.b.dropout(x, 0.2);
    x = net.b.flatten(x);
    let logits = net.linear(x, "fc", "fc", classes, 0.8);
    net.finish(logits)
}
