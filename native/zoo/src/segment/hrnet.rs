//! HRNet with the head of a fully convolutional network (Wang et al. 2020), as PaddleX has it. Names: the
//! classifier's after `backbone.`; of the head our own.

use oarlock_graph::Conv;

use super::{Task, unit_act};
use crate::net::Library;
use crate::{Built, hrnet};

pub(super) fn build(task: &Task, width: usize) -> Built {
    let (mut net, image) = task.net();
    let branches = net.within("backbone", |net| {
        hrnet::features(net, image, width, Library::Seg)
    });
    let highest = branches[0];
    let mut parts = vec![highest];
    for &branch in &branches[1..] {
        parts.push(net.b.resize(branch, highest, false));
    }
    let x = net.b.concat(&parts);
    let channels = net.b.channels(x);
    let logits = net.within("head", |net| {
        let x = unit_act(net, x, "0", "conv_1", Conv::new(channels, 1));
        net.conv(x, "classifier", "cls", Conv::new(task.classes, 1).bias())
    });
    let logits = net.b.resize(logits, image, false);
    net.finish(logits)
}
