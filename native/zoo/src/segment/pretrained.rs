//! Weights of ImageNet for the backbones of segmenters.

use std::collections::HashMap;

use super::{DEEPLAB_BACKBONES, canonical_segmenter, segmenter_of};
use crate::pretrained::{self, Part};
use crate::{Origin, ZooError};

/// What the parameters of a backbone's own file are called in the segmenter: stored name → name here. Known are
/// the names of PyTorch's and PaddleClas's classifier and those of PaddleSeg's backbone, which are the ones of
/// its segmenter without `backbone.`; what a file has beside them (its head) is not in the segmenter. Empty for
/// networks without a backbone.
///
/// # Errors
/// See [`segmenter_of`].
pub fn backbone_names(
    name: &str,
    backbone: Option<&str>,
    origin: Origin,
) -> Result<HashMap<String, String>, ZooError> {
    let (graph, paddle) = segmenter_of(name, backbone, 2, 3, origin)?;
    let part = Part {
        ours: "backbone.",
        theirs: "backbone.",
        only: [""; 2],
    };
    pretrained::backbone_names(&graph, &paddle, &[part], twin(&graph.name), origin)
}

/// The classifier that has the same layers as the backbone of this graph.
fn twin(graph: &str) -> Option<&'static str> {
    if let Some(hrnet @ ("HRNet_W18" | "HRNet_W48")) = canonical_segmenter(graph) {
        return Some(if hrnet == "HRNet_W18" {
            "HRNet_W18_C"
        } else {
            "HRNet_W48_C"
        });
    }
    let backbone = graph.strip_prefix("DeepLabV3P_")?;
    match *DEEPLAB_BACKBONES.iter().find(|b| **b == backbone)? {
        "ResNet50_vd" => Some("ResNet50_vd"),
        "ResNet101_vd" => Some("ResNet101_vd"),
        "MobileNetV2_x1.0" => Some("MobileNetV2"),
        "MobileNetV3_large_x1_0_ssld" => Some("MobileNetV3_large"),
        _ => None,
    }
}
