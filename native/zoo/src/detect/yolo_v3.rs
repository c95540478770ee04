//! YOLOv3 (Redmon and Farhadi 2018) on seven backbones. Names of the neck and the head: PaddleDetection's.

use oarlock_graph::{Conv, NodeId, Suppression};

use super::Task;
use super::backbones::features;
use super::yolo::{ANCHORS, LEAKY, Settings, enlarge, net, outputs, unit};
use crate::Built;
use crate::net::Net;

pub(super) fn build(task: &Task) -> Built {
    let (mut net, image) = net(task);
    let maps = features(&mut net, image, task.backbone, 3);
    let tips = net.within("neck", |net| neck(net, &maps));
    let settings = Settings {
        anchors: &ANCHORS,
        scale_xy: 1.0,
        iou_aware: None,
        objectness: 0.005,
        suppression: Suppression::Nms {
            score: 0.01,
            overlap: 0.45,
            candidates: Some(1000),
            detections: 100,
        },
    };
    outputs(&mut net, &tips, task, settings);
    net.finish_detector()
}

/// Each map with what the coarser ones have found.
fn neck(net: &mut Net, maps: &[NodeId]) -> Vec<NodeId> {
    let mut route = None;
    let mut tips = Vec::new();
    for (i, &map) in maps.iter().enumerate() {
        let channels = 512 >> i;
        let mut x = match route {
            Some(route) => net.b.concat(&[route, map]),
            None => map,
        };
        for (j, layer) in ["conv0", "conv1", "conv2", "conv3", "route"]
            .iter()
            .enumerate()
        {
            let conv = if j % 2 == 0 {
                Conv::new(channels, 1)
            } else {
                Conv::new(2 * channels, 3)
            };
            x = unit(
                net,
                x,
                &format!("yolo_block.{i}.conv_module.{layer}"),
                conv,
                LEAKY,
            );
        }
        let tip = format!("yolo_block.{i}.tip");
        tips.push(unit(net, x, &tip, Conv::new(2 * channels, 3), LEAKY));
        if i + 1 < maps.len() {
            let name = format!("yolo_transition.{i}");
            x = unit(net, x, &name, Conv::new(channels / 2, 1), LEAKY);
            route = Some(enlarge(net, x));
        }
    }
    tips
}
