//! MobileNetV1 (Howard et al. 2017). Names: PaddleClas, for lack of one in torchvision.

use oarlock_graph::{Act, Conv, NodeId};

use crate::net::{Library, Names, Net, PLAIN};
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

/// PaddleDetection's names of the blocks.
const DETECTION: [&str; 13] = [
    "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "conv5_1", "conv5_2",
    "conv5_3", "conv5_4", "conv5_5", "conv5_6", "conv6",
];

pub(crate) fn build(name: &str, origin: Origin, classes: usize) -> Built {
    let (mut net, image) = Net::new(name, origin, PLAIN);
    let blocks = features(&mut net, image, Library::Clas);
    let x = net.pool_flat(blocks[12]);
    let logits = net.linear(x, "fc", "fc", classes, 1.0);
    net.finish(logits)
}

/// What the 13 blocks make.
pub(crate) fn features(net: &mut Net, image: NodeId, library: Library) -> Vec<NodeId> {
    let det = library == Library::Det;
    let names = Names::pair("conv", if det { "conv1" } else { "conv" });
    let mut x = net.unit_act(image, &names, Conv::new(32, 3).stride(2), Act::Relu);
    let mut blocks = Vec::new();
    for (index, (out, stride)) in BLOCKS.into_iter().enumerate() {
        let channels = net.b.channels(x);
        let depthwise = Conv::depthwise(channels, 3).stride(stride);
        for (part, conv) in [("depthwise", depthwise), ("pointwise", Conv::new(out, 1))] {
            let ours = format!("blocks.{index}.{part}_conv");
            let paddle = if det {
                format!("{}._{part}_conv", DETECTION[index])
            } else {
                ours.clone()
            };
            x = net.unit_act(x, &Names::pair(&ours, paddle), conv, Act::Relu);
        }
        blocks.push(x);
    }
    blocks
}
