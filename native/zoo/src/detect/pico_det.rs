//! PP-PicoDet (Yu et al. 2021): a path aggregation network of cross-stage partial blocks with depthwise 5×5
//! convolutions, and for each of four maps a head without anchors. Names of neck and head: PaddleDetection's.

use oarlock_graph::{Act, Conv, Head, NodeId, PicoHead, Suppression};

use super::Task;
use super::backbones::features;
use super::yolo::{enlarge, unit};
use crate::Built;
use crate::net::{Names, Net, PLAIN};

const ACT: Act = Act::HardSwish;
/// Greatest distance to a side, in strides.
const BINS: usize = 7;

pub(super) fn build(task: &Task) -> Built {
    let (mut net, image) = Net::new(&task.name, task.origin, PLAIN);
    let (channels, convolutions) = match task.backbone {
        "ESNet_s" => (96, 2),
        "ESNet_l" => (160, 4),
        _ => (128, 4),
    };
    let mut maps = features(&mut net, image, task.backbone, 3);
    maps.reverse();
    let maps = net.within("neck", |net| neck(net, &maps, channels));
    for (i, &map) in maps.iter().enumerate() {
        let out = net.within("head", |net| head(net, map, i, convolutions, task.classes));
        let score = net.b.slice(out, 0, task.classes);
        net.b.output(&format!("score{i}"), score);
        let sides = net.b.slice(out, task.classes, 4 * (BINS + 1));
        net.b.output(&format!("sides{i}"), sides);
    }
    net.b.head(Head::Pico(PicoHead {
        classes: task.classes,
        strides: (0..maps.len()).map(|i| 8 << i).collect(),
        bins: BINS,
        offset: 0.5,
        suppression: Suppression::Nms {
            score: 0.025,
            overlap: 0.6,
            candidates: Some(1000),
            detections: 100,
        },
    }));
    net.finish_detector()
}

/// From three maps four, finest first.
fn neck(net: &mut Net, maps: &[NodeId], channels: usize) -> Vec<NodeId> {
    let narrow = Conv::new(channels, 1);
    let maps: Vec<NodeId> = maps
        .iter()
        .enumerate()
        .map(|(i, &map)| unit(net, map, &format!("conv_t.convs.{i}"), narrow, ACT))
        .collect();
    let coarsest = maps[maps.len() - 1];
    let mut inner = maps;
    for (block, i) in (0..inner.len() - 1).rev().enumerate() {
        let coarser = enlarge(net, inner[i + 1]);
        let x = net.b.concat(&[coarser, inner[i]]);
        inner[i] = partial(net, x, &format!("top_down_blocks.{block}"), channels);
    }
    for i in 0..inner.len() - 1 {
        let finer = separable(net, inner[i], &format!("downsamples.{i}"), 2);
        let x = net.b.concat(&[finer, inner[i + 1]]);
        inner[i + 1] = partial(net, x, &format!("bottom_up_blocks.{i}"), channels);
    }
    let first = separable(net, coarsest, "first_top_conv", 2);
    let second = separable(net, inner[inner.len() - 1], "second_top_conv", 2);
    inner.push(net.b.add(first, second));
    inner
}

/// Cross-stage partial block with one bottleneck (Wang et al. 2020, "CSPNet").
fn partial(net: &mut Net, x: NodeId, name: &str, channels: usize) -> NodeId {
    let narrow = Conv::new(channels / 2, 1);
    let short = unit(net, x, &format!("{name}.short_conv"), narrow, ACT);
    let main = unit(net, x, &format!("{name}.main_conv"), narrow, ACT);
    let main = unit(net, main, &format!("{name}.blocks.0.conv1"), narrow, ACT);
    let main = separable(net, main, &format!("{name}.blocks.0.conv2"), 1);
    let x = net.b.concat(&[main, short]);
    unit(
        net,
        x,
        &format!("{name}.final_conv"),
        Conv::new(channels, 1),
        ACT,
    )
}

/// Depthwise 5×5 and pointwise convolution, each with batch norm and activation.
fn separable(net: &mut Net, mut x: NodeId, name: &str, stride: usize) -> NodeId {
    let channels = net.b.channels(x);
    let depthwise = Conv::depthwise(channels, 5).stride(stride);
    let parts = [
        ("dwconv", "bn1", depthwise),
        ("pwconv", "bn2", Conv::new(channels, 1)),
    ];
    for (conv_name, norm_name, conv) in parts {
        let (conv_name, norm_name) = (format!("{name}.{conv_name}"), format!("{name}.{norm_name}"));
        x = net.conv(x, &conv_name, &conv_name, conv);
        x = net.norm(x, &norm_name, &norm_name);
        x = net.b.act(x, ACT);
    }
    x
}

/// Convolutions that scores and sides share, then one for both.
fn head(net: &mut Net, mut x: NodeId, level: usize, convolutions: usize, classes: usize) -> NodeId {
    let channels = net.b.channels(x);
    for i in 0..convolutions {
        for (kind, conv) in [
            ("dw", Conv::depthwise(channels, 5)),
            ("pw", Conv::new(channels, 1)),
        ] {
            let name = format!("conv_feat.cls_conv_{kind}{level}.{i}");
            let names = Names::new(format!("{name}.conv"), format!("{name}.norm"), name);
            net.suffixes = crate::net::NORMED;
            x = net.unit_act(x, &names, conv, ACT);
        }
    }
    let name = format!("head_cls{level}");
    let conv = Conv::new(classes + 4 * (BINS + 1), 1).bias();
    net.conv(x, &name, &name, conv)
}
