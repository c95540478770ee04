//! How the outputs of a detector become boxes. The description travels with the graph, so that a checkpoint alone
//! says how it is evaluated, applied, pruned and exported.

use serde::{Deserialize, Serialize};

/// What stands behind the last layers of a detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Head {
    /// Anchors on a grid: YOLOv3 and the PP-YOLO family.
    Yolo(YoloHead),
    /// One prediction for each pixel of a map, sides as distributions: PicoDet.
    Pico(PicoHead),
    /// Proposals, then a classification of each: Faster R-CNN and Mask R-CNN.
    TwoStage(TwoStageHead),
}

impl Head {
    /// Number of classes, without a background.
    pub fn classes(&self) -> usize {
        match self {
            Head::Yolo(head) => head.classes,
            Head::Pico(head) => head.classes,
            Head::TwoStage(head) => head.classes,
        }
    }

    /// How detections are chosen among all boxes.
    pub fn suppression(&self) -> &Suppression {
        match self {
            Head::Yolo(head) => &head.suppression,
            Head::Pico(head) => &head.suppression,
            Head::TwoStage(head) => &head.suppression,
        }
    }
}

/// How detections are chosen among all boxes of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Suppression {
    /// Greedy suppression within each class.
    Nms {
        /// Only greater scores count.
        score: f32,
        /// Overlap from which a box goes.
        overlap: f32,
        /// Surest boxes of each class that are looked at; `None` = all.
        candidates: Option<usize>,
        /// Most detections of an image.
        detections: usize,
    },
    /// Lower scores for overlapping boxes (Wang et al. 2020, "SOLOv2").
    Matrix {
        /// Only greater scores count.
        score: f32,
        /// Only greater lowered scores stay.
        post: f32,
        /// Factor of a Gaussian decay; `None` = linear.
        sigma: Option<f32>,
        /// Surest boxes of each class that are looked at; `None` = all.
        candidates: Option<usize>,
        /// Most detections of an image.
        detections: usize,
    },
}

impl Suppression {
    /// Only greater scores count.
    pub fn score(&self) -> f32 {
        match *self {
            Self::Nms { score, .. } | Self::Matrix { score, .. } => score,
        }
    }

    /// Surest boxes of each class that are looked at; `None` = all.
    pub fn candidates(&self) -> Option<usize> {
        match *self {
            Self::Nms { candidates, .. } | Self::Matrix { candidates, .. } => candidates,
        }
    }

    /// Most detections of an image.
    pub fn detections(&self) -> usize {
        match *self {
            Self::Nms { detections, .. } | Self::Matrix { detections, .. } => detections,
        }
    }
}

/// Outputs `yolo0`, `yolo1` …, one for each level, N×(A·(5 + classes))×h×w for A anchors: for each anchor x, y,
/// width, height, objectness, classes, all before any activation. With `iou_aware` A channels of predicted
/// overlaps stand before them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct YoloHead {
    /// Number of classes.
    pub classes: usize,
    /// In the order of the outputs, coarsest first.
    pub levels: Vec<YoloLevel>,
    /// Centres may leave their cell: σ(x)·s − (s − 1)/2 with this s (PP-YOLO 1.05, else 1).
    pub scale_xy: f32,
    /// Exponent of the predicted overlap in the objectness, where the network predicts it (0.4).
    pub iou_aware: Option<f32>,
    /// Boxes with a lower objectness are left out.
    pub objectness: f32,
    /// Choice among boxes.
    pub suppression: Suppression,
}

/// One map of a YOLO head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct YoloLevel {
    /// Pixels of the network's input for one of the map.
    pub stride: usize,
    /// Width and height of its anchors, pixels of the network's input.
    pub anchors: Vec<[f32; 2]>,
}

/// Outputs `score0`, `sides0`, `score1` …, for each level N×classes×h×w and N×(4·(`bins` + 1))×h×w: class scores
/// before the sigmoid; for left, top, right and bottom a distribution over distances 0…`bins` in strides, before the
/// softmax (Li et al. 2020, "Generalized Focal Loss").
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PicoHead {
    /// Number of classes.
    pub classes: usize,
    /// Pixels of the network's input for one of each map, rising.
    pub strides: Vec<usize>,
    /// Greatest distance in strides.
    pub bins: usize,
    /// Place of a pixel's point in its cell (0.5).
    pub offset: f32,
    /// Choice among boxes.
    pub suppression: Suppression,
}

/// Outputs, in this order: `rpn_score0`, `rpn_delta0`, `rpn_score1` … for each level, N×A×h×w and N×4A×h×w, before
/// the sigmoid; then, for K regions put into the [`crate::Op::Rois`] node `rois`: `box_score`, K×(classes + 1) before the
/// softmax, the background last, and `box_delta`, K×4·classes; with masks `mask`, M×classes×s×s before the sigmoid, for M regions
/// put into the node `mask_rois`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TwoStageHead {
    /// Number of classes.
    pub classes: usize,
    /// In the order of the outputs, finest first.
    pub levels: Vec<RpnLevel>,
    /// Proposals in training.
    pub train: Proposals,
    /// Proposals else.
    pub test: Proposals,
    /// Factors of box deltas (10, 10, 5, 5): a network's output is the delta times this.
    pub delta_weights: [f32; 4],
    /// Side of the masks (28); `None` without.
    pub mask_size: Option<usize>,
    /// Choice among boxes.
    pub suppression: Suppression,
}

/// Anchors of one level of a region proposal network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RpnLevel {
    /// Pixels of the network's input for one of the map.
    pub stride: usize,
    /// Sides of square anchors, pixels of the network's input.
    pub sizes: Vec<f32>,
    /// Height over width.
    pub ratios: Vec<f32>,
}

/// How proposals are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Proposals {
    /// Surest anchors of each level that are looked at.
    pub before: usize,
    /// Most proposals of an image, over all levels.
    pub after: usize,
    /// Overlap from which a box goes.
    pub overlap: f32,
    /// Boxes with a smaller side, pixels of the network's input, are left out.
    pub min_size: f32,
}
