//! The segmentation networks: what PaddleX 2.x trains, with PaddleSeg's structure, and the further backbones of
//! DeepLabV3P that older builds name.
//!
//! Input N×C×H×W of any number of channels C; the first output, `logits`, N×classes×H×W; then the outputs of
//! auxiliary heads, `auxiliary1` …, of the same shape, with the weights of their losses in the graph
//! ([`oarlock_graph::Output::auxiliary`]).
//!
//! [`Origin::Paddle`] is PaddleX's network to the last value. [`Origin::Torch`] leaves out the biases before
//! batch norms and pads strided convolutions evenly, as PyTorch's networks do; all names are the same.

mod bisenet_v2;
mod deeplab;
mod fast_scnn;
mod hrnet;
mod pretrained;
mod unet;

pub use pretrained::backbone_names;

use oarlock_graph::{Act, Conv, Graph, NodeId};

use crate::net::{Names, Net, UNDERSCORED};
use crate::{Built, Origin, PaddleWeight, ZooError};

/// Every segmenter, in the order of the API's pages.
const SEGMENTERS: &[&str] = &[
    "DeepLabV3P",
    "BiSeNetV2",
    "UNet",
    "HRNet_W18",
    "FastSCNN",
    "HRNet_W48",
];

/// Other names of the same networks.
const ALIASES: &[(&str, &str)] = &[
    ("U-Net", "UNet"),
    ("DeepLabV3+", "DeepLabV3P"),
    ("HRNet", "HRNet_W18"),
];

/// Backbones of DeepLabV3P, the default first.
const DEEPLAB_BACKBONES: &[&str] = &[
    "ResNet50_vd",
    "ResNet101_vd",
    "Xception41",
    "Xception65",
    "MobileNetV2_x0.25",
    "MobileNetV2_x0.5",
    "MobileNetV2_x1.0",
    "MobileNetV2_x1.5",
    "MobileNetV2_x2.0",
    "MobileNetV3_large_x1_0_ssld",
];

const BACKBONE_ALIASES: &[(&str, &str)] = &[
    ("ResNet50_vd_ssld", "ResNet50_vd"),
    ("ResNet101_vd_ssld", "ResNet101_vd"),
    ("MobileNetV2", "MobileNetV2_x1.0"),
    ("MobileNetV2_x0_25", "MobileNetV2_x0.25"),
    ("MobileNetV2_x0_5", "MobileNetV2_x0.5"),
    ("MobileNetV2_x1_0", "MobileNetV2_x1.0"),
    ("MobileNetV2_x1_5", "MobileNetV2_x1.5"),
    ("MobileNetV2_x2_0", "MobileNetV2_x2.0"),
    ("MobileNetV3_large", "MobileNetV3_large_x1_0_ssld"),
    ("MobileNetV3_large_ssld", "MobileNetV3_large_x1_0_ssld"),
    ("MobileNetV3_large_x1_0", "MobileNetV3_large_x1_0_ssld"),
];

/// Names of all segmenters.
pub fn segmenter_names() -> &'static [&'static str] {
    SEGMENTERS
}

/// The listed name of a segmenter for a name or alias; letter case does not matter.
pub fn canonical_segmenter(name: &str) -> Option<&'static str> {
    listed(name, SEGMENTERS, ALIASES)
}

/// Backbones to choose from, the default first; empty where there is no choice (and for an unknown name).
pub fn segmenter_backbones(name: &str) -> &'static [&'static str] {
    match canonical_segmenter(name) {
        Some("DeepLabV3P") => DEEPLAB_BACKBONES,
        _ => &[],
    }
}

/// The listed name of a backbone of a segmenter for a name or alias; letter case does not matter.
pub fn canonical_backbone(segmenter: &str, backbone: &str) -> Option<&'static str> {
    listed(backbone, segmenter_backbones(segmenter), BACKBONE_ALIASES)
}

