//! U-Net (Ronneberger et al. 2015) as PaddleSeg has it: padded convolutions with batch norms, interpolation
//! instead of transposed convolutions, 512 channels at the bottom. Names are our own.

use oarlock_graph::{Act, Conv, NodeId};

use super::Task;
use crate::Built;
use crate::net::{Names, Net};

pub(super) fn build(task: &Task) -> Built {
    let (mut net, image) = task.net();
    let mut x = double(&mut net, image, "encoder.0", "encode.double_conv", 0, 64);
    let mut shortcuts = Vec::new();
    for (i, out) in [128, 256, 512, 512].into_iter().enumerate() {
        shortcuts.push(x);
        x = net.b.max_pool(x, 2, 2, 0);
        let paddle = format!("encode.down_sample_list.{i}");
        x = double(&mut net, x, &format!("encoder.{}", i + 1), &paddle, 1, out);
    }
    for (i, (shortcut, out)) in shortcuts
        .into_iter()
        .rev()
        .zip([256, 128, 64, 64])
        .enumerate()
    {
        x = net.b.resize(x, shortcut, false);
        x = net.b.concat(&[x, shortcut]);
        let paddle = format!("decode.up_sample_list.{i}.double_conv");
        x = double(&mut net, x, &format!("decoder.{i}"), &paddle, 0, out);
    }
    let logits = net.conv(x, "classifier", "cls", Conv::new(task.classes, 3).bias());
    net.finish(logits)
}

/// Two 3×3 convolutions; PaddleSeg counts them from `first`.
fn double(
    net: &mut Net,
    mut x: NodeId,
    ours: &str,
    paddle: &str,
    first: usize,
    out: usize,
) -> NodeId {
    for i in 0..2 {
        let names = Names::pair(&format!("{ours}.{i}"), format!("{paddle}.{}", first + i));
        let conv = net.biased(Conv::new(out, 3));
        x = net.unit_act(x, &names, conv, Act::Relu);
    }
    x
}
