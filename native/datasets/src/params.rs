//! The transforms that a task's parameters ask for.

use oarlock_imaging::Interpolation;
use oarlock_imaging::transform::{BoxCrop, Distort, Jitter, ResizeByShort, ScaleAspect};

use crate::{DetectPipeline, DetectTrain, Fit, SegmentPipeline, SegmentTrain};

/// A switch with the strength and the chance that belong to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Switch {
    /// Whether it is used at all.
    pub on: bool,
    /// Strength: a factor's range, or degrees.
    pub range: f32,
    /// Chance for one image, 0–1.
    pub prob: f32,
}

impl Switch {
    /// On with this strength and chance.
    pub fn on(range: f32, prob: f32) -> Self {
        let on = true;
        Self { on, range, prob }
    }

    /// The same, switched off.
    #[must_use]
    pub fn off(mut self) -> Self {
        self.on = false;
        self
    }

    /// Chance, 0 when switched off.
    pub fn chance(&self) -> f32 {
        if self.on { self.prob } else { 0.0 }
    }

    /// Strength and chance, `None` when switched off.
    pub fn jitter(&self) -> Option<Jitter> {
        let Self { on, range, prob } = *self;
        on.then_some(Jitter { range, prob })
    }
}

/// Changes that segmentation and detection share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CommonAugment {
    /// Left-right flip; the range has no meaning.
    pub horizontal_flip: Switch,
    /// Factor 1 ± range.
    pub brightness: Switch,
    /// Factor 1 ± range.
    pub contrast: Switch,
    /// Factor 1 ± range.
    pub saturation: Switch,
    /// ± degrees.
    pub hue: Switch,
}

impl CommonAugment {
    fn with_colours(brightness_contrast: bool, saturation_hue: bool) -> Self {
        let switch = |on, range| Switch {
            on,
            range,
            prob: 0.5,
        };
        Self {
            horizontal_flip: switch(true, 0.0),
            brightness: switch(brightness_contrast, 0.5),
            contrast: switch(brightness_contrast, 0.5),
            saturation: switch(saturation_hue, 0.5),
            hue: switch(saturation_hue, 18.0),
        }
    }

    fn distort(&self) -> Distort {
        Distort {
            brightness: self.brightness.jitter(),
            contrast: self.contrast.jitter(),
            saturation: self.saturation.jitter(),
            hue: self.hue.jitter(),
        }
    }
}

/// Colour of padding: the mean that normalisation takes away (0–1, RGB).
fn padding(mean: [f32; 3]) -> [u8; 3] {
    mean.map(|m| (m * 255.0).round().clamp(0.0, 255.0) as u8)
}

/// Parameters of a segmentation task that concern its inputs; the defaults are PaddleX's.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentationParams {
    /// Height and width of the inputs.
    pub image_shape: [usize; 2],
    /// Mean of the normalisation: the colour of padding.
    pub image_mean: [f32; 3],
    /// Flip and colours.
    pub common: CommonAugment,
    /// Upside-down flip; the range has no meaning.
    pub vertical_flip: Switch,
    /// Gaussian blur; the range has no meaning.
    pub blur: Switch,
    /// ± degrees.
    pub rotate: Switch,
    /// Random crop of at least `min_ratio` of the area and an aspect from `aspect_ratio` to its inverse.
    pub scale_aspect: bool,
    /// Smallest share of the area.
    pub min_ratio: f32,
    /// Narrowest aspect.
    pub aspect_ratio: f32,
}

impl Default for SegmentationParams {
    fn default() -> Self {
        Self {
            image_shape: [512, 512],
            image_mean: [0.5; 3],
            common: CommonAugment::with_colours(false, false),
            vertical_flip: Switch::on(0.0, 0.5).off(),
            blur: Switch::on(0.0, 0.1).off(),
            rotate: Switch::on(15.0, 0.5).off(),
            scale_aspect: false,
            min_ratio: 0.5,
            aspect_ratio: 0.33,
        }
    }
}

impl SegmentPipeline {
    /// Training: resize, blur, scale-aspect crop, colours, flips.
    pub fn train(params: &SegmentationParams) -> Self {
        let [height, width] = params.image_shape;
        Self::Train(SegmentTrain {
            scale_aspect: params.scale_aspect.then_some(ScaleAspect {
                min_ratio: params.min_ratio,
                aspect: params.aspect_ratio,
            }),
            blur: params.blur.chance(),
            horizontal_flip: params.common.horizontal_flip.chance(),
            vertical_flip: params.vertical_flip.chance(),
            rotate: params.rotate.jitter(),
            fill: padding(params.image_mean),
            ..SegmentTrain::resized(height, width, params.common.distort())
        })
    }

