//! BiSeNetV2 (Yu et al. 2021) as PaddleSeg has it, with its four auxiliary heads. Names are our own, after
//! PaddleSeg.

use oarlock_graph::{Act, Conv, NodeId, Op};

use super::{Task, unit_act};
use crate::Built;
use crate::net::{Names, Net};

/// Weight of each auxiliary loss in PaddleX.
const AUXILIARY: f32 = 1.0;

pub(super) fn build(task: &Task) -> Built {
    let (mut net, image) = task.net();
    let detail = net.within("db.convs", |net| detail_branch(net, image));
    let (stages, semantic) = net.within("sb", |net| semantic_branch(net, image));
    let x = net.within("bga", |net| aggregate(net, detail, semantic));
    let logits = head(&mut net, x, "head", task.classes);
    let logits = net.b.resize(logits, image, false);
    let mut auxiliary = Vec::new();
    for (i, &stage) in stages.iter().enumerate() {
        let x = head(&mut net, stage, &format!("aux_head{}", i + 1), task.classes);
        auxiliary.push((net.b.resize(x, image, false), AUXILIARY));
    }
    net.finish_with(logits, &auxiliary)
}

/// As many channels inside as it gets.
fn head(net: &mut Net, x: NodeId, path: &str, classes: usize) -> NodeId {
    net.within(path, |net| {
        let conv = Conv::new(net.b.channels(x), 3);
        let x = unit_act(net, x, "conv_3x3", "conv_3x3.0", conv);
        let x = net.b.dropout(x, 0.1);
        net.conv(x, "conv_1x1", "conv_1x1", Conv::new(classes, 1).bias())
    })
}

/// A convolution and its batch norm. All convolutions of PaddleSeg's network have biases and pad with `'same'`.
fn unit(net: &mut Net, x: NodeId, path: &str, conv: Conv, stride: usize) -> NodeId {
    let names = Names::pair(path, path);
    let conv = net.biased(conv);
    if stride == 1 {
        return net.unit(x, &names, conv);
    }
    let (x, padding) = net.same_pad(x, 3, stride);
    net.unit(x, &names, conv.stride(stride).padding(padding))
}

fn relu(net: &mut Net, x: NodeId, path: &str, conv: Conv, stride: usize) -> NodeId {
    let x = unit(net, x, path, conv, stride);
    net.b.act(x, Act::Relu)
}

/// One filter or several for each channel.
fn depthwise(net: &mut Net, x: NodeId, path: &str, out: usize, stride: usize) -> NodeId {
    let conv = Conv::new(out, 3).groups(net.b.channels(x));
    let names = Names::pair(path, format!("{path}.depthwise_conv"));
    let conv = net.biased(conv);
    let (x, padding) = net.same_pad(x, 3, stride);
    net.unit(x, &names, conv.stride(stride).padding(padding))
}

/// Wide and shallow: 1/8 of the image, 128 channels.
fn detail_branch(net: &mut Net, image: NodeId) -> NodeId {
    let convs = [64, 64, 64, 64, 64, 128, 128, 128];
    let mut x = image;
    for (i, out) in convs.into_iter().enumerate() {
        let stride = if [0, 2, 5].contains(&i) { 2 } else { 1 };
        x = relu(net, x, &i.to_string(), Conv::new(out, 3), stride);
    }
    x
}

/// Narrow and deep: its stages (1/4 to 1/32 of the image) and 1/32 of the image, 128 channels.
fn semantic_branch(net: &mut Net, image: NodeId) -> ([NodeId; 4], NodeId) {
    let stage2 = net.within("stem", |net| stem(net, image, 16));
    let mut stages = [stage2; 4];
    let mut x = stage2;
    for (i, (path, out, blocks)) in [("stage3", 32, 2), ("stage4", 64, 2), ("stage5_4", 128, 4)]
        .into_iter()
        .enumerate()
    {
        x = net.within(path, |net| {
            let mut x = net.within("0", |net| shrink(net, x, out));
            for block in 1..blocks {
                x = net.within(&block.to_string(), |net| expand(net, x));
            }
            x
        });
        stages[i + 1] = x;
    }
    let semantic = net.within("ce", |net| context(net, x));
    (stages, semantic)
}

