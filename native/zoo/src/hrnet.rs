//! HRNet for classification (Wang et al. 2020): four resolutions side by side, fused again and again.
//!
//! Names: the authors' and timm's (`hrnet_w18` …). Their head convolutions have a bias before the
//! batch norm; PaddleClas's have none. Sizes must be multiples of 32, or the branches do not meet.

use oarlock_graph::{Act, Conv, NodeId, Op};

use crate::net::{Names, Net, PLAIN};
use crate::{Built, Origin};

pub(crate) fn build(name: &str, width: usize, origin: Origin, classes: usize) -> Built {
    let (mut net, image) = Net::new(name, origin, PLAIN);
    let names = Names::new("conv1", "bn1", "conv_layer1_1");
    let x = net.unit_act(image, &names, Conv::new(64, 3).stride(2), Act::Relu);
    let names = Names::new("conv2", "bn2", "conv_layer1_2");
    let mut x = net.unit_act(x, &names, Conv::new(64, 3).stride(2), Act::Relu);
    for index in 0..4 {
        let (ours, paddle) = (format!("layer1.{index}"), format!("layer1.{index}"));
        x = bottleneck(&mut net, x, &ours, &paddle, 64);
    }

    let names = Names::sequence("transition1.0", 0, "conv_tr1_1");
    let high = net.unit_act(x, &names, Conv::new(width, 3), Act::Relu);
    let names = Names::sequence("transition1.1.0", 0, "conv_tr1_2");
    let low = net.unit_act(x, &names, Conv::new(2 * width, 3).stride(2), Act::Relu);
    let mut branches = vec![high, low];
    for (stage, modules) in [(2, 1), (3, 4), (4, 3)] {
        if stage > 2 {
            let prefix = format!("transition{0}.{0}.0", stage - 1);
            let names = Names::sequence(&prefix, 0, format!("conv_tr{}", stage - 1));
            let conv = Conv::new(width << (stage - 1), 3).stride(2);
            let lowest = branches[branches.len() - 1];
            branches.push(net.unit_act(lowest, &names, conv, Act::Relu));
        }
        for module in 0..modules {
            let ours = format!("stage{stage}.{module}");
            let paddle = format!("st{stage}.stage_func_list.{module}");
            branches = fused_module(&mut net, &branches, &ours, &paddle);
        }
    }

    let logits = head(&mut net, &branches, classes);
    net.finish(logits)
}

/// Widens each branch, then adds them up from high to low resolution.
fn head(net: &mut Net, branches: &[NodeId], classes: usize) -> NodeId {
    let torch = net.origin == Origin::Torch;
    let head_conv = |conv: Conv| if torch { conv.bias() } else { conv };
    let mut sum = None;
    for (index, &branch) in branches.iter().enumerate() {
        let (ours, paddle) = (
            format!("incre_modules.{index}.0"),
            format!("last_cls.func_list.{index}"),
        );
        let wide = bottleneck(net, branch, &ours, &paddle, 32 << index);
        sum = Some(match sum {
            None => wide,
            Some(higher) => {
                let names = Names::sequence(
                    &format!("downsamp_modules.{}", index - 1),
                    0,
                    format!("cls_head_conv_list.{}", index - 1),
                );
                let conv = head_conv(Conv::new(128 << index, 3).stride(2));
                let down = net.unit_act(higher, &names, conv, Act::Relu);
                net.b.add(wide, down)
            }
        });
    }
    let names = Names::sequence("final_layer", 0, "conv_last");
    let x = sum.unwrap_or(branches[0]); // there are four branches
    let x = net.unit_act(x, &names, head_conv(Conv::new(2048, 1)), Act::Relu);
    let x = net.pool_flat(x);
    net.linear(x, "classifier", "fc", classes, 1.0)
}