fn listed(
    name: &str,
    known: &'static [&'static str],
    aliases: &'static [(&'static str, &'static str)],
) -> Option<&'static str> {
    let name = name.trim();
    let alias = aliases.iter().find(|a| a.0.eq_ignore_ascii_case(name));
    let name = alias.map_or(name, |a| a.1);
    known.iter().find(|k| k.eq_ignore_ascii_case(name)).copied()
}

/// The segmenter `name` (or an alias) for images of `channels` channels with `classes` classes. `backbone` is
/// the default one where it is `None` or empty; networks without a choice ignore it, as PaddleX does.
///
/// # Errors
/// An unknown name or backbone, no class, no channel.
pub fn segmenter(
    name: &str,
    backbone: Option<&str>,
    classes: usize,
    channels: usize,
) -> Result<Graph, ZooError> {
    Ok(segmenter_of(name, backbone, classes, channels, Origin::Torch)?.0)
}

/// Like [`segmenter`] in the version of `origin`, with the names that its parameters have in PaddleX 2.x
/// (parameters that PaddleX's version lacks are not listed).
///
/// # Errors
/// See [`segmenter`].
pub fn segmenter_of(
    name: &str,
    backbone: Option<&str>,
    classes: usize,
    channels: usize,
    origin: Origin,
) -> Result<(Graph, Vec<PaddleWeight>), ZooError> {
    let unknown = || ZooError::UnknownSegmenter {
        name: name.to_owned(),
    };
    let name = canonical_segmenter(name).ok_or_else(unknown)?;
    if classes == 0 {
        return Err(ZooError::NoClasses);
    }
    if channels == 0 {
        return Err(ZooError::NoChannels);
    }
    let backbones = segmenter_backbones(name);
    let backbone = match backbone.map(str::trim).filter(|b| !b.is_empty()) {
        Some(asked) if !backbones.is_empty() => Some(canonical_backbone(name, asked).ok_or_else(
            || ZooError::UnknownBackbone {
                name: name.to_owned(),
                backbone: asked.to_owned(),
            },
        )?),
        _ => backbones.first().copied(),
    };
    let task = Task {
        name: backbone.map_or(name.to_owned(), |b| format!("{name}_{b}")),
        classes,
        channels,
        origin,
    };
    Ok(build(name, backbone, &task)?)
}

fn build(name: &str, backbone: Option<&str>, task: &Task) -> Built {
    match (name, backbone) {
        ("DeepLabV3P", Some(backbone)) => deeplab::build(task, backbone),
        ("BiSeNetV2", _) => bisenet_v2::build(task),
        ("HRNet_W18", _) => hrnet::build(task, 18),
        ("HRNet_W48", _) => hrnet::build(task, 48),
        ("FastSCNN", _) => fast_scnn::build(task),
        _ => unet::build(task),
    }
}

/// What a segmenter is built for.
struct Task {
    name: String,
    classes: usize,
    channels: usize,
    origin: Origin,
}

impl Task {
    /// An empty network and its image input.
    fn net(&self) -> (Net, NodeId) {
        Net::with_channels(&self.name, self.channels, self.origin, UNDERSCORED)
    }
}

/// A convolution as PaddleSeg's `ConvBNReLU` with its bias.
fn unit_act(net: &mut Net, x: NodeId, ours: &str, paddle: &str, conv: Conv) -> NodeId {
    let conv = net.biased(conv);
    net.unit_act(x, &Names::pair(ours, paddle), conv, Act::Relu)
}

/// A depthwise convolution and a 1×1 one, each with a batch norm, and an activation at the end: PaddleSeg's
/// `SeparableConvBNReLU` (whose second half is indeed called so).
fn separable(
    net: &mut Net,
    x: NodeId,
    ours: &str,
    paddle: &str,
    depthwise: Conv,
    out: usize,
) -> NodeId {
    let names = Names::pair(
        &format!("{ours}.depthwise"),
        format!("{paddle}.depthwise_conv"),
    );
    let depthwise = net.biased(depthwise);
    let x = net.unit(x, &names, depthwise);
    let (ours, paddle) = (
        format!("{ours}.pointwise"),
        format!("{paddle}.piontwise_conv"),
    );
    unit_act(net, x, &ours, &paddle, Conv::new(out, 1))
}
