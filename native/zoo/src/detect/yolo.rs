//! What YOLOv3 and the PP-YOLO family have in common.

use oarlock_graph::{Act, Conv, Head, NodeId, Op, Suppression, YoloHead, YoloLevel};

use super::Task;
use crate::net::{Names, Net, Suffixes};

/// PaddleDetection's names inside a convolution with its batch norm.
pub(super) const SUFFIXES: Suffixes = Suffixes {
    conv: "conv",
    norm: "batch_norm",
};

pub(super) const LEAKY: Act = Act::LeakyRelu { slope: 0.1 };

/// YOLOv3's anchors, width and height, found on COCO.
pub(super) const ANCHORS: [[f32; 2]; 9] = [
    [10.0, 13.0],
    [16.0, 30.0],
    [33.0, 23.0],
    [30.0, 61.0],
    [62.0, 45.0],
    [59.0, 119.0],
    [116.0, 90.0],
    [156.0, 198.0],
    [373.0, 326.0],
];

/// An empty network and its image input.
pub(super) fn net(task: &Task) -> (Net, NodeId) {
    Net::new(&task.name, task.origin, SUFFIXES)
}

/// Convolution, batch norm, activation under one name.
pub(super) fn unit(net: &mut Net, x: NodeId, name: &str, conv: Conv, act: Act) -> NodeId {
    net.unit_act(x, &Names::pair(name, name), conv, act)
}

/// Spatial pyramid pooling (He et al. 2014, as in YOLOv3-SPP): the map beside its maxima over 5, 9 and 13 pixels.
pub(super) fn spp(net: &mut Net, x: NodeId, name: &str, act: Act) -> NodeId {
    let channels = net.b.channels(x);
    let mut parts = vec![x];
    for kernel in [5, 9, 13] {
        parts.push(net.b.max_pool(x, kernel, 1, kernel / 2));
    }
    let x = net.b.concat(&parts);
    unit(net, x, name, Conv::new(channels, 1), act)
}

/// Twice the height and width, nearest pixel.
pub(super) fn enlarge(net: &mut Net, x: NodeId) -> NodeId {
    let op = Op::Upsample {
        scale: 2,
        bilinear: false,
    };
    net.b.plain(op, &[x])
}

/// DropBlock as all of the family have it.
pub(super) fn drop_block(net: &mut Net, x: NodeId) -> NodeId {
    net.b.plain(Op::DropBlock { size: 3, keep: 0.9 }, &[x])
}

/// What the heads differ in.
pub(super) struct Settings {
    /// Three for each map, the smallest first.
    pub anchors: &'static [[f32; 2]],
    pub scale_xy: f32,
    pub iou_aware: Option<f32>,
    pub objectness: f32,
    pub suppression: Suppression,
}

/// The last convolutions over the maps, coarsest (a 32nd of the image) first, and the head.
pub(super) fn outputs(net: &mut Net, maps: &[NodeId], task: &Task, settings: Settings) {
    let values = 5 + task.classes + usize::from(settings.iou_aware.is_some());
    let mut levels = Vec::new();
    for (i, (&map, anchors)) in maps
        .iter()
        .zip(settings.anchors.chunks(3).rev())
        .enumerate()
    {
        let name = format!("yolo_output.{i}");
        let conv = Conv::new(anchors.len() * values, 1).bias();
        let out = net.within("yolo_head", |net| net.conv(map, &name, &name, conv));
        net.b.output(&format!("yolo{i}"), out);
        levels.push(YoloLevel {
            stride: 32 >> i,
            anchors: anchors.to_vec(),
        });
    }
    net.b.head(Head::Yolo(YoloHead {
        classes: task.classes,
        levels,
        scale_xy: settings.scale_xy,
        iou_aware: settings.iou_aware,
        objectness: settings.objectness,
        suppression: settings.suppression,
    }));
}
