//! Weights of ImageNet for the backbones of detectors, and what of them PaddleX never trains.

use std::collections::HashMap;

use oarlock_graph::{Graph, Head};

use super::detector_of;
use crate::pretrained::{Part, backbone_names};
use crate::{Origin, ZooError};

/// What the parameters of a backbone's own file are called in the detector: stored name → name here. Known are the names
/// of PyTorch's and PaddleClas's classifier and those of PaddleDetection's backbone; without a pyramid the last stage
/// of a ResNet becomes the head of boxes, as in PaddleX. What a file has beside them is not in the detector.
///
/// # Errors
/// See [`detector_of`].
pub fn detector_backbone_names(
    name: &str,
    backbone: Option<&str>,
    with_fpn: bool,
    origin: Origin,
) -> Result<HashMap<String, String>, ZooError> {
    let (graph, paddle) = detector_of(name, backbone, with_fpn, 2, origin)?;
    let two_stage = matches!(graph.head, Some(Head::TwoStage(_)));
    let mut parts = vec![Part {
        ours: if two_stage {
            "backbone.body."
        } else {
            "backbone."
        },
        theirs: "backbone.",
        only: [""; 2],
    }];
    if two_stage {
        parts.push(Part {
            ours: "roi_heads.box_head.",
            theirs: "bbox_head.head.",
            only: ["layer4.", "res5."],
        });
    }
    let twin = graph
        .name
        .split_once('_')
        .and_then(|(_, backbone)| twin(backbone));
    backbone_names(&graph, &paddle, &parts, twin.as_deref(), origin)
}

/// The classifier that has the same layers as a backbone; their widths may differ.
fn twin(backbone: &str) -> Option<String> {
    let base = backbone.trim_end_matches("_ssld").trim_end_matches("_dcn");
    match base {
        "MobileNetV3" => Some("MobileNetV3_large".to_owned()),
        "LCNet" => Some("PPLCNet".to_owned()),
        "HRNet_W18" => Some("HRNet_W18_C".to_owned()),
        _ if base.starts_with("ESNet") => None,
        _ => Some(base.to_owned()),
    }
}

/// What the names of those layers begin with that PaddleX leaves as they are when it trains this network on pretrained
/// weights: of two-stage detectors the first layers of a ResNet and its first stage (`freeze_at` 0).
pub fn frozen_layers(graph: &Graph) -> &'static [&'static str] {
    let resnet = graph.name.contains("_ResNet");
    match graph.head {
        Some(Head::TwoStage(_)) if resnet => &[
            "backbone.body.conv1",
            "backbone.body.bn1",
            "backbone.body.layer1.",
        ],
        _ => &[],
    }
}
