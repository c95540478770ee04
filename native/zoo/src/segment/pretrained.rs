//! Weights of ImageNet for the backbones of segmenters.

use std::collections::HashMap;

use super::{DEEPLAB_BACKBONES, canonical_segmenter, segmenter_of};
use crate::{Origin, ZooError, classifier_of};

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
    let (graph, weights) = segmenter_of(name, backbone, 2, 3, origin)?;
    let mut names = HashMap::new();
    for weight in weights {
        if let Some(stored) = weight.paddle_name.strip_prefix("backbone.") {
            names.insert(stored.to_owned(), weight.name);
        }
    }
    let here: Vec<String> = graph.params().map(|(name, _)| name).collect();
    let here = here.iter().filter(|n| n.starts_with("backbone."));
    let here: HashMap<&str, &String> = here.map(|n| (&n["backbone.".len()..], n)).collect();
    for (&stored, &name) in &here {
        names.insert(stored.to_owned(), name.clone());
    }
    if let Some(classifier) = twin(&graph.name) {
        for weight in classifier_of(classifier, 2, origin)?.1 {
            if let Some(&name) = here.get(weight.name.as_str()) {
                names.insert(weight.paddle_name, name.clone());
            }
        }
    }
    Ok(names)
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
