//! Training parameters of each task family; names and meanings are those of `params.md` section 3.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::TaskType;

/// Learning-rate schedule after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub enum LrPolicy {
    /// ×0.1 at each epoch of `lr_decay_epochs`.
    Piecewise,
    /// Linear to 0.
    Linear,
    /// Half a cosine to 0.
    Cosine,
    /// (1 − t)^0.9 to 0.
    Polynomial,
}

/// A task family with its training parameters. What all families have is reached as a field
/// (`params.batch_size`).
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
#[serde(tag = "task_type", rename_all = "snake_case")]
pub enum TrainParams {
    /// One label per image.
    Classification(ClassificationParams),
    /// One label per pixel.
    Segmentation(SegmentationParams),
    /// Boxes.
    Detection(DetectionParams),
    /// Boxes and masks.
    InstanceSegmentation(DetectionParams),
}

impl TrainParams {
    /// The family.
    pub fn task_type(&self) -> TaskType {
        match self {
            Self::Classification(_) => TaskType::Classification,
            Self::Segmentation(_) => TaskType::Segmentation,
            Self::Detection(_) => TaskType::Detection,
            Self::InstanceSegmentation(_) => TaskType::InstanceSegmentation,
        }
    }
}

impl Deref for TrainParams {
    type Target = CommonParams;

    fn deref(&self) -> &CommonParams {
        match self {
            Self::Classification(p) => &p.common,
            Self::Segmentation(p) => &p.common,
            Self::Detection(p) | Self::InstanceSegmentation(p) => &p.common,
        }
    }
}

impl DerefMut for TrainParams {
    fn deref_mut(&mut self) -> &mut CommonParams {
        match self {
            Self::Classification(p) => &mut p.common,
            Self::Segmentation(p) => &mut p.common,
            Self::Detection(p) | Self::InstanceSegmentation(p) => &mut p.common,
        }
    }
}

/// What every family is trained with; unknown keys are ignored.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
#[allow(missing_docs)] // the names are the contract's
pub struct CommonParams {
    pub model: String,
    pub batch_size: u32,
    pub num_epochs: u32,
    pub learning_rate: f64,
    pub lr_policy: LrPolicy,
    pub lr_decay_epochs: Vec<u32>,
    pub warmup_steps: u32,
    pub warmup_start_lr: f64,
    pub save_interval_epochs: u32,
    /// `SGD` (momentum 0.9) or `Adam`.
    pub optimizer: String,
    pub weight_decay: f64,
    /// [h, w] of the network's input.
    pub image_shape: [u32; 2],
    /// Stop after this many evaluations without a better primary metric; 0 = never.
    pub early_stop_patience: u32,
    #[ts(type = "number")]
    pub seed: u64,
}

/// Flips, rotation and colour changes, each with its own probability.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
#[allow(missing_docs)] // the names are the contract's
pub struct AugmentParams {
    pub horizontal_flip: bool,
    pub horizontal_flip_prob: f32,
    pub vertical_flip: bool,
    pub vertical_flip_prob: f32,
    pub brightness: bool,
    pub brightness_range: f32,
    pub brightness_prob: f32,
    pub contrast: bool,
    pub contrast_range: f32,
    pub contrast_prob: f32,
    pub saturation: bool,
    pub saturation_range: f32,
    pub saturation_prob: f32,
    pub hue: bool,
    /// Degrees.
    pub hue_range: f32,
    pub hue_prob: f32,
    pub rotate: bool,
    pub rotate_prob: f32,
    /// Degrees.
    pub rotate_range: f32,
}

/// Training parameters of a classifier.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
#[allow(missing_docs)] // the names are the contract's
pub struct ClassificationParams {
    /// The first value of `image_shape` is the crop size.
    #[serde(flatten)]
    pub common: CommonParams,
    #[serde(flatten)]
    pub augment: AugmentParams,
    pub label_smoothing: f64,
    pub image_mean: [f32; 3],
    pub image_std: [f32; 3],
    /// Oversample rare classes so that each class is drawn equally often.
    pub class_balance: bool,
}

/// Training parameters of a segmenter.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
#[allow(missing_docs)] // the names are the contract's
pub struct SegmentationParams {
    /// Pictures are resized to exactly `image_shape`.
    #[serde(flatten)]
    pub common: CommonParams,
    #[serde(flatten)]
    pub augment: AugmentParams,
    /// Backbone of DeepLabV3P; `None` for networks without a choice.
    pub backbone: Option<String>,
    /// Losses that are added. `loss_type` [false, false] is cross-entropy alone; [dice, ce] adds those that are true.
    pub losses: Vec<LossTerm>,
    /// Weight of each class in cross-entropy, in id order; empty = all 1.
    pub class_weights: Vec<f32>,
    /// Mean of each channel after the values were brought to 0–1 by `min_val` and `max_val`. Its length is the number of
    /// channels.
    pub image_mean: Vec<f32>,
    /// Standard deviation of each channel, likewise.
    pub image_std: Vec<f32>,
    /// Value of each channel that becomes 0; lower ones are clipped. Empty = 0.
    pub min_val: Vec<f32>,
    /// Value of each channel that becomes 1; higher ones are clipped. Empty = 255.
    pub max_val: Vec<f32>,
    pub blur: bool,
    pub blur_prob: f32,
    pub scale_aspect: bool,
    pub min_ratio: f32,
    pub aspect_ratio: f32,
}

/// Training parameters of a detector, with masks or without.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
#[allow(missing_docs)] // the names are the contract's
pub struct DetectionParams {
    /// `image_shape`: side of the square input (one-stage detectors), short side and cap of the long side (two-stage ones).
    #[serde(flatten)]
    pub common: CommonParams,
    #[serde(flatten)]
    pub augment: AugmentParams,
    pub backbone: Option<String>,
    /// Two-stage detectors: a feature pyramid.
    pub with_fpn: bool,
    pub use_mixup: bool,
    pub mixup_alpha: f32,
    pub mixup_beta: f32,
    pub expand_image: bool,
    pub expand_prob: f32,
    pub crop_image: bool,
    /// Another square input size for each batch, one of `random_shape_sizes`.
    pub random_shape: bool,
    pub random_shape_sizes: Vec<u32>,
    pub image_mean: [f32; 3],
    pub image_std: [f32; 3],
    /// Decay of an exponential moving average of the weights, which is what is evaluated and saved; 0 = none.
    pub ema_decay: f64,
}

/// One of the losses of a segmenter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct LossTerm {
    /// Which.
    pub kind: LossKind,
    /// Its factor, above 0.
    pub weight: f64,
}

/// Losses per pixel or region; pixels labelled 255 count in none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Softmax cross-entropy.
    CrossEntropy,
    /// One minus the mean Dice coefficient of the classes.
    Dice,
    /// Lovász-softmax: a convex surrogate of one minus mean IoU.
    Lovasz,
    /// Sigmoid cross-entropy of each class against the rest.
    Bce,
}
