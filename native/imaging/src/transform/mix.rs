//! Mixing two pictures.

use crate::{Image, Labeled};

/// Mixup for detection (Zhang et al., Bag of Freebies, 2019): both pictures on one canvas, weighted by
/// `share` and 1 − `share`; all boxes stay, with those weights. A share of 1 or more leaves the first
/// alone, 0 or less the second. Draw the share with [`crate::Rng::beta`].
pub fn mixup(first: Labeled, second: Labeled, share: f32) -> Labeled {
    if share >= 1.0 {
        return first;
    }
    if share <= 0.0 {
        return second;
    }
    let width = first.image.width().max(second.image.width());
    let height = first.image.height().max(second.image.height());
    let mut image = Image::filled(width, height, [0; 3]);
    // 8 fractional bits; both weights add up to 1 exactly.
    let weight = (share * 256.0).round() as u32;
    for y in 0..height {
        let row = image.row_mut(y);
        for (source, weight) in [(&first.image, weight), (&second.image, 256 - weight)] {
            if y < source.height() {
                // Each share is rounded down by at most one level: half a level is added once.
                let half = if std::ptr::eq(source, &first.image) {
                    128
                } else {
                    127
                };
                let pairs = row.iter_mut().zip(source.row(y));
                pairs.for_each(|(o, s)| *o += ((u32::from(*s) * weight + half) >> 8) as u8);
            }
        }
    }
    let mut objects = first.objects;
    objects.iter_mut().for_each(|o| o.weight *= share);
    objects.extend(second.objects.into_iter().map(|mut o| {
        o.weight *= 1.0 - share;
        o
    }));
    for mask in objects.iter_mut().filter_map(|o| o.mask.as_mut()) {
        let change = crate::Change::Place {
            canvas: (width, height),
            at: (0, 0),
            fill: vec![0.0],
        };
        if let Ok(larger) = crate::Pixels::changed(mask, &change) {
            *mask = larger;
        }
    }
    Labeled {
        image,
        objects,
        label_map: None,
    }
}
