//! The classification and segmentation networks, each a function that builds a graph.
//!
//! # How to add a network
//! 1. One file per family. Its `build` takes the model's name, what varies within the family, the
//!    [`Origin`] and the number of classes, and appends layers to a `Net` (see `net.rs`).
//! 2. Name layers as torchvision does where it has the network (then its `.pth` files load by name),
//!    else as the best-known PyTorch implementation does; give each layer PaddleClas's name beside it.
//! 3. Where PaddleClas's network differs in structure, branch on `net.origin`.
//! 4. Add the model's name to `CLASSIFIERS` and its call to `build` below; segmenters: `segment/mod.rs`.
//! 5. Add a row with the published parameter count and multiply–accumulates, and their source, to
//!    `tests/published.rs`. Shapes, pruning, export and everything else are tested from the list of names.

mod alexnet;
mod darknet;
mod densenet;
mod detect;
mod hrnet;
mod mobilenet_v1;
mod mobilenet_v2;
mod mobilenet_v3;
mod net;
mod pplcnet;
mod pretrained;
mod resnet;
mod segment;
mod shufflenet_v2;
mod size;
mod xception;
mod xception_deeplab;

pub use detect::{
    HeadSettings, MASK_DETECTOR, canonical_detector, detector_backbone_names, detector_backbones,
    detector_names, detector_of, frozen_layers,
};
pub use segment::{
    backbone_names, canonical_backbone, canonical_segmenter, segmenter, segmenter_backbones,
    segmenter_names, segmenter_of,
};
pub use size::{InputSize, input_size};

use oarlock_graph::{Act, Graph, GraphError};

/// What a family's builder returns.
type Built<E = GraphError> = Result<(Graph, Vec<PaddleWeight>), E>;

/// Whose version of a network to build. They differ for ResNet18 and 34, MobileNetV2 and V3, HRNet and the
/// segmenters; the file that describes the family says how. All parameters that both have carry the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// torchvision's (or timm's): for `.pth` and safetensors weights, and for training from scratch.
    #[default]
    Torch,
    /// PaddleClas's or PaddleSeg's, which PaddleX trains: for `.pdparams` weights.
    Paddle,
}

/// Where a parameter stands in a `.pdparams` file of PaddleClas or PaddleX 2.x (structured names of
/// `state_dict()`), and how to take it over: `ours = theirs (transposed) · scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct PaddleWeight {
    /// Full name in our graph.
    pub name: String,
    /// Key in the file.
    pub paddle_name: String,
    /// Paddle stores linear weights as `[in, out]`.
    pub transposed: bool,
    /// Factor; other than 1 where Paddle's dropout scales at inference time.
    pub scale: f32,
}

/// A network that cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ZooError {
    /// No such classifier.
    #[error("there is no classification model `{name}`; known are {}", classifier_names().join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// Too few classes.
    #[error("a network needs at least one class")]
    NoClasses,
    /// No such segmenter.
    #[error("there is no segmentation model `{name}`; known are {}", segmenter_names().join(", "))]
    UnknownSegmenter {
        /// What was asked for.
        name: String,
    },
    /// No such backbone.
    #[error("`{name}` has no backbone `{backbone}`; known are {}", segmenter_backbones(name).join(", "))]
    UnknownBackbone {
        /// The segmenter.
        name: String,
        /// What was asked for.
        backbone: String,
    },
    /// No such detector.
    #[error("there is no detection model `{name}`; known are {}", detector_names().join(", "))]
    UnknownDetector {
        /// What was asked for.
        name: String,
    },
    /// No such backbone.
    #[error("`{name}` has no backbone `{backbone}`; known are {}", detector_backbones(name).join(", "))]
    UnknownDetectorBackbone {
        /// The detector.
        name: String,
        /// What was asked for.
        backbone: String,
    },
    /// Images without channels.
    #[error("a network needs at least one input channel")]
    NoChannels,
    /// The family's builder made a mistake.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Every classifier that the PaddleX API offers, in the order of its pages.
