//! Fast-SCNN (Poudel et al. 2019) as PaddleSeg has it, with its auxiliary head. Names are our own, after
//! PaddleSeg.

use oarlock_graph::{Act, Conv, NodeId, Op};

use super::{Task, separable, unit_act};
use crate::Built;
use crate::net::{Names, Net};

/// Weight of the auxiliary loss in PaddleX.
const AUXILIARY: f32 = 0.4;

pub(super) fn build(task: &Task) -> Built {
    let (mut net, image) = task.net();
    let high = net.within("learning_to_downsample", |net| downsample(net, image));
    let low = net.within("global_feature_extractor", |net| extract(net, high));
    let x = net.within("feature_fusion", |net| fuse(net, high, low));
    let logits = net.within("classifier", |net| {
        let mut x = x;
        for path in ["dsconv1", "dsconv2"] {
            x = separable(net, x, path, path, Conv::depthwise(128, 3), 128);
        }
        let x = net.b.dropout(x, 0.1);
        net.conv(x, "conv", "conv", Conv::new(task.classes, 1).bias())
    });
    let auxiliary = net.within("auxlayer", |net| {
        let x = unit_act(net, high, "conv_bn_relu", "conv_bn_relu", Conv::new(32, 3));
        let x = net.b.dropout(x, 0.1);
        net.conv(x, "conv", "conv", Conv::new(task.classes, 1).bias())
    });
    let logits = net.b.resize(logits, image, false);
    let auxiliary = net.b.resize(auxiliary, image, false);
    net.finish_with(logits, &[(auxiliary, AUXILIARY)])
}

fn downsample(net: &mut Net, image: NodeId) -> NodeId {
    let (x, padding) = net.same_pad(image, 3, 2);
    let conv = Conv::new(32, 3).stride(2).padding(padding);
    let mut x = unit_act(net, x, "conv_bn_relu", "conv_bn_relu", conv);
    for (path, out) in [("dsconv_bn_relu1", 48), ("dsconv_bn_relu2", 64)] {
        let conv = Conv::depthwise(net.b.channels(x), 3).stride(2);
        x = separable(net, x, path, path, conv, out);
    }
    x
}

fn extract(net: &mut Net, mut x: NodeId) -> NodeId {
    for (stage, (out, stride)) in (1..).zip([(64, 2), (96, 2), (128, 1)]) {
        for index in 0..3 {
            let path = format!("bottleneck{stage}.{index}.block");
            x = bottleneck(net, x, &path, out, if index == 0 { stride } else { 1 });
        }
    }
    net.within("ppm", |net| pyramid(net, x))
}

/// An inverted residual that always expands six times.
fn bottleneck(net: &mut Net, input: NodeId, path: &str, out: usize, stride: usize) -> NodeId {
    let names = |i: usize| Names::pair(&format!("{path}.{i}"), format!("{path}.{i}"));
    let in_channels = net.b.channels(input);
    let expanded = 6 * in_channels;
    let x = net.unit_act(input, &names(0), Conv::new(expanded, 1), Act::Relu);
    let conv = Conv::depthwise(expanded, 3).stride(stride);
    let x = net.unit_act(x, &names(1), conv, Act::Relu);
    let x = net.unit(x, &names(2), Conv::new(out, 1));
    if stride == 1 && in_channels == out {
        net.b.add(input, x)
    } else {
        x
    }
}

/// Pyramid pooling (Zhao et al. 2017).
fn pyramid(net: &mut Net, x: NodeId) -> NodeId {
    let channels = net.b.channels(x);
    let mut parts = vec![x];
    for (i, side) in [1, 2, 3, 6].into_iter().enumerate() {
        let pool = match side {
            1 => Op::GlobalAvgPool,
            _ => Op::AdaptiveAvgPool { size: [side; 2] },
        };
        let pooled = net.b.plain(pool, &[x]);
        let ours = format!("stages.{i}");
        let paddle = format!("stages.{i}.1");
        let pooled = unit_act(net, pooled, &ours, &paddle, Conv::new(channels / 4, 1));
        parts.insert(1, net.b.resize(pooled, x, true));
    }
    let x = net.b.concat(&parts);
    unit_act(
        net,
        x,
        "conv_bn_relu2",
        "conv_bn_relu2",
        Conv::new(channels, 3),
    )
}

fn fuse(net: &mut Net, high: NodeId, low: NodeId) -> NodeId {
    let low = net.b.resize(low, high, false);
    let names = Names::pair("dwconv", "dwconv");
    let low = net.unit_act(low, &names, Conv::depthwise(128, 3), Act::Relu);
    let conv = net.biased(Conv::new(128, 1));
    let low = net.unit(low, &Names::pair("conv_low_res", "conv_low_res"), conv);
    let high = net.unit(high, &Names::pair("conv_high_res", "conv_high_res"), conv);
    let x = net.b.add(high, low);
    net.b.act(x, Act::Relu)
}
