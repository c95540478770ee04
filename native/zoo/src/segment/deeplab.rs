//! DeepLabV3+ (Chen et al. 2018) as PaddleSeg has it. Names of the head are our own; those of the backbone are
//! the classifier's after `backbone.` (`xception_deeplab.rs` for Xception, which is another network here).
//!
//! | backbone | output stride | dilations of the pyramid | after |
//! |---|---|---|---|
//! | ResNet50_vd, ResNet101_vd | 8 | 1, 12, 24, 36 | PaddleX 2.x |
//! | Xception, MobileNetV2, MobileNetV3 | 16 | 1, 6, 12, 18 | PaddleX 1.x, PaddleSeg |
//!
//! PaddleX 2.x has no MobileNet here: its Paddle names are those of PaddleClas's classifier, so that weights
//! of ImageNet load.

use oarlock_graph::{Act, Conv, NodeId};

use super::{Task, separable, unit_act};
use crate::mobilenet_v3::Variant;
use crate::net::{Library, Names, Net, PLAIN, UNDERSCORED};
use crate::{Built, mobilenet_v2, mobilenet_v3, resnet, xception_deeplab};

const CHANNELS: usize = 256;

pub(super) fn build(task: &Task, backbone: &str) -> Built {
    let (mut net, image) = task.net();
    let [low, high] = net.within("backbone", |net| features(net, image, backbone));
    let dilations = if backbone.starts_with("ResNet") {
        [12, 24, 36]
    } else {
        [6, 12, 18]
    };
    let logits = net.within("head", |net| {
        let x = net.within("aspp", |net| pyramid(net, high, dilations));
        net.within("decoder", |net| decoder(net, x, low, task.classes))
    });
    let logits = net.b.resize(logits, image, false);
    net.finish(logits)
}

/// Maps of 1/4 of the image's size and of the output stride.
fn features(net: &mut Net, image: NodeId, backbone: &str) -> [NodeId; 2] {
    let width = |name: &str| name.strip_prefix("MobileNetV2_x")?.parse::<f64>().ok();
    match backbone {
        "Xception41" => xception_deeplab::features(net, image, 41),
        "Xception65" => xception_deeplab::features(net, image, 65),
        "MobileNetV3_large_x1_0_ssld" => {
            net.suffixes = PLAIN;
            let blocks = mobilenet_v3::features(net, image, Variant::of(true), 16);
            [blocks[2], blocks[blocks.len() - 1]]
        }
        _ => match width(backbone) {
            Some(width) => {
                net.suffixes = UNDERSCORED;
                let blocks = mobilenet_v2::features(net, image, width, 16);
                [blocks[2], blocks[blocks.len() - 1]]
            }
            None => {
                let depth = if backbone == "ResNet101_vd" { 101 } else { 50 };
                let dilations = [1, 1, 2, 4];
                let stages = resnet::features(net, image, depth, true, dilations, Library::Seg);
                [stages[0], stages[3]]
            }
        },
    }
}

/// Atrous spatial pyramid pooling with separable convolutions.
fn pyramid(net: &mut Net, x: NodeId, dilations: [usize; 3]) -> NodeId {
    let names = Names::pair("0", "aspp_blocks.0");
    let conv = net.biased(Conv::new(CHANNELS, 1));
    let mut parts = vec![net.unit_act(x, &names, conv, Act::Relu)];
    for (i, dilation) in (1..).zip(dilations) {
        let conv = Conv::depthwise(net.b.channels(x), 3).dilation(dilation);
        let paddle = format!("aspp_blocks.{i}");
        parts.push(separable(net, x, &i.to_string(), &paddle, conv, CHANNELS));
    }
    let pooled = net.b.global_avg_pool(x);
    let names = Names::pair("pool", "global_avg_pool.1");
    let pooled = net.unit_act(pooled, &names, Conv::new(CHANNELS, 1), Act::Relu);
    parts.push(net.b.resize(pooled, x, false));
    let x = net.b.concat(&parts);
    let x = unit_act(net, x, "project", "conv_bn_relu", Conv::new(CHANNELS, 1));
    net.b.dropout(x, 0.1)
}

fn decoder(net: &mut Net, x: NodeId, low: NodeId, classes: usize) -> NodeId {
    let low_map = unit_act(net, low, "low", "conv_bn_relu1", Conv::new(48, 1));
    let x = net.b.resize(x, low, false);
    let mut x = net.b.concat(&[x, low_map]);
    for i in 0..2 {
        let conv = Conv::depthwise(net.b.channels(x), 3);
        let paddle = format!("conv_bn_relu{}", i + 2);
        x = separable(net, x, &i.to_string(), &paddle, conv, CHANNELS);
    }
    net.conv(x, "classifier", "conv", Conv::new(classes, 1).bias())
}