const CLASSIFIERS: &[&str] = &[
    "MobileNetV2",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet50_vd",
    "ResNet101_vd",
    "ResNet50_vd_ssld",
    "ResNet101_vd_ssld",
    "DarkNet53",
    "MobileNetV1",
    "MobileNetV3_small",
    "MobileNetV3_large",
    "MobileNetV3_small_ssld",
    "MobileNetV3_large_ssld",
    "Xception41",
    "Xception65",
    "DenseNet121",
    "DenseNet161",
    "DenseNet201",
    "ShuffleNetV2",
    "ResNet152",
    "ResNet18_vd",
    "ResNet34_vd",
    "ResNet152_vd",
    "ResNet200_vd",
    "AlexNet",
    "DenseNet169",
    "DenseNet264",
    "HRNet_W18_C",
    "HRNet_W30_C",
    "HRNet_W32_C",
    "HRNet_W40_C",
    "HRNet_W44_C",
    "HRNet_W48_C",
    "HRNet_W64_C",
    "Xception71",
    "ShuffleNetV2_swish",
    "PPLCNet",
    "PPLCNet_ssld",
];

/// Other names of the same models.
const ALIASES: &[(&str, &str)] = &[
    ("MobileNetV3_small_x1_0", "MobileNetV3_small"),
    ("MobileNetV3_large_x1_0", "MobileNetV3_large"),
    ("MobileNetV3_small_x1_0_ssld", "MobileNetV3_small_ssld"),
    ("MobileNetV3_large_x1_0_ssld", "MobileNetV3_large_ssld"),
    ("ShuffleNetV2_x1_0", "ShuffleNetV2"),
    ("PPLCNet_x1_0", "PPLCNet"),
    ("PPLCNet_x1_0_ssld", "PPLCNet_ssld"),
];

/// Names of all classifiers. A name with `_ssld` is the network without it; it only has other
/// pretrained weights.
pub fn classifier_names() -> &'static [&'static str] {
    CLASSIFIERS
}

/// The listed name for a name or alias; letter case does not matter.
pub fn canonical_name(name: &str) -> Option<&'static str> {
    let name = ALIASES
        .iter()
        .find(|(alias, _)| alias.eq_ignore_ascii_case(name))
        .map_or(name, |a| a.1);
    CLASSIFIERS
        .iter()
        .find(|known| known.eq_ignore_ascii_case(name))
        .copied()
}

/// The classifier `name` (or an alias) with `classes` outputs, torchvision's version of it.
///
/// Input N×3×H×W; one output, `logits`, N×classes.
///
/// # Errors
/// An unknown name, or no class.
pub fn classifier(name: &str, classes: usize) -> Result<Graph, ZooError> {
    Ok(classifier_of(name, classes, Origin::Torch)?.0)
}

/// Like [`classifier`] in the version of `origin`, with the names that its parameters have in
/// PaddleClas (parameters that PaddleClas's version lacks are not listed).
///
/// # Errors
/// See [`classifier`].
pub fn classifier_of(
    name: &str,
    classes: usize,
    origin: Origin,
) -> Result<(Graph, Vec<PaddleWeight>), ZooError> {
    let name = canonical_name(name).ok_or_else(|| ZooError::Unknown {
        name: name.to_owned(),
    })?;
    if classes == 0 {
        return Err(ZooError::NoClasses);
    }
    Ok(build(name, classes, origin)?)
}

/// What a parameter of a published PyTorch file is called here, where it is not called the same: torchvision's DenseNet
/// files still say `denselayer1.norm.1.weight` for `denselayer1.norm1.weight`, and those of its detectors
/// `backbone.fpn.inner_blocks.0.weight`, `rpn.head.conv.weight` and `roi_heads.mask_head.mask_fcn1.weight` where newer
/// versions have a convolution within a block. `None` means that the name is right as it is.
pub fn rename_torch(name: &str) -> Option<String> {
    rename_dense(name).or_else(|| rename_detector(name))
}

fn rename_dense(name: &str) -> Option<String> {
    if !name.contains("denselayer") {
        return None;
    }
    ["norm", "conv"].into_iter().find_map(|layer| {
        let (before, after) = name.split_once(&format!(".{layer}."))?;
        let number = after.starts_with(['1', '2']) && after[1..].starts_with('.');
        number.then(|| format!("{before}.{layer}{after}"))
    })
}

