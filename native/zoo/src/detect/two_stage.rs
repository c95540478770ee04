//! Faster R-CNN (Ren et al. 2015) and Mask R-CNN (He et al. 2017).
//!
//! With a feature pyramid: one region proposal network for all levels, boxes by two fully connected layers, masks by
//! four convolutions and an enlarging one. Without ("C4"): proposals from the fourth stage of the ResNet, whose
//! fifth stage is the head of boxes and masks.
//!
//! Names: torchvision's, except of the last layers, which differ: here the background comes last and has neither
//! boxes nor masks. torchvision's version pools two samples along each side of a cell and does not shift regions by
//! half a pixel. The C4 form has PaddleDetection's 15 anchors, of which PaddleX makes only the three smallest.
//! Nodes that need only the image come first, then those of boxes, then those of masks.

use oarlock_graph::{Act, Conv, Head, NodeId, Op, Proposals, RpnLevel, Suppression, TwoStageHead};

use super::{Task, pyramid};
use crate::net::{Library, NORMED, Net};
use crate::resnet::Trunk;
use crate::{Built, Origin, hrnet};

/// Sides of anchors, one for each level of a pyramid, and their heights over widths.
const ANCHORS: [f32; 5] = [32.0, 64.0, 128.0, 256.0, 512.0];
const RATIOS: [f32; 3] = [0.5, 1.0, 2.0];

pub(super) fn build(task: &Task, masks: bool) -> Built {
    let (mut net, image) = Net::new(&task.name, task.origin, NORMED);
    // As in PaddleX, most backbones are only used with a pyramid.
    let optional = matches!(task.backbone, "ResNet50" | "ResNet50_vd");
    let levels = if task.with_fpn || !optional {
        with_pyramid(&mut net, image, task, masks)
    } else {
        without_pyramid(&mut net, image, task, masks)
    };
    let fpn = levels.len() > 1;
    let mask_size = if fpn { 28 } else { 14 };
    net.b.head(Head::TwoStage(TwoStageHead {
        classes: task.classes,
        levels,
        train: proposals(if fpn { [2000, 1000] } else { [12000, 2000] }),
        test: proposals(if fpn { [1000, 1000] } else { [6000, 1000] }),
        delta_weights: [10.0, 10.0, 5.0, 5.0],
        mask_size: masks.then_some(mask_size),
        suppression: Suppression::Nms {
            score: 0.05,
            overlap: 0.5,
            candidates: None,
            detections: 100,
        },
    }));
    net.finish_detector()
}

/// PaddleX asks for a least size of 0, Paddle's operation for 1 pixel at least.
fn proposals([before, after]: [usize; 2]) -> Proposals {
    Proposals {
        before,
        after,
        overlap: 0.7,
        min_size: 1.0,
    }
}

fn trunk(backbone: &str) -> Trunk {
    let depth = backbone.trim_start_matches("ResNet");
    let depth = depth.split('_').next().and_then(|d| d.parse().ok());
    Trunk {
        depth: depth.unwrap_or(50),
        vd: backbone.contains("_vd"),
        dilations: [1; 4],
        library: Library::Det,
    }
}

fn with_pyramid(net: &mut Net, image: NodeId, task: &Task, masks: bool) -> Vec<RpnLevel> {
    let stages = net.within_both("backbone.body", "backbone", |net| {
        if task.backbone.starts_with("HRNet") {
            return hrnet::features(net, image, 18, Library::Det);
        }
        let trunk = trunk(task.backbone);
        let mut x = trunk.stem(net, image);
        let mut stage = |i| {
            x = trunk.stage(net, x, i);
            x
        };
        (0..4).map(&mut stage).collect()
    });
    let maps = if task.backbone.starts_with("HRNet") {
        pyramid::hrfpn(net, &stages)
    } else {
        pyramid::fpn(net, &stages)
    };
    rpn(net, &maps, RATIOS.len());
    let pooled = &maps[..4];

    let rois = net.b.op("rois", Op::Rois, &[]);
    let x = roi_align(net, "roi_heads.box_roi_pool", rois, pooled, 7);
    let mut x = net.b.flatten(x);
    for layer in ["fc6", "fc7"] {
        let name = format!("roi_heads.box_head.{layer}");
        x = net.linear(x, &name, &format!("bbox_head.head.{layer}"), 1024, 1.0);
        x = net.b.act(x, Act::Relu);
    }
    box_predictor(net, x, task.classes);

    if masks {
        let rois = net.b.op("mask_rois", Op::Rois, &[]);
        let mut x = roi_align(net, "roi_heads.mask_roi_pool", rois, pooled, 14);
        for i in 0..4 {
            let name = format!("roi_heads.mask_head.{i}.0");
            let paddle = format!("mask_head.head.upsample.mask_inter_feat_{}", i + 1);
            x = net.conv(x, &name, &paddle, Conv::new(256, 3).bias());
            x = net.b.act(x, Act::Relu);
        }
        mask_predictor(net, x, task.classes);
    }
    let levels = ANCHORS.iter().enumerate();
    let level = |(i, &size)| RpnLevel {
        stride: 4usize << i,
        sizes: vec![size],
        ratios: RATIOS.to_vec(),
    };
    levels.map(level).collect()
}

