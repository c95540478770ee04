//! DenseNet (Huang et al. 2017). Names: torchvision; its 264-layer relative follows the same scheme.

use oarlock_graph::{Act, Conv, NodeId};

use crate::net::{Names, Net, UNDERSCORED};
use crate::{Built, Origin};

pub(crate) fn build(name: &str, layers: u32, origin: Origin, classes: usize) -> Built {
    let (stem, growth, blocks) = match layers {
        121 => (64, 32, [6, 12, 24, 16]),
        161 => (96, 48, [6, 12, 36, 24]),
        169 => (64, 32, [6, 12, 32, 32]),
        201 => (64, 32, [6, 12, 48, 32]),
        _ => (64, 32, [6, 12, 64, 48]), // 264
    };
    let (mut net, image) = Net::new(name, origin, UNDERSCORED);
    let names = Names::new("features.conv0", "features.norm0", "conv1_func");
    let x = net.unit_act(image, &names, Conv::new(stem, 7).stride(2), Act::Relu);
    let mut x = net.b.max_pool(x, 3, 2, 1);
    for (index, layers) in blocks.into_iter().enumerate() {
        for layer in 1..=layers {
            let ours = format!("features.denseblock{}.denselayer{layer}", index + 1);
            let paddle = format!("db_conv_{0}.conv{0}_{layer}", index + 2);
            let y = activated_conv(&mut net, x, &ours, 1, &paddle, Conv::new(4 * growth, 1));
            let y = activated_conv(&mut net, y, &ours, 2, &paddle, Conv::new(growth, 3));
            x = net.b.concat(&[x, y]);
        }
        if index < 3 {
            let ours = format!("features.transition{}", index + 1);
            let paddle = format!("tr_conv{}_blk.conv_ac_func", index + 2);
            x = net.norm(x, &format!("{ours}.norm"), &format!("{paddle}._batch_norm"));
            x = net.b.act(x, Act::Relu);
            let conv = Conv::new(net.b.channels(x) / 2, 1);
            x = net.conv(x, &format!("{ours}.conv"), &format!("{paddle}._conv"), conv);
            x = net.b.avg_pool(x, 2, 2, false);
        }
    }
    let x = net.norm(x, "features.norm5", "batch_norm");
    let x = net.b.act(x, Act::Relu);
    let x = net.pool_flat(x);
    let logits = net.linear(x, "classifier", "out", classes, 1.0);
    net.finish(logits)
}

/// Batch norm, ReLU, convolution.
fn activated_conv(
    net: &mut Net,
    x: NodeId,
    ours: &str,
    number: usize,
    paddle: &str,
    conv: Conv,
) -> NodeId {
    let paddle = format!("{paddle}.bn_ac_func{number}");
    let x = net.norm(
        x,
        &format!("{ours}.norm{number}"),
        &format!("{paddle}._batch_norm"),
    );
    let x = net.b.act(x, Act::Relu);
    net.conv(
        x,
        &format!("{ours}.conv{number}"),
        &format!("{paddle}._conv"),
        conv,
    )
}
