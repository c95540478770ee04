//! Parameters of a detector's training: which are possible, and what they mean for the network's inputs.

use oarlock_datasets::{
    CommonAugment, DetectFamily, DetectPipeline, DetectionParams as Inputs, Fit, Switch,
};
use oarlock_imaging::Interpolation;
use oarlock_imaging::transform::ResizeByShort;
use oarlock_jobs::{AugmentParams, DetectionParams};

use super::super::plan::{check_normalisation, wrong};
use crate::records::{Preprocessing, Resize};
use crate::{EngineError, Result};

/// What the sides of a network's inputs are a multiple of.
const MULTIPLE: u32 = 32;

/// The listed name of the network, and how it takes its inputs.
///
/// # Errors
/// `InvalidArgument` for an unknown name, and for one that does not do what the task needs.
pub fn model(p: &DetectionParams, masks: bool) -> Result<(&'static str, DetectFamily)> {
    let name = &p.common.model;
    let Some(known) = oarlock_zoo::canonical_detector(name) else {
        let all = oarlock_zoo::detector_names().join(", ");
        return Err(wrong(
            "model",
            &format!("`{name}` is unknown; known are {all}"),
        ));
    };
    if (known == oarlock_zoo::MASK_DETECTOR) != masks {
        let needs = if masks { "masks" } else { "boxes only" };
        let what = format!("`{known}` does not fit the task, which needs {needs}");
        return Err(wrong("model", &what));
    }
    let family = match known {
        "FasterRCNN" | "MaskRCNN" => DetectFamily::Rcnn,
        "PicoDet" => DetectFamily::PicoDet,
        _ => DetectFamily::Yolo,
    };
    Ok((known, family))
}

/// # Errors
/// `InvalidArgument` naming the parameter.
pub fn check(p: &DetectionParams, family: DetectFamily) -> Result<()> {
    check_normalisation(&p.image_mean, &p.image_std)?;
    let [first, second] = p.common.image_shape;
    if family == DetectFamily::Rcnn {
        if first.min(second) < 2 * MULTIPLE {
            return Err(wrong("image_shape", "must be at least 64 on both sides"));
        }
    } else if !first.is_multiple_of(MULTIPLE) {
        let what = format!("must be a multiple of {MULTIPLE}, but is {first}");
        return Err(wrong("image_shape", &what));
    }
    if family == DetectFamily::Yolo && p.random_shape {
        let usable = |s: &u32| (MULTIPLE..=4096).contains(s) && s.is_multiple_of(MULTIPLE);
        if p.random_shape_sizes.is_empty() || !p.random_shape_sizes.iter().all(usable) {
            let what = format!("must be multiples of {MULTIPLE} up to 4096, at least one");
            return Err(wrong("random_shape_sizes", &what));
        }
    }
    let possible = |v: f32| v.is_finite() && v > 0.0;
    if p.use_mixup && !(possible(p.mixup_alpha) && possible(p.mixup_beta)) {
        return Err(wrong("mixup_alpha", "and mixup_beta must be above 0"));
    }
    if p.expand_image && !(0.0..=1.0).contains(&p.expand_prob) {
        return Err(wrong("expand_prob", "must lie between 0 and 1"));
    }
    if !(0.0..1.0).contains(&p.ema_decay) {
        return Err(wrong("ema_decay", "must be at least 0 and below 1"));
    }
    Ok(())
}

/// How pictures become inputs; what is not used is told in `notes`.
pub fn inputs(p: &DetectionParams, family: DetectFamily, notes: &mut Vec<String>) -> Inputs {
    let yolo = family == DetectFamily::Yolo;
    let [first, second] = p.common.image_shape;
    if family != DetectFamily::Rcnn && first != second {
        notes.push(format!(
            "image_shape {first}, {second}: this network takes squares, {first}×{first} is used"
        ));
    }
    Inputs {
        family,
        image_shape: p.common.image_shape.map(|s| s as usize),
        image_mean: p.image_mean,
        common: augment(&p.augment),
        mixup: (yolo && p.use_mixup).then_some((p.mixup_alpha, p.mixup_beta)),
        expand: (yolo && p.expand_image).then_some(p.expand_prob),
        crop: p.crop_image,
        random_sizes: if yolo && p.random_shape {
            p.random_shape_sizes.iter().map(|s| *s as usize).collect()
        } else {
            Vec::new()
        },
    }
}

fn augment(a: &AugmentParams) -> CommonAugment {
    let switch = |on, range, prob| Switch { on, range, prob };
    CommonAugment {
        horizontal_flip: switch(a.horizontal_flip, 0.0, a.horizontal_flip_prob),
        brightness: switch(a.brightness, a.brightness_range, a.brightness_prob),
        contrast: switch(a.contrast, a.contrast_range, a.contrast_prob),
        saturation: switch(a.saturation, a.saturation_range, a.saturation_prob),
        hue: switch(a.hue, a.hue_range, a.hue_prob),
    }
}

/// What a checkpoint says of its inputs.
pub fn preprocessing(p: &DetectionParams, family: DetectFamily) -> Preprocessing {
    let [first, second] = p.common.image_shape;
    Preprocessing {
        resize: match family {
            DetectFamily::Rcnn => Resize::Capped {
                short: first.min(second),
                long: first.max(second),
                multiple: MULTIPLE,
            },
            _ => Resize::Cubic {
                height: first,
                width: first,
            },
        },
        mean: p.image_mean.to_vec(),
        std: p.image_std.to_vec(),
        range: Vec::new(),
        image_size: None,
    }
}

/// How evaluation and prediction look at pictures.
///
/// # Errors
/// `Internal` for what is no detector's preprocessing.
pub fn eval_pipeline(how: &Preprocessing) -> Result<DetectPipeline> {
    let (fit, interpolation) = match how.resize {
        Resize::Cubic { height, width } => (
            Fit::Exact(vec![(height as usize, width as usize)]),
            Interpolation::Cubic,
        ),
        Resize::Capped {
            short,
            long,
            multiple,
        } => {
            let interpolation = Interpolation::Linear;
            let resize = ResizeByShort {
                short: short as usize,
                long_cap: Some(long as usize),
                interpolation,
            };
            let multiple = multiple.max(1) as usize;
            (Fit::Short { resize, multiple }, interpolation)
        }
        _ => return Err(EngineError::internal("no preprocessing of a detector")),
    };
    let colour = |c: usize| how.mean.get(c).map_or(0.0, |m| (m * 255.0).round());
    Ok(DetectPipeline::Eval {
        fit,
        interpolation,
        fill: [0, 1, 2].map(|c| colour(c) as u8),
    })
}
