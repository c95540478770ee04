//! The detection networks: what PaddleX 2.x trains, with PaddleDetection's structure.
//!
//! Input N×3×H×W; the outputs are those that [`oarlock_graph::Head`] describes, which every graph carries.

mod backbones;
mod esnet;
mod pico_det;
mod pp_yolo;
mod pp_yolo_v2;
mod pretrained;
mod pyramid;
mod settings;
mod two_stage;
mod yolo;
mod yolo_v3;

use oarlock_graph::GraphError;

pub use pretrained::{detector_backbone_names, frozen_layers};
pub use settings::HeadSettings;

use crate::{Built, Origin, ZooError};

/// Detectors and their backbones, the default first.
const DETECTORS: &[(&str, &[&str])] = &[
    (
        "YOLOv3",
        &[
            "MobileNetV1",
            "MobileNetV1_ssld",
            "MobileNetV3",
            "MobileNetV3_ssld",
            "DarkNet53",
            "ResNet50_vd_dcn",
            "ResNet34",
        ],
    ),
    (
        "PPYOLO",
        &[
            "ResNet50_vd_dcn",
            "ResNet18_vd",
            "MobileNetV3_large",
            "MobileNetV3_small",
        ],
    ),
    ("PPYOLOTiny", &["MobileNetV3"]),
    ("PPYOLOv2", &["ResNet50_vd_dcn", "ResNet101_vd_dcn"]),
    (
        "PicoDet",
        &[
            "ESNet_m",
            "ESNet_s",
            "ESNet_l",
            "LCNet",
            "MobileNetV3",
            "ResNet18_vd",
        ],
    ),
    (
        "FasterRCNN",
        &[
            "ResNet50",
            "ResNet50_vd",
            "ResNet50_vd_ssld",
            "ResNet34",
            "ResNet34_vd",
            "ResNet101",
            "ResNet101_vd",
            "HRNet_W18",
            "ResNet18",
        ],
    ),
    (
        "MaskRCNN",
        &[
            "ResNet50",
            "ResNet50_vd",
            "ResNet50_vd_ssld",
            "ResNet101",
            "ResNet101_vd",
            "ResNet18",
        ],
    ),
];

/// The detector that predicts masks.
pub const MASK_DETECTOR: &str = "MaskRCNN";

/// Names of all detectors.
pub fn detector_names() -> Vec<&'static str> {
    DETECTORS.iter().map(|d| d.0).collect()
}

/// The listed name of a detector; letter case does not matter.
pub fn canonical_detector(name: &str) -> Option<&'static str> {
    listed(name).map(|d| d.0)
}

/// Backbones to choose from, the default first; empty for an unknown name.
pub fn detector_backbones(name: &str) -> &'static [&'static str] {
    listed(name).map_or(&[], |d| d.1)
}

fn listed(name: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    let name = name.trim();
    DETECTORS.iter().find(|d| d.0.eq_ignore_ascii_case(name))
}

/// What a detector is built for.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// `<detector>_<backbone>`.
    pub name: String,
    pub backbone: &'static str,
    pub with_fpn: bool,
    pub classes: usize,
    pub origin: Origin,
}

/// The detector `name` with `classes` classes. `backbone` is the default one where it is `None` or empty;
/// `with_fpn` matters to two-stage detectors, of which only those with ResNet50 and ResNet50_vd can do without.
/// With the names that its parameters have in PaddleX 2.x.
///
/// # Errors
/// An unknown name or backbone, no class.
pub fn detector_of(
    name: &str,
    backbone: Option<&str>,
    with_fpn: bool,
    classes: usize,
    origin: Origin,
) -> Built<ZooError> {
    let unknown = || ZooError::UnknownDetector {
        name: name.to_owned(),
    };
    let &(name, backbones) = listed(name).ok_or_else(unknown)?;
    if classes == 0 {
        return Err(ZooError::NoClasses);
    }
    let asked = backbone.map(str::trim).filter(|b| !b.is_empty());
    let asked = asked.unwrap_or(backbones[0]);
    let backbone = *backbones
        .iter()
        .find(|b| b.eq_ignore_ascii_case(asked))
        .ok_or_else(|| ZooError::UnknownDetectorBackbone {
            name: name.to_owned(),
            backbone: asked.to_owned(),
        })?;
    let task = Task {
        name: format!("{name}_{backbone}"),
        backbone,
        with_fpn,
        classes,
        origin,
    };
    Ok(build(name, &task)?)
}

fn build(name: &str, task: &Task) -> Built {
    match name {
        "YOLOv3" => yolo_v3::build(task),
        "PPYOLO" => pp_yolo::build(task),
        "PPYOLOTiny" => pp_yolo::build_tiny(task),
        "PPYOLOv2" => pp_yolo_v2::build(task),
        "PicoDet" => pico_det::build(task),
        "FasterRCNN" => two_stage::build(task, false),
        "MaskRCNN" => two_stage::build(task, true),
        _ => Err(GraphError::Graph {
            graph: task.name.clone(),
            reason: format!("{name} is not built yet"),
        }),
    }
}
