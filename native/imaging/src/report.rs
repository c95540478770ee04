//! The picture of a classification: the image beside its most probable classes.

use crate::draw::fit_text;
use crate::resize::resize_smooth;
use crate::{Colour, Image, ImageError, draw_text, fill_rect, fit_within, text_width};

/// A class with its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassScore {
    /// Name as the user wrote it, in any script.
    pub name: String,
    /// Probability 0–1.
    pub score: f32,
}

const LONG_SIDE: usize = 640;
const SMALL_SIDE: usize = 256;
const PANEL: usize = 340;
const MARGIN: usize = 16;
const ROW: usize = 46;
const TEXT: f32 = 19.0;
const PAPER: Colour = [255, 255, 255];
const INK: Colour = [32, 33, 36];
const TRACK: Colour = [232, 234, 237];
const BEST: Colour = [26, 115, 232];
const OTHER: Colour = [138, 180, 248];

/// Draws `image` beside up to ten rows of name, probability and bar, best first as given.
/// Images above 640 pixels are shrunk, tiny ones enlarged without blur, so that both stay legible.
pub fn classification_picture(image: &Image, scores: &[ClassScore]) -> Result<Image, ImageError> {
    let view = viewable(image)?;
    let rows = &scores[..scores.len().min(10)];
    let text_height = rows.len() * ROW + MARGIN;
    let height = view.height().max(text_height) + 2 * MARGIN;
    let mut out = Image::filled(view.width() + PANEL + 3 * MARGIN, height, PAPER);
    let top = (height - view.height()) / 2;
    out.paste(&view, MARGIN, top);

    let left = view.width() + 2 * MARGIN;
    let first = (height - text_height) / 2 + MARGIN / 2;
    for (i, row) in rows.iter().enumerate() {
        let y = first + i * ROW;
        let share = if row.score.is_finite() {
            row.score.clamp(0.0, 1.0)
        } else {
            0.0
        };
        let percent = format!("{:.1} %", share * 100.0);
        let percent_width = text_width(&percent, TEXT);
        let name = fit_text(&row.name, TEXT, PANEL as f32 - percent_width - 12.0);
        draw_text(&mut out, &name, left as f32, y as f32, TEXT, INK);
        let at = (left + PANEL) as f32 - percent_width;
        draw_text(&mut out, &percent, at, y as f32, TEXT, INK);
        let bar = y as i64 + TEXT as i64 + 6;
        fill_rect(&mut out, left as i64, bar, PANEL as i64, 8, TRACK);
        let filled = (PANEL as f32 * share).round() as i64;
        fill_rect(
            &mut out,
            left as i64,
            bar,
            filled,
            8,
            if i == 0 { BEST } else { OTHER },
        );
    }
    Ok(out)
}

/// The image at a size that can be looked at.
fn viewable(image: &Image) -> Result<Image, ImageError> {
    let (w, h) = (image.width(), image.height());
    let longest = w.max(h);
    if longest > LONG_SIDE {
        let (w, h) = fit_within(w, h, LONG_SIDE);
        return resize_smooth(image, w, h);
    }
    let factor = SMALL_SIDE / longest;
    if factor < 2 {
        return Ok(image.clone());
    }
    let mut out = Image::filled(w * factor, h * factor, [0; 3]);
    for y in 0..h * factor {
        for (x, pixel) in out.row_mut(y).chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&image.pixel(x / factor, y / factor));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiny_and_huge_images_give_legible_pictures() {
        let scores: Vec<ClassScore> = [
            ("向日葵", 0.873),
            ("daisy", 0.1),
            ("a very long name ".repeat(9).as_str(), f32::NAN),
        ]
        .into_iter()
        .map(|(name, score)| ClassScore {
            name: name.into(),
            score,
        })
        .collect();
        for (w, h) in [
            (28, 28),
            (1, 1),
            (640, 480),
            (4000, 3000),
            (3, 2000),
            (1, 4000),
        ] {
            let image = Image::filled(w, h, [200, 30, 30]);
            let picture = classification_picture(&image, &scores).unwrap();
            assert!(picture.width() <= LONG_SIDE + PANEL + 3 * MARGIN, "{w}×{h}");
            assert!(
                picture.height() >= 2 * MARGIN + 3 * ROW
                    && picture.height() <= LONG_SIDE + 2 * MARGIN
            );
            let ink = picture.data().chunks_exact(3).filter(|p| *p == INK).count();
            assert!(ink > 200, "{w}×{h}: {ink} dark pixels");
            let blue = picture
                .data()
                .chunks_exact(3)
                .filter(|p| *p == BEST)
                .count();
            assert!(
                (0.80..0.95).contains(&(blue as f64 / (PANEL * 8) as f64)),
                "{blue}"
            );
        }
    }

    #[test]
    fn no_scores_are_no_failure() {
        let image = Image::filled(28, 28, [0; 3]);
        assert!(classification_picture(&image, &[]).is_ok());
    }
}
