//! PP-YOLOv2 (Huang et al. 2021): a path aggregation network of cross-stage partial blocks with Mish behind a
//! ResNet with deformable convolutions. Names of neck and head: PaddleDetection's.

use oarlock_graph::{Act, Conv, NodeId};

use super::Task;
use super::backbones::features;
use super::pp_yolo::matrix;
use super::yolo::{ANCHORS, Settings, drop_block, enlarge, net, outputs, spp, unit};
use crate::Built;
use crate::net::Net;

const ACT: Act = Act::Mish;

pub(super) fn build(task: &Task) -> Built {
    let (mut net, image) = net(task);
    let maps = features(&mut net, image, task.backbone, 3);
    let maps = net.within("neck", |net| neck(net, &maps));
    let settings = Settings {
        anchors: &ANCHORS,
        scale_xy: 1.05,
        iou_aware: Some(0.5),
        objectness: 0.01,
        suppression: matrix(0.01),
    };
    outputs(&mut net, &maps, task, settings);
    net.finish_detector()
}

/// From coarse to fine and back; coarsest first.
fn neck(net: &mut Net, maps: &[NodeId]) -> Vec<NodeId> {
    let mut down = Vec::new();
    let mut route = None;
    for (i, &map) in maps.iter().enumerate() {
        let x = match route {
            Some(route) => net.b.concat(&[route, map]),
            None => map,
        };
        let x = block(net, x, &format!("fpn.{i}"), 512 >> i, i == 0);
        down.push(x);
        if i + 1 < maps.len() {
            let name = format!("fpn_transition.{i}");
            let x = unit(net, x, &name, Conv::new(512 >> i, 1), ACT);
            route = Some(enlarge(net, x));
        }
    }
    for i in (0..maps.len().saturating_sub(1)).rev() {
        let finer = down[i + 1];
        let conv = Conv::new(net.b.channels(finer), 3).stride(2);
        let route = unit(net, finer, &format!("pan_transition.{i}"), conv, ACT);
        let x = net.b.concat(&[route, down[i]]);
        down[i] = block(net, x, &format!("pan.{i}"), 512 >> i, false);
    }
    down
}

/// Half of the channels pass three pairs of convolutions, half pass by.
fn block(net: &mut Net, x: NodeId, name: &str, channels: usize, pooled: bool) -> NodeId {
    let narrow = Conv::new(channels, 1);
    let mut left = unit(net, x, &format!("{name}.conv1"), narrow, ACT);
    let right = unit(net, x, &format!("{name}.conv2"), narrow, ACT);
    for i in 0..3 {
        let part = |layer: &str| format!("{name}.conv_module.{layer}");
        left = unit(net, left, &part(&format!("{i}.0")), narrow, ACT);
        left = if i == 1 && pooled {
            spp(net, left, &part("spp.conv"), ACT)
        } else {
            let conv = Conv::new(channels, 3);
            unit(net, left, &part(&format!("{i}.1")), conv, ACT)
        };
        if i == 1 {
            left = drop_block(net, left);
        }
    }
    let x = net.b.concat(&[left, right]);
    unit(
        net,
        x,
        &format!("{name}.conv3"),
        Conv::new(2 * channels, 1),
        ACT,
    )
}