fn stem(net: &mut Net, image: NodeId, out: usize) -> NodeId {
    let x = relu(net, image, "conv", Conv::new(out, 3), 2);
    let left = relu(net, x, "left.0", Conv::new(out / 2, 1), 1);
    let left = relu(net, left, "left.1", Conv::new(out, 3), 2);
    let right = net.b.max_pool(x, 3, 2, 1);
    let x = net.b.concat(&[left, right]);
    relu(net, x, "fuse", Conv::new(out, 3), 1)
}

/// Gather and expansion with stride 2.
fn shrink(net: &mut Net, input: NodeId, out: usize) -> NodeId {
    let channels = net.b.channels(input);
    let x = relu(net, input, "branch_1.0", Conv::new(channels, 3), 1);
    let x = depthwise(net, x, "branch_1.1", 6 * channels, 2);
    let x = depthwise(net, x, "branch_1.2", 6 * channels, 1);
    let x = unit(net, x, "branch_1.3", Conv::new(out, 1), 1);
    let short = depthwise(net, input, "branch_2.0", channels, 2);
    let short = unit(net, short, "branch_2.1", Conv::new(out, 1), 1);
    let x = net.b.add(x, short);
    net.b.act(x, Act::Relu)
}

/// Gather and expansion with stride 1.
fn expand(net: &mut Net, input: NodeId) -> NodeId {
    let channels = net.b.channels(input);
    let x = relu(net, input, "conv.0", Conv::new(channels, 3), 1);
    let x = depthwise(net, x, "conv.1", 6 * channels, 1);
    let x = unit(net, x, "conv.2", Conv::new(channels, 1), 1);
    let x = net.b.add(x, input);
    net.b.act(x, Act::Relu)
}

/// Adds what the whole image says to every pixel.
fn context(net: &mut Net, x: NodeId) -> NodeId {
    let channels = net.b.channels(x);
    let pooled = net.b.global_avg_pool(x);
    let pooled = net.norm(pooled, "bn", "bn");
    let pooled = relu(net, pooled, "conv_1x1", Conv::new(channels, 1), 1);
    let everywhere = net.b.resize(pooled, x, false);
    let x = net.b.add(everywhere, x);
    net.conv(x, "conv_3x3", "conv_3x3", Conv::new(channels, 3).bias())
}

/// Bilateral guided aggregation: each branch gates the other.
fn aggregate(net: &mut Net, detail: NodeId, semantic: NodeId) -> NodeId {
    let channels = net.b.channels(detail);
    let pointwise = Conv::new(channels, 1).bias();
    let high = depthwise(net, detail, "db_branch_keep.0", channels, 1);
    let high = net.conv(high, "db_branch_keep.1", "db_branch_keep.1", pointwise);
    let reduced = unit(net, detail, "db_branch_down.0", Conv::new(channels, 3), 2);
    let pool = Op::AvgPool {
        kernel: [3; 2],
        stride: [2; 2],
        padding: [1; 2],
        ceil: false,
        count_include_pad: false,
    };
    let reduced = net.b.plain(pool, &[reduced]);
    let gate = depthwise(net, semantic, "sb_branch_keep.0", channels, 1);
    let gate = net.conv(gate, "sb_branch_keep.1", "sb_branch_keep.1", pointwise);
    let gate = net.b.act(gate, Act::Sigmoid);
    let up = unit(net, semantic, "sb_branch_up", Conv::new(channels, 3), 1);
    let up = net.b.resize(up, detail, false);
    let up = net.b.act(up, Act::Sigmoid);
    let high = net.b.mul(high, up);
    let low = net.b.mul(reduced, gate);
    let low = net.b.resize(low, detail, false);
    let x = net.b.add(high, low);
    unit(net, x, "conv", Conv::new(channels, 3), 1)
}
