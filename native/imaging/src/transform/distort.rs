//! Random colour changes.

use super::Transform;
use crate::{ImageError, Labeled, Rng, brightness, contrast, hue, saturation};

/// A random change: its strength and its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter {
    /// Strength; the unit is told by the field that holds it.
    pub range: f32,
    /// Chance of being applied to one image, 0–1.
    pub prob: f32,
}

/// Colour changes in random order, each with its own chance; `None` = off. Ranges of 1 and more are
/// taken as 0.95: at 1 an image could turn black or grey altogether.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Distort {
    /// Factor 1 ± range.
    pub brightness: Option<Jitter>,
    /// Factor 1 ± range around the image's mean grey.
    pub contrast: Option<Jitter>,
    /// Factor 1 ± range against the grey image.
    pub saturation: Option<Jitter>,
    /// ± degrees on the colour wheel.
    pub hue: Option<Jitter>,
}

/// Colour changes that were drawn, ready to be applied.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Drawn(Vec<(ColourKind, f32)>);

/// Which colour change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColourKind {
    /// See [`brightness`](crate::brightness).
    Brightness,
    /// See [`contrast`](crate::contrast).
    Contrast,
    /// See [`saturation`](crate::saturation).
    Saturation,
    /// See [`hue`](crate::hue).
    Hue,
}

const MAX_FACTOR_RANGE: f32 = 0.95;

impl Distort {
    /// Draws order and strengths. Every number is drawn whether it is used or not: switching one
    /// change off leaves the others as they were.
    pub fn draw(&self, rng: &mut Rng) -> Drawn {
        let kinds = [
            ColourKind::Brightness,
            ColourKind::Contrast,
            ColourKind::Saturation,
            ColourKind::Hue,
        ];
        let jitters = [self.brightness, self.contrast, self.saturation, self.hue];
        let mut order = [0, 1, 2, 3];
        rng.shuffle(&mut order);
        let draws = [(); 4].map(|()| (rng.unit(), rng.uniform(-1.0, 1.0)));
        let pick = |place: usize| {
            let jitter = jitters[place]?;
            let (chance, turn) = draws[place];
            let kind = kinds[place];
            let limit = if kind == ColourKind::Hue {
                180.0
            } else {
                MAX_FACTOR_RANGE
            };
            let amount = (turn * f64::from(jitter.range.abs().min(limit))) as f32;
            (chance < f64::from(jitter.prob)).then_some((kind, amount))
        };
        Drawn(order.into_iter().filter_map(pick).collect())
    }
}

impl Drawn {
    /// The changes in their order; amounts are factors less 1, or degrees of hue.
    pub fn changes(&self) -> &[(ColourKind, f32)] {
        &self.0
    }

    /// Applies the changes to RGB pixels.
    pub fn apply(&self, pixels: &mut [u8]) {
        for (kind, amount) in &self.0 {
            match kind {
                ColourKind::Brightness => brightness(pixels, 1.0 + amount),
                ColourKind::Contrast => contrast(pixels, 1.0 + amount),
                ColourKind::Saturation => saturation(pixels, 1.0 + amount),
                ColourKind::Hue => hue(pixels, *amount),
            }
        }
    }
}

impl Transform for Distort {
    fn apply(&self, item: &mut Labeled, rng: &mut Rng) -> Result<(), ImageError> {
        self.draw(rng).apply(item.image.data_mut());
        Ok(())
    }
}