fn rename_detector(name: &str) -> Option<String> {
    let (module, suffix) = name.rsplit_once('.')?;
    if !matches!(suffix, "weight" | "bias") {
        return None;
    }
    if module == "rpn.head.conv" {
        return Some(format!("rpn.head.conv.0.0.{suffix}"));
    }
    if let Some(number) = module.strip_prefix("roi_heads.mask_head.mask_fcn") {
        let number: usize = number.parse().ok()?;
        return Some(format!(
            "roi_heads.mask_head.{}.0.{suffix}",
            number.checked_sub(1)?
        ));
    }
    let pyramid = ["backbone.fpn.inner_blocks.", "backbone.fpn.layer_blocks."];
    let number = pyramid.iter().find_map(|p| module.strip_prefix(p))?;
    number.parse::<usize>().ok()?;
    Some(format!("{module}.0.{suffix}"))
}

fn build(name: &str, classes: usize, origin: Origin) -> Built {
    let base = name.strip_suffix("_ssld").unwrap_or(name);
    match base {
        "AlexNet" => alexnet::build(name, origin, classes),
        "DarkNet53" => darknet::build(name, origin, classes),
        "DenseNet121" => densenet::build(name, 121, origin, classes),
        "DenseNet161" => densenet::build(name, 161, origin, classes),
        "DenseNet169" => densenet::build(name, 169, origin, classes),
        "DenseNet201" => densenet::build(name, 201, origin, classes),
        "DenseNet264" => densenet::build(name, 264, origin, classes),
        "HRNet_W18_C" => hrnet::build(name, 18, origin, classes),
        "HRNet_W30_C" => hrnet::build(name, 30, origin, classes),
        "HRNet_W32_C" => hrnet::build(name, 32, origin, classes),
        "HRNet_W40_C" => hrnet::build(name, 40, origin, classes),
        "HRNet_W44_C" => hrnet::build(name, 44, origin, classes),
        "HRNet_W48_C" => hrnet::build(name, 48, origin, classes),
        "HRNet_W64_C" => hrnet::build(name, 64, origin, classes),
        "MobileNetV1" => mobilenet_v1::build(name, origin, classes),
        "MobileNetV2" => mobilenet_v2::build(name, origin, classes),
        "MobileNetV3_small" => mobilenet_v3::build(name, false, origin, classes),
        "MobileNetV3_large" => mobilenet_v3::build(name, true, origin, classes),
        "PPLCNet" => pplcnet::build(name, origin, classes),
        "ResNet18" => resnet::build(name, 18, false, origin, classes),
        "ResNet34" => resnet::build(name, 34, false, origin, classes),
        "ResNet50" => resnet::build(name, 50, false, origin, classes),
        "ResNet101" => resnet::build(name, 101, false, origin, classes),
        "ResNet152" => resnet::build(name, 152, false, origin, classes),
        "ResNet18_vd" => resnet::build(name, 18, true, origin, classes),
        "ResNet34_vd" => resnet::build(name, 34, true, origin, classes),
        "ResNet50_vd" => resnet::build(name, 50, true, origin, classes),
        "ResNet101_vd" => resnet::build(name, 101, true, origin, classes),
        "ResNet152_vd" => resnet::build(name, 152, true, origin, classes),
        "ResNet200_vd" => resnet::build(name, 200, true, origin, classes),
        "ShuffleNetV2" => shufflenet_v2::build(name, Act::Relu, origin, classes),
        "ShuffleNetV2_swish" => shufflenet_v2::build(name, Act::Swish, origin, classes),
        "Xception41" => xception::build(name, 41, origin, classes),
        "Xception65" => xception::build(name, 65, origin, classes),
        "Xception71" => xception::build(name, 71, origin, classes),
        _ => Err(GraphError::Graph {
            graph: name.to_owned(),
            reason: "the list of classifiers names it but nothing builds it".to_owned(),
        }),
    }
}
