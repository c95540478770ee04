//! What happens to an image between its file and the batch.

use oarlock_jobs::ClassificationParams;

/// A random colour or geometry change: on or off, its strength and its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter {
    /// Strength; the unit is told by the field that holds it.
    pub range: f32,
    /// Chance of being applied to one image, 0–1.
    pub prob: f32,
}

/// Training transforms of a classifier, in PaddleX's order: random resized crop, flips, colour
/// jitter, rotation. `None` or probability 0 = off.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifyTrain {
    /// Height and width of the result.
    pub crop: (usize, usize),
    /// Side scale of the random crop (PaddleX: 0.88–1).
    pub scale: (f32, f32),
    /// Aspect ratio of the random crop, width / height (PaddleX: 3/4–4/3).
    pub aspect: (f32, f32),
    /// Chance of a left-right flip.
    pub horizontal_flip: f32,
    /// Chance of an upside-down flip.
    pub vertical_flip: f32,
    /// Factor 1 ± range.
    pub brightness: Option<Jitter>,
    /// Factor 1 ± range around the image's mean grey.
    pub contrast: Option<Jitter>,
    /// Factor 1 ± range against the grey image.
    pub saturation: Option<Jitter>,
    /// ± degrees on the colour wheel.
    pub hue: Option<Jitter>,
    /// ± degrees around the centre.
    pub rotate: Option<Jitter>,
}

/// Transforms of one image; the result is always RGB of 8 bits and one size per pipeline.
#[derive(Debug, Clone, PartialEq)]
pub enum Pipeline {
    /// Random crop and colour changes, drawn from (seed, epoch, sample index).
    ClassifyTrain(ClassifyTrain),
    /// Short side to `resize_short`, then the centre `crop`.
    ClassifyEval {
        /// Height and width of the result.
        crop: (usize, usize),
        /// Length of the short side before the crop.
        resize_short: usize,
    },
}

impl Pipeline {
    /// The training transforms that these parameters ask for.
    pub fn classify_train(params: &ClassificationParams) -> Self {
        let [height, width] = params.image_shape;
        let jitter = |on: bool, range: f32, prob: f32| on.then_some(Jitter { range, prob });
        let chance = |on: bool, prob: f32| if on { prob } else { 0.0 };
        Self::ClassifyTrain(ClassifyTrain {
            crop: (height as usize, width as usize),
            scale: (0.88, 1.0),
            aspect: (3.0 / 4.0, 4.0 / 3.0),
            horizontal_flip: chance(params.horizontal_flip, params.horizontal_flip_prob),
            vertical_flip: chance(params.vertical_flip, params.vertical_flip_prob),
            brightness: jitter(
                params.brightness,
                params.brightness_range,
                params.brightness_prob,
            ),
            contrast: jitter(params.contrast, params.contrast_range, params.contrast_prob),
            saturation: jitter(
                params.saturation,
                params.saturation_range,
                params.saturation_prob,
            ),
            hue: jitter(params.hue, params.hue_range, params.hue_prob),
            rotate: jitter(params.rotate, params.rotate_range, params.rotate_prob),
        })
    }

    /// The validation transforms that belong to these parameters.
    pub fn classify_eval(params: &ClassificationParams) -> Self {
        let [height, width] = params.image_shape;
        Self::classify_eval_of(height as usize, width as usize)
    }

    /// Validation transforms for a crop of this size: short side int(1.143 · crop), centre crop.
    pub fn classify_eval_of(height: usize, width: usize) -> Self {
        Self::ClassifyEval {
            crop: (height, width),
            resize_short: (height.max(width) as f64 * 1.143) as usize,
        }
    }

    /// Height and width of every image that comes out.
    pub fn output_size(&self) -> (usize, usize) {
        match self {
            Self::ClassifyTrain(train) => train.crop,
            Self::ClassifyEval { crop, .. } => *crop,
        }
    }
}