    /// Validation: resize; the target holds the label map as stored when `keep_maps`.
    pub fn eval(params: &SegmentationParams, keep_maps: bool) -> Self {
        let [height, width] = params.image_shape;
        let size = (height, width);
        Self::Eval { size, keep_maps }
    }
}

/// Kinds of detectors, by how they take their inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetectFamily {
    /// YOLOv3, PPYOLO, PPYOLOTiny, PPYOLOv2.
    Yolo,
    /// PicoDet.
    PicoDet,
    /// FasterRCNN, MaskRCNN.
    Rcnn,
}

/// Parameters of a detection or instance segmentation task that concern its inputs; the defaults are
/// PaddleX's.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectionParams {
    /// How inputs are made.
    pub family: DetectFamily,
    /// Square size by the first value; for RCNN the smaller is the short side, the larger the long
    /// side's cap.
    pub image_shape: [usize; 2],
    /// Mean of the normalisation: the colour around expanded pictures and of padding.
    pub image_mean: [f32; 3],
    /// Flip and colours.
    pub common: CommonAugment,
    /// α and β of mixup (YOLO), used in the first 25/27 of the epochs.
    pub mixup: Option<(f32, f32)>,
    /// Chance of a canvas of up to four times the sides (YOLO).
    pub expand: Option<f32>,
    /// Random crop (YOLO, PicoDet).
    pub crop: bool,
    /// Another square size for each batch (YOLO); none = always `image_shape`.
    pub random_sizes: Vec<usize>,
}

impl DetectionParams {
    /// The defaults of a family.
    pub fn of(family: DetectFamily) -> Self {
        let yolo = family == DetectFamily::Yolo;
        Self {
            family,
            image_shape: match family {
                DetectFamily::Yolo => [608, 608],
                DetectFamily::PicoDet => [320, 320],
                DetectFamily::Rcnn => [800, 1333],
            },
            image_mean: [0.485, 0.456, 0.406],
            common: CommonAugment::with_colours(yolo, yolo),
            mixup: yolo.then_some((1.5, 1.5)),
            expand: yolo.then_some(0.5),
            crop: family != DetectFamily::Rcnn,
            random_sizes: match family {
                DetectFamily::Yolo => (320..=608).step_by(32).collect(),
                _ => Vec::new(),
            },
        }
    }

    fn fit(&self, sizes: &[usize]) -> Fit {
        let [a, b] = self.image_shape;
        match self.family {
            DetectFamily::Rcnn => Fit::Short {
                resize: ResizeByShort {
                    short: a.min(b),
                    long_cap: Some(a.max(b)),
                    interpolation: Interpolation::Linear,
                },
                multiple: 32,
            },
            _ if sizes.is_empty() => Fit::Exact(vec![(a, a)]),
            _ => Fit::Exact(sizes.iter().map(|s| (*s, *s)).collect()),
        }
    }
}

impl DetectPipeline {
    /// Training in an epoch (from 1) of `num_epochs`.
    pub fn train(params: &DetectionParams, epoch: u64, num_epochs: u64) -> Self {
        let yolo = params.family == DetectFamily::Yolo;
        let rcnn = params.family == DetectFamily::Rcnn;
        let mixes = yolo && epoch.saturating_mul(27) <= num_epochs.saturating_mul(25);
        let sizes: &[usize] = if yolo { &params.random_sizes } else { &[] };
        Self::Train(DetectTrain {
            fit: params.fit(sizes),
            mixup: params.mixup.filter(|_| mixes),
            distort: params.common.distort(),
            expand: params.expand.filter(|_| yolo).map(|prob| (4.0, prob)),
            crop: (params.crop && !rcnn).then(BoxCrop::default),
            horizontal_flip: params.common.horizontal_flip.chance(),
            interpolations: if rcnn {
                vec![Interpolation::Linear]
            } else {
                Interpolation::CV2.to_vec()
            },
            fill: padding(params.image_mean),
        })
    }

    /// Validation.
    pub fn eval(params: &DetectionParams) -> Self {
        Self::Eval {
            fit: params.fit(&[]),
            interpolation: match params.family {
                DetectFamily::Rcnn => Interpolation::Linear,
                _ => Interpolation::Cubic,
            },
            fill: padding(params.image_mean),
        }
    }
}