fn without_pyramid(net: &mut Net, image: NodeId, task: &Task, masks: bool) -> Vec<RpnLevel> {
    let map = net.within_both("backbone.body", "backbone", |net| {
        let trunk = trunk(task.backbone);
        let x = trunk.stem(net, image);
        (0..3).fold(x, |x, stage| trunk.stage(net, x, stage))
    });
    rpn(net, &[map], ANCHORS.len() * RATIOS.len());

    // Also behind the `vd` networks the head is an ordinary one.
    let head = trunk("ResNet50");
    let rois = net.b.op("rois", Op::Rois, &[]);
    let pooled = roi_align(net, "roi_heads.box_roi_pool", rois, &[map], 14);
    let x = net.within_both("roi_heads.box_head", "bbox_head.head", |net| {
        head.stage(net, pooled, 3)
    });
    let stage = pooled + 1..x + 1;
    let vector = net.pool_flat(x);
    box_predictor(net, vector, task.classes);

    if masks {
        let rois = net.b.op("mask_rois", Op::Rois, &[]);
        let x = roi_align(net, "roi_heads.mask_roi_pool", rois, &[map], 14);
        let x = net.b.repeated(stage, pooled, x, ".masks");
        mask_predictor(net, x, task.classes);
    }
    vec![RpnLevel {
        stride: 16,
        sizes: ANCHORS.to_vec(),
        ratios: RATIOS.to_vec(),
    }]
}

/// Objectness and boxes of each level's anchors; the levels share the parameters.
fn rpn(net: &mut Net, maps: &[NodeId], anchors: usize) {
    let mut owners: Option<[NodeId; 3]> = None;
    for (i, &map) in maps.iter().enumerate() {
        let [score, delta] = match owners {
            None => {
                let channels = net.b.channels(map);
                let conv = Conv::new(channels, 3).bias();
                let hidden = net.conv(map, "rpn.head.conv.0.0", "rpn_head.rpn_feat.rpn_conv", conv);
                let x = net.b.act(hidden, Act::Relu);
                let mut last = |name: &str, paddle: &str, out: usize| {
                    net.conv(x, name, paddle, Conv::new(out, 1).bias())
                };
                let score = last("rpn.head.cls_logits", "rpn_head.rpn_rois_score", anchors);
                let delta = last("rpn.head.bbox_pred", "rpn_head.rpn_rois_delta", 4 * anchors);
                owners = Some([hidden, score, delta]);
                [score, delta]
            }
            Some([hidden, score, delta]) => {
                let x = net
                    .b
                    .shared(format!("rpn.head.conv.level{i}"), hidden, &[map]);
                let x = net.b.act(x, Act::Relu);
                let mut again = |name: &str, owner: NodeId| {
                    net.b
                        .shared(format!("rpn.head.{name}.level{i}"), owner, &[x])
                };
                [again("cls_logits", score), again("bbox_pred", delta)]
            }
        };
        net.b.output(&format!("rpn_score{i}"), score);
        net.b.output(&format!("rpn_delta{i}"), delta);
    }
}

fn roi_align(net: &mut Net, name: &str, rois: NodeId, maps: &[NodeId], size: usize) -> NodeId {
    let torch = net.origin == Origin::Torch;
    let align = Op::RoiAlign {
        size: [size; 2],
        sampling: if torch { 2 } else { 0 },
        strides: match maps {
            [_] => vec![16],
            _ => (0..maps.len()).map(|i| 4 << i).collect(),
        },
        aligned: !torch,
    };
    let inputs: Vec<NodeId> = [&[rois], maps].concat();
    net.b.op(name, align, &inputs)
}

fn box_predictor(net: &mut Net, x: NodeId, classes: usize) {
    let name = "roi_heads.box_predictor.score";
    let score = net.linear(x, name, "bbox_head.bbox_score", classes + 1, 1.0);
    let name = "roi_heads.box_predictor.delta";
    let delta = net.linear(x, name, "bbox_head.bbox_delta", 4 * classes, 1.0);
    net.b.output("box_score", score);
    net.b.output("box_delta", delta);
}

fn mask_predictor(net: &mut Net, x: NodeId, classes: usize) {
    let name = "roi_heads.mask_predictor.conv5_mask";
    let x = net.enlarge(x, name, "mask_head.head.upsample.conv5_mask", 256, 2);
    let x = net.b.act(x, Act::Relu);
    let conv = Conv::new(classes, 1).bias();
    let name = "roi_heads.mask_predictor.logits";
    let logits = net.conv(x, name, "mask_head.mask_fcn_logits", conv);
    net.b.output("mask", logits);
}
