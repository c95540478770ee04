//! Rectangles and text on images.

use ab_glyph::{Font, PxScale, ScaleFont, point};

use crate::{Image, font};

/// R, G, B.
pub type Colour = [u8; 3];

/// Colour of class number `index` in PaddleX's (and Pascal VOC's) table.
pub fn class_colour(index: usize) -> Colour {
    // PaddleX fills B, G, R from bits 0, 1, 2; here the answer is R, G, B.
    let (mut rgb, mut rest) = ([0u8; 3], index);
    for place in (0..8).rev() {
        rgb[2] |= ((rest & 1) as u8) << place;
        rgb[1] |= (((rest >> 1) & 1) as u8) << place;
        rgb[0] |= (((rest >> 2) & 1) as u8) << place;
        rest >>= 3;
    }
    rgb
}

/// Fills a rectangle; what lies outside the image is cut.
pub fn fill_rect(image: &mut Image, x: i64, y: i64, width: i64, height: i64, colour: Colour) {
    let cut = |from: i64, length: i64, side: usize| {
        let end = from.saturating_add(length).clamp(0, side as i64) as usize;
        (from.clamp(0, side as i64) as usize, end)
    };
    let (left, right) = cut(x, width, image.width());
    let (top, bottom) = cut(y, height, image.height());
    if left >= right {
        return;
    }
    for row in top..bottom {
        image.row_mut(row)[left * 3..right * 3]
            .chunks_exact_mut(3)
            .for_each(|p| p.copy_from_slice(&colour));
    }
}

/// Fills rows of `width` RGB pixels with one colour.
pub fn fill_rgb(pixels: &mut [u8], width: usize, colour: Colour) {
    let stride = (width * 3).clamp(1, pixels.len().max(1));
    let (first, rest) = pixels.split_at_mut(stride.min(pixels.len()));
    first
        .chunks_exact_mut(3)
        .for_each(|p| p.copy_from_slice(&colour));
    rest.chunks_exact_mut(stride)
        .for_each(|row| row.copy_from_slice(first));
}

/// Draws the border of a rectangle, `line` pixels wide, to the inside.
pub fn outline_rect(image: &mut Image, rect: (i64, i64, i64, i64), line: i64, colour: Colour) {
    let (x, y, width, height) = rect;
    let line = line.clamp(1, width.min(height).max(1));
    fill_rect(image, x, y, width, line, colour);
    fill_rect(image, x, y + height - line, width, line, colour);
    fill_rect(image, x, y, line, height, colour);
    fill_rect(image, x + width - line, y, line, height, colour);
}

/// Width in pixels of a line of text, `size` pixels high.
pub fn text_width(text: &str, size: f32) -> f32 {
    font::layout(text, size).1
}

/// Draws one line of text, `size` pixels high, with its top left corner at (x, y). Any script that a
/// font is there for (see the crate's font module); parts outside the image are cut.
pub fn draw_text(image: &mut Image, text: &str, x: f32, y: f32, size: f32, colour: Colour) {
    let Some(main) = font::main_font() else {
        return;
    };
    let baseline = y + font::scaled(&main, size).ascent();
    for placed in font::layout(text, size).0 {
        let glyph = placed
            .glyph
            .with_scale_and_position(PxScale::from(size), point(x + placed.x, baseline));
        let Some(outline) = placed.font.outline_glyph(glyph) else {
            continue;
        };
        let bounds = outline.px_bounds();
        outline.draw(|dx, dy, coverage| {
            let px = bounds.min.x as i64 + i64::from(dx);
            let py = bounds.min.y as i64 + i64::from(dy);
            if px < 0 || py < 0 || px >= image.width() as i64 || py >= image.height() as i64 {
                return;
            }
            let at = px as usize * 3;
            let pixel = &mut image.row_mut(py as usize)[at..at + 3];
            for (value, ink) in pixel.iter_mut().zip(colour) {
                let mixed =
                    f32::from(*value) + (f32::from(ink) - f32::from(*value)) * coverage.min(1.0);
                *value = mixed.round() as u8;
            }
        });
    }
}

/// The text, or as much of its start as fits into `width` pixels, closed by `…`.
pub(crate) fn fit_text(text: &str, size: f32, width: f32) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let room = width - text_width("…", size);
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if text_width(&kept, size) > room {
            kept.pop();
            break;
        }
    }
    kept.trim_end().to_owned() + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_colours_are_those_of_the_paddlex_table() {
        // Table of PaddleX's documentation, there in B, G, R.
        let bgr = |i| {
            let [r, g, b] = class_colour(i);
            [b, g, r]
        };
        assert_eq!(bgr(0), [0, 0, 0]);
        assert_eq!(bgr(1), [128, 0, 0]);
        assert_eq!(bgr(2), [0, 128, 0]);
        assert_eq!(bgr(3), [128, 128, 0]);
        assert_eq!(bgr(4), [0, 0, 128]);
        assert_eq!(bgr(5), [128, 0, 128]);
        assert_eq!(bgr(6), [0, 128, 128]);
        assert_eq!(bgr(7), [128, 128, 128]);
    }

    #[test]
    fn text_of_many_scripts_leaves_ink_and_unknown_signs_are_spelled_out() {
        for text in ["screw", "螺丝钉", "ねじ", "나사", "Ölfaß", "винт"] {
            assert_eq!(crate::missing_glyphs(text), [], "{text}");
            let mut image = Image::filled(200, 40, [255; 3]);
            draw_text(&mut image, text, 4.0, 4.0, 28.0, [0; 3]);
            let dark = image.data().iter().filter(|v| **v < 128).count();
            assert!(dark > 150, "{text}: {dark}");
        }
        // A private-use sign is in no font: it must show as its code, in more than one letter's width.
        let unknown = "\u{f8fe1}";
        assert!(text_width(unknown, 20.0) > 3.0 * text_width("0", 20.0));
        assert_eq!(crate::missing_glyphs("a\u{f8fe1}b").len(), 1);
    }

    #[test]
    fn long_names_are_shortened_to_the_width() {
        let name = "一个非常非常长的类别名称 with a very long tail";
        let short = fit_text(name, 16.0, 120.0);
        assert!(
            short.ends_with('…') && text_width(&short, 16.0) <= 120.0,
            "{short}"
        );
        assert_eq!(fit_text("ok", 16.0, 120.0), "ok");
    }

    #[test]
    fn drawing_outside_the_image_is_cut() {
        let mut image = Image::filled(8, 8, [9; 3]);
        fill_rect(&mut image, -5, -5, 7, 7, [1, 2, 3]);
        assert_eq!((image.pixel(1, 1), image.pixel(2, 2)), ([1, 2, 3], [9; 3]));
        fill_rect(&mut image, 100, 100, 5, 5, [0; 3]);
        fill_rect(&mut image, i64::MAX, 0, i64::MAX, 5, [0; 3]);
        outline_rect(&mut image, (6, 6, 10, 10), 3, [7; 3]);
        draw_text(&mut image, "outside", -50.0, -20.0, 30.0, [0; 3]);
        draw_text(&mut image, "outside", 6.0, 6.0, 300.0, [0; 3]);
        assert_eq!(image.pixel(7, 7).len(), 3);
    }
}
