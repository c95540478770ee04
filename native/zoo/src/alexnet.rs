//! AlexNet (Krizhevsky 2014, "One weird trick", single column). Names: torchvision. PaddleClas's is
//! the same network without the adaptive pooling, which at 224×224 changes nothing.

use oarlock_graph::{Act, Conv, Op};

use crate::net::{Net, UNDERSCORED};
use crate::{Built, Origin};

pub(crate) fn build(name: &str, origin: Origin, classes: usize) -> Built {
    let (mut net, mut x) = Net::new(name, origin, UNDERSCORED);
    // torchvision's index, PaddleClas's name, the convolution, whether it is pooled
    let convs = [
        (
            0,
            "_conv1._conv",
            Conv::new(64, 11).stride(4).padding(2),
            true,
        ),
        (3, "_conv2._conv", Conv::new(192, 5), true),
        (6, "_conv3", Conv::new(384, 3), false),
        (8, "_conv4", Conv::new(256, 3), false),
        (10, "_conv5._conv", Conv::new(256, 3), true),
    ];
    for (index, paddle, conv, pooled) in convs {
        x = net.conv(x, &format!("features.{index}"), paddle, conv.bias());
        x = net.b.act(x, Act::Relu);
        if pooled {
            x = net.b.max_pool(x, 3, 2, 0);
        }
    }
    x = net.b.plain(Op::AdaptiveAvgPool { size: [6, 6] }, &[x]);
    x = net.b.flatten(x);
    for (index, paddle) in [(1, "_fc6"), (4, "_fc7")] {
        x = net.b.dropout(x, 0.5);
        x = net.linear(x, &format!("classifier.{index}"), paddle, 4096, 0.5);
        x = net.b.act(x, Act::Relu);
    }
    let logits = net.linear(x, "classifier.6", "_fc8", classes, 1.0);
    net.finish(logits)
}
