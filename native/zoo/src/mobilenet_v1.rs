//! MobileNetV1 (Howard et al. 2017). Names: PaddleClas, for lack of one in torchvision.

use oarlock_graph::{Act, Conv};

use crate::net::{Names, Net, PLAIN};
use crate::{Built, Origin};

/// Output channels and stride of each depthwise-separable block.
const BLOCKS: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

pub(crate) fn build(name: &str, origin: Origin, classes: usize) -> Built {
    let (mut net, image) = Net::new(name, origin, PLAIN);
    let names = Names::pair("conv", "conv");
    let mut x = net.unit_act(image, &names, Conv::new(32, 3).stride(2), Act::Relu);
    for (index, (out, stride)) in BLOCKS.into_iter().enumerate() {
        let depthwise = format!("blocks.{index}.depthwise_conv");
        let conv = Conv::depthwise(net.b.channels(x), 3).stride(stride);
        x = net.unit_act(
            x,
            &Names::pair(&depthwise, depthwise.as_str()),
            conv,
            Act::Relu,
        );
        let pointwise = format!("blocks.{index}.pointwise_conv");
        let names = Names::pair(&pointwise, pointwise.as_str());
        x = net.unit_act(x, &names, Conv::new(out, 1), Act::Relu);
    }
    let x = net.pool_flat(x);
    let logits = net.linear(x, "fc", "fc", classes, 1.0);
    net.finish(logits)
}
