//! What image sizes a network takes.

use crate::{canonical_name, canonical_segmenter};

/// Image sizes of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputSize {
    /// Smallest height and width.
    pub min: usize,
    /// Height and width must be multiples of this.
    pub multiple: usize,
    /// What the published weights were trained with.
    pub usual: usize,
}

impl InputSize {
    /// Why the network cannot take `height`×`width`, if so.
    pub fn objection(&self, height: usize, width: usize) -> Option<String> {
        let side = height.min(width);
        if side < self.min {
            return Some(format!(
                "{height}×{width} is too small, at least {0}×{0} is needed",
                self.min
            ));
        }
        if !height.is_multiple_of(self.multiple) || !width.is_multiple_of(self.multiple) {
            return Some(format!(
                "height and width must be multiples of {}, not {height}×{width}",
                self.multiple
            ));
        }
        None
    }
}

/// Image sizes of a classifier or segmenter (name or alias); `None` for an unknown one.
///
/// All take 32×32 and larger, except AlexNet (its stride-4 stem and three unpadded poolings leave
/// nothing below 63×63). HRNet needs multiples of 32. Others take less than 32 too, but the last stages
/// of all of them then see a single pixel. Segmenters take any size from 32×32 on.
pub fn input_size(name: &str) -> Option<InputSize> {
    if canonical_segmenter(name).is_some() {
        return Some(InputSize {
            min: 32,
            multiple: 1,
            usual: 512,
        });
    }
    let name = canonical_name(name)?;
    let usual = InputSize {
        min: 32,
        multiple: 1,
        usual: 224,
    };
    Some(match name {
        "AlexNet" => InputSize { min: 63, ..usual },
        "DarkNet53" => InputSize {
            usual: 256,
            ..usual
        },
        _ if name.starts_with("Xception") => InputSize {
            usual: 299,
            ..usual
        },
        _ if name.starts_with("HRNet") => InputSize {
            multiple: 32,
            ..usual
        },
        _ => usual,
    })
}
