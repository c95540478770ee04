//! Feature pyramids of the two-stage detectors, all levels 256 wide, the coarsest made of the one before it.

use oarlock_graph::{Conv, NodeId, Op};

use crate::net::Net;

/// Channels of each level.
const WIDTH: usize = 256;

/// Lin et al. 2017, "Feature Pyramid Networks": P2 to P6 of C2 to C5. P6 is every second pixel of P5.
pub(super) fn fpn(net: &mut Net, stages: &[NodeId]) -> Vec<NodeId> {
    let last = stages.len() - 1;
    let mut laterals: Vec<NodeId> = Vec::with_capacity(stages.len());
    for (i, &stage) in stages.iter().enumerate() {
        let paddle = match i {
            _ if i == last => "neck.fpn_inner_res5_sum".to_owned(),
            _ => format!("neck.fpn_inner_res{}_sum_lateral", i + 2),
        };
        let name = format!("backbone.fpn.inner_blocks.{i}.0");
        laterals.push(net.conv(stage, &name, &paddle, Conv::new(WIDTH, 1).bias()));
    }
    for i in (0..last).rev() {
        let enlarge = Op::Upsample {
            scale: 2,
            bilinear: false,
        };
        let coarser = net.b.plain(enlarge, &[laterals[i + 1]]);
        laterals[i] = net.b.add(laterals[i], coarser);
    }
    let mut levels: Vec<NodeId> = Vec::with_capacity(stages.len() + 1);
    for (i, &lateral) in laterals.iter().enumerate() {
        let name = format!("backbone.fpn.layer_blocks.{i}.0");
        let paddle = format!("neck.fpn_res{}_sum", i + 2);
        levels.push(net.conv(lateral, &name, &paddle, Conv::new(WIDTH, 3).bias()));
    }
    levels.push(net.b.max_pool(levels[last], 1, 2, 0));
    levels
}

/// HRNet's pyramid (Wang et al. 2020, "HRNetV2p"): all branches at the finest resolution, then averages of
/// 2×2, 4×4 … pixels.
pub(super) fn hrfpn(net: &mut Net, branches: &[NodeId]) -> Vec<NodeId> {
    let mut parts = vec![branches[0]];
    for &branch in &branches[1..] {
        parts.push(net.b.resize(branch, branches[0], false));
    }
    let all = net.b.concat(&parts);
    let finest = net.conv(
        all,
        "neck.reduction_conv",
        "neck.reduction",
        Conv::new(WIDTH, 1),
    );
    (0..=branches.len())
        .map(|i| {
            let pooled = match i {
                0 => finest,
                _ => net.b.avg_pool(finest, 1 << i, 1 << i, false),
            };
            let name = format!("neck.fpn_convs.{i}");
            let paddle = format!("neck.fpn_conv_{i}");
            net.conv(pooled, &name, &paddle, Conv::new(WIDTH, 3))
        })
        .collect()
}
