//! PP-YOLO (Long et al. 2020): YOLOv3 with coordinates beside the maps (CoordConv), spatial pyramid pooling,
//! DropBlock, predicted overlaps and matrix NMS; two maps instead of three on small backbones. And PP-YOLO tiny
//! (PaddleDetection's model zoo), with depthwise 5×5 convolutions. Names of neck and head: PaddleDetection's.

use oarlock_graph::{Conv, NodeId, Op, Suppression};

use super::Task;
use super::backbones::features;
use super::yolo::{ANCHORS, LEAKY, Settings, drop_block, enlarge, net, outputs, spp, unit};
use crate::net::{Names, Net};
use crate::{Built, Origin};

/// On ResNet18_vd.
const ANCHORS_RESNET18: [[f32; 2]; 6] = [
    [10.0, 14.0],
    [23.0, 27.0],
    [37.0, 58.0],
    [81.0, 82.0],
    [135.0, 169.0],
    [344.0, 319.0],
];

const ANCHORS_MOBILENET: [[f32; 2]; 6] = [
    [11.0, 18.0],
    [34.0, 47.0],
    [51.0, 126.0],
    [115.0, 71.0],
    [120.0, 195.0],
    [254.0, 235.0],
];

const ANCHORS_TINY: [[f32; 2]; 9] = [
    [10.0, 15.0],
    [24.0, 36.0],
    [72.0, 42.0],
    [35.0, 87.0],
    [102.0, 96.0],
    [60.0, 170.0],
    [220.0, 125.0],
    [128.0, 222.0],
    [264.0, 266.0],
];

pub(super) fn build(task: &Task) -> Built {
    let (mut net, image) = net(task);
    let (anchors, mobile): (&[[f32; 2]], bool) = match task.backbone {
        "ResNet50_vd_dcn" => (&ANCHORS, false),
        "ResNet18_vd" => (&ANCHORS_RESNET18, false),
        _ => (&ANCHORS_MOBILENET, true),
    };
    let maps = features(&mut net, image, task.backbone, anchors.len() / 3);
    let tips = net.within("neck", |net| neck(net, &maps));
    let settings = Settings {
        anchors,
        scale_xy: 1.05,
        iou_aware: Some(0.4),
        objectness: if mobile { 0.005 } else { 0.01 },
        suppression: matrix(if mobile { 0.05 } else { 0.01 }),
    };
    outputs(&mut net, &tips, task, settings);
    net.finish_detector()
}

/// Matrix NMS as PaddleX has it, for scores above `post` at the end.
pub(super) fn matrix(post: f32) -> Suppression {
    Suppression::Matrix {
        score: 0.01,
        post,
        sigma: None,
        candidates: None,
        detections: 100,
    }
}

fn neck(net: &mut Net, maps: &[NodeId]) -> Vec<NodeId> {
    let mut route = None;
    let mut tips = Vec::new();
    for (i, &map) in maps.iter().enumerate() {
        let channels = (64 << maps.len()) >> i;
        let x = match route {
            Some(route) => net.b.concat(&[route, map]),
            None => map,
        };
        let name = format!("yolo_block.{i}");
        let x = block(net, x, &name, channels, i == 0, maps.len() == 3);
        let tip = format!("{name}.tip");
        tips.push(coordinates(net, x, &tip, Conv::new(2 * channels, 3)));
        if i + 1 < maps.len() {
            let name = format!("yolo_transition.{i}");
            let x = unit(net, x, &name, Conv::new(256 >> i, 1), LEAKY);
            route = Some(enlarge(net, x));
        }
    }
    tips
}

/// Everything before the tip; without the four convolutions on small backbones.
fn block(
    net: &mut Net,
    mut x: NodeId,
    name: &str,
    channels: usize,
    coarsest: bool,
    convolutions: bool,
) -> NodeId {
    let part = |layer: &str| format!("{name}.conv_module.{layer}");
    let (narrow, wide) = (Conv::new(channels, 1), Conv::new(2 * channels, 3));
    if convolutions {
        x = coordinates(net, x, &part("conv0"), narrow);
        x = unit(net, x, &part("conv1"), wide, LEAKY);
        if !coarsest {
            x = drop_block(net, x);
        }
        x = coordinates(net, x, &part("conv2"), narrow);
        if coarsest {
            x = spp(net, x, &part("spp.conv"), LEAKY);
        }
        x = unit(net, x, &part("conv3"), wide, LEAKY);
        if coarsest {
            x = drop_block(net, x);
        }
    } else {
        if coarsest {
            x = spp(net, x, &part("spp.conv"), LEAKY);
        }
        x = drop_block(net, x);
    }
    coordinates(net, x, &part("route"), narrow)
}

/// A convolution that also reads where it is.
fn coordinates(net: &mut Net, x: NodeId, name: &str, conv: Conv) -> NodeId {
    // PaddleDetection divides by twice the size where it should multiply.
    let last = match net.origin {
        Origin::Paddle => -0.5,
        Origin::Torch => 1.0,
    };
    let x = net.b.plain(Op::Coordinates { last }, &[x]);
    let names = Names::pair(name, format!("{name}.conv"));
    net.unit_act(x, &names, conv, LEAKY)
}

/// PP-YOLO tiny, on a MobileNetV3 of half the width.
pub(super) fn build_tiny(task: &Task) -> Built {
    let (mut net, image) = net(task);
    let maps = features(&mut net, image, "MobileNetV3_x0.5", 3);
    let tips = net.within("neck", |net| tiny_neck(net, &maps));
    let settings = Settings {
        anchors: &ANCHORS_TINY,
        scale_xy: 1.05,
        iou_aware: None,
        objectness: 0.005,
        suppression: Suppression::Nms {
            score: 0.005,
            overlap: 0.45,
            candidates: Some(1000),
            detections: 100,
        },
    };
    outputs(&mut net, &tips, task, settings);
    net.finish_detector()
}

fn tiny_neck(net: &mut Net, maps: &[NodeId]) -> Vec<NodeId> {
    let mut route = None;
    let mut tips = Vec::new();
    for (i, (&map, channels)) in maps.iter().zip([160, 128, 96]).enumerate() {
        let mut x = match route {
            Some(route) => net.b.concat(&[route, map]),
            None => spp(net, map, "spp.conv", LEAKY),
        };
        x = drop_block(net, x);
        let name = format!("yolo_block.{i}");
        for (j, layer) in ["0", "1", "2", "route"].iter().enumerate() {
            let conv = if j % 2 == 0 {
                Conv::new(channels, 1)
            } else {
                Conv::depthwise(channels, 5)
            };
            // The names of layers in PaddleDetection begin with that of the block once more.
            let names = Names::pair(
                &format!("{name}.conv_module.{layer}"),
                format!("{name}.conv_module.{name}.{layer}"),
            );
            x = net.unit_act(x, &names, conv, LEAKY);
        }
        let tip = format!("{name}.tip");
        tips.push(unit(net, x, &tip, Conv::new(channels, 1), LEAKY));
        if i + 1 < maps.len() {
            let name = format!("yolo_transition.{i}");
            let x = unit(net, x, &name, Conv::new(channels, 1), LEAKY);
            route = Some(enlarge(net, x));
        }
    }
    tips
}
