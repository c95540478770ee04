//! ShuffleNetV2 ×1.0 (Ma et al. 2018). Names: torchvision's `shufflenet_v2_x1_0`.

use oarlock_graph::{Act, Conv, NodeId, Op};

use crate::net::{Names, Net, UNDERSCORED};
use crate::{Built, Origin};

pub(crate) fn build(name: &str, act: Act, origin: Origin, classes: usize) -> Built {
    let (mut net, image) = Net::new(name, origin, UNDERSCORED);
    let names = Names::sequence("conv1", 0, "_conv1");
    let x = net.unit_act(image, &names, Conv::new(24, 3).stride(2), act);
    let mut x = net.b.max_pool(x, 3, 2, 1);
    for (stage, (out, repeats)) in [(116, 4), (232, 8), (464, 4)].into_iter().enumerate() {
        for repeat in 0..repeats {
            let ours = format!("stage{}.{repeat}", stage + 2);
            let paddle = format!("{}_{}", stage + 2, repeat + 1);
            x = block(&mut net, x, &ours, &paddle, out / 2, repeat == 0, act);
        }
    }
    x = net.unit_act(
        x,
        &Names::sequence("conv5", 0, "_last_conv"),
        Conv::new(1024, 1),
        act,
    );
    let x = net.pool_flat(x);
    let logits = net.linear(x, "fc", "_fc", classes, 1.0);
    net.finish(logits)
}

/// One unit: half of the channels passes (or, in the first unit of a stage, is halved in size by its
/// own branch), the other half is convolved; then both are shuffled together.
fn block(
    net: &mut Net,
    input: NodeId,
    ours: &str,
    paddle: &str,
    half: usize,
    down: bool,
    act: Act,
) -> NodeId {
    let stride = if down { 2 } else { 1 };
    let suffix = if down { "_2" } else { "" };
    let (left, mut x) = if down {
        let depthwise = Conv::depthwise(net.b.channels(input), 3).stride(2);
        let branch = format!("{ours}.branch1");
        let names = Names::sequence(&branch, 0, format!("{paddle}._conv_dw_1"));
        let y = net.unit(input, &names, depthwise);
        let names = Names::sequence(&branch, 2, format!("{paddle}._conv_linear_1"));
        (net.unit_act(y, &names, Conv::new(half, 1), act), input)
    } else {
        (net.b.slice(input, 0, half), net.b.slice(input, half, half))
    };
    let branch = format!("{ours}.branch2");
    let names = Names::sequence(&branch, 0, format!("{paddle}._conv_pw{suffix}"));
    x = net.unit_act(x, &names, Conv::new(half, 1), act);
    let names = Names::sequence(&branch, 3, format!("{paddle}._conv_dw{suffix}"));
    x = net.unit(x, &names, Conv::depthwise(half, 3).stride(stride));
    let names = Names::sequence(&branch, 5, format!("{paddle}._conv_linear{suffix}"));
    x = net.unit_act(x, &names, Conv::new(half, 1), act);
    let x = net.b.concat(&[left, x]);
    net.b.plain(Op::ChannelShuffle { groups: 2 }, &[x])
}