/// Four basic blocks on each branch, then every branch receives all others.
fn fused_module(net: &mut Net, inputs: &[NodeId], ours: &str, paddle: &str) -> Vec<NodeId> {
    let mut branches = inputs.to_vec();
    for (i, x) in branches.iter_mut().enumerate() {
        for block in 0..4 {
            let ours = format!("{ours}.branches.{i}.{block}");
            let paddle = format!("{paddle}.basic_block_list.{i}.{block}");
            *x = basic_block(net, *x, &ours, &paddle);
        }
    }
    let mut number = 0;
    let mut fused = Vec::with_capacity(branches.len());
    for to in 0..branches.len() {
        let mut sum: Option<NodeId> = None;
        // The branch's own map first, as PaddleClas adds; then by resolution.
        let others = (0..branches.len()).filter(|&from| from != to);
        for from in std::iter::once(to).chain(others) {
            let x = fuse_path(net, &branches, from, to, ours, paddle, &mut number);
            sum = Some(sum.map_or(x, |sum| net.b.add(sum, x)));
        }
        fused.push(net.b.act(sum.unwrap_or(branches[to]), Act::Relu));
    }
    fused
}

/// Brings branch `from` to the resolution and width of branch `to`.
fn fuse_path(
    net: &mut Net,
    branches: &[NodeId],
    from: usize,
    to: usize,
    ours: &str,
    paddle: &str,
    number: &mut usize,
) -> NodeId {
    let mut x = branches[from];
    let out = net.b.channels(branches[to]);
    let prefix = format!("{ours}.fuse_layers.{to}.{from}");
    let mut next_paddle = || {
        *number += 1;
        format!("{paddle}.fuse_func.residual_func_list.{}", *number - 1)
    };
    if from > to {
        x = net.unit(
            x,
            &Names::sequence(&prefix, 0, next_paddle()),
            Conv::new(out, 1),
        );
        return net.b.plain(
            Op::Upsample {
                scale: 1 << (from - to),
                bilinear: false,
            },
            &[x],
        );
    }
    for step in 0..to - from {
        let names = Names::sequence(&format!("{prefix}.{step}"), 0, next_paddle());
        let last = step + 1 == to - from;
        let channels = if last {
            out
        } else {
            net.b.channels(branches[from])
        };
        x = net.unit(x, &names, Conv::new(channels, 3).stride(2));
        if !last {
            x = net.b.act(x, Act::Relu);
        }
    }
    x
}

fn basic_block(net: &mut Net, input: NodeId, ours: &str, paddle: &str) -> NodeId {
    let channels = net.b.channels(input);
    let names = |i: usize| {
        Names::new(
            format!("{ours}.conv{i}"),
            format!("{ours}.bn{i}"),
            format!("{paddle}.conv{i}"),
        )
    };
    let x = net.unit_act(input, &names(1), Conv::new(channels, 3), Act::Relu);
    let x = net.unit(x, &names(2), Conv::new(channels, 3));
    let x = net.b.add(x, input);
    net.b.act(x, Act::Relu)
}

fn bottleneck(net: &mut Net, input: NodeId, ours: &str, paddle: &str, filters: usize) -> NodeId {
    let names = |i: usize| {
        Names::new(
            format!("{ours}.conv{i}"),
            format!("{ours}.bn{i}"),
            format!("{paddle}.conv{i}"),
        )
    };
    let x = net.unit_act(input, &names(1), Conv::new(filters, 1), Act::Relu);
    let x = net.unit_act(x, &names(2), Conv::new(filters, 3), Act::Relu);
    let x = net.unit(x, &names(3), Conv::new(4 * filters, 1));
    let shortcut = if net.b.channels(input) == 4 * filters {
        input
    } else {
        let prefix = format!("{ours}.downsample");
        let names = Names::sequence(&prefix, 0, format!("{paddle}.conv_down"));
        net.unit(input, &names, Conv::new(4 * filters, 1))
    };
    let x = net.b.add(x, shortcut);
    net.b.act(x, Act::Relu)
}
