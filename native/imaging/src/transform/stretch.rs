//! Value ranges of remote sensing pictures.

use super::Transform;
use crate::{ImageError, Labeled, Raster, Rng, Samples};

/// Cuts the values of every channel to a range; the kind of the samples stays.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// Lowest and highest value, one pair a channel.
    pub limits: Vec<(f32, f32)>,
}

/// Stretches the range of every channel (clip limits, or percentiles of the channel's statistics) to
/// 0–255 as 8-bit integers; what lies outside is cut, what is no number becomes 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// Value that becomes 0 and value that becomes 255, one pair a channel.
    pub limits: Vec<(f32, f32)>,
}

fn fits(limits: &[(f32, f32)], raster: &Raster) -> Result<(), ImageError> {
    if limits.len() == raster.channels() {
        return Ok(());
    }
    let (have, want) = (limits.len(), raster.channels());
    let text = format!("{have} value ranges for a picture of {want} channels");
    Err(ImageError::Argument(text))
}

fn replaced(raster: &Raster, samples: Samples) -> Result<Raster, ImageError> {
    Raster::new(raster.width(), raster.height(), raster.channels(), samples)
}

impl Clip {
    /// The cut picture. Errors: not one range a channel.
    pub fn of(&self, raster: &Raster) -> Result<Raster, ImageError> {
        fits(&self.limits, raster)?;
        let limits = self.limits.iter().copied().cycle();
        let limits = limits.map(|(low, high)| (low.min(high), high));
        replaced(
            raster,
            match raster.samples() {
                Samples::U8(v) => {
                    let cut = v.iter().zip(limits);
                    Samples::U8(
                        cut.map(|(v, (l, h))| f32::from(*v).clamp(l, h) as u8)
                            .collect(),
                    )
                }
                Samples::U16(v) => {
                    let cut = v.iter().zip(limits);
                    Samples::U16(
                        cut.map(|(v, (l, h))| f32::from(*v).clamp(l, h) as u16)
                            .collect(),
                    )
                }
                Samples::F32(v) => Samples::F32(
                    v.iter()
                        .zip(limits)
                        .map(|(v, (l, h))| v.clamp(l, h))
                        .collect(),
                ),
            },
        )
    }
}

impl Stretch {
    /// The stretched picture. Errors: not one range a channel.
    pub fn of(&self, raster: &Raster) -> Result<Raster, ImageError> {
        fits(&self.limits, raster)?;
        let scale = |(low, high): &(f32, f32)| (*low, 255.0 / (high - low).max(f32::MIN_POSITIVE));
        let scales: Vec<(f32, f32)> = self.limits.iter().map(scale).collect();
        let level = |v: f32, (low, scale): &(f32, f32)| ((v - low) * scale + 0.5) as u8;
        let pairs = || scales.iter().cycle();
        let levels = match raster.samples() {
            Samples::U8(v) => v
                .iter()
                .zip(pairs())
                .map(|(v, s)| level((*v).into(), s))
                .collect(),
            Samples::U16(v) => v
                .iter()
                .zip(pairs())
                .map(|(v, s)| level((*v).into(), s))
                .collect(),
            Samples::F32(v) => v.iter().zip(pairs()).map(|(v, s)| level(*v, s)).collect(),
        };
        replaced(raster, Samples::U8(levels))
    }
}

impl Transform<Raster> for Clip {
    fn apply(&self, item: &mut Labeled<Raster>, _: &mut Rng) -> Result<(), ImageError> {
        item.image = self.of(&item.image)?;
        Ok(())
    }
}

impl Transform<Raster> for Stretch {
    fn apply(&self, item: &mut Labeled<Raster>, _: &mut Rng) -> Result<(), ImageError> {
        item.image = self.of(&item.image)?;
        Ok(())
    }
}
