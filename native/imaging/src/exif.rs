//! EXIF orientation: how a camera was held.
//!
//! PaddleX reads images with `cv2.imread` and colour flags, which applies the orientation; so does
//! everything here. The tag is looked for in JPEG APP1, PNG eXIf, WebP EXIF and TIFF itself.

use crate::Image;

/// Orientation 1–8 of a TIFF structure (`II*\0…` or `MM\0*…`), if it has one.
pub fn orientation(tiff: &[u8]) -> Option<u8> {
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let u16_at = |at: usize| -> Option<u16> {
        let bytes = tiff.get(at..at + 2)?.try_into().ok()?;
        Some(if little {
            u16::from_le_bytes(bytes)
        } else {
            u16::from_be_bytes(bytes)
        })
    };
    let u32_at = |at: usize| -> Option<u32> {
        let bytes = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        })
    };
    let directory = u32_at(4)? as usize;
    let entries = u16_at(directory)? as usize;
    for entry in 0..entries {
        let at = directory.checked_add(2 + entry * 12)?;
        if u16_at(at)? == 0x0112 {
            let value = u16_at(at + 8)?;
            return u8::try_from(value).ok().filter(|v| (1..=8).contains(v));
        }
    }
    None
}

/// Turns stored pixels into display pixels.
pub fn apply(image: Image, orientation: u8) -> Image {
    let (w, h) = (image.width(), image.height());
    // For each display pixel (x, y): the stored pixel it comes from.
    type Map = fn(usize, usize, usize, usize) -> (usize, usize);
    let (map, swapped): (Map, bool) = match orientation {
        2 => (|x, y, w, _| (w - 1 - x, y), false),
        3 => (|x, y, w, h| (w - 1 - x, h - 1 - y), false),
        4 => (|x, y, _, h| (x, h - 1 - y), false),
        5 => (|x, y, _, _| (y, x), true),
        6 => (|x, y, _, h| (y, h - 1 - x), true),
        7 => (|x, y, w, h| (w - 1 - y, h - 1 - x), true),
        8 => (|x, y, w, _| (w - 1 - y, x), true),
        _ => return image,
    };
    let (out_w, out_h) = if swapped { (h, w) } else { (w, h) };
    let mut out = Image::filled(out_w, out_h, [0; 3]);
    let source = image.data();
    for y in 0..out_h {
        let row = out.row_mut(y);
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let (sx, sy) = map(x, y, w, h);
            let at = (sy * w + sx) * 3;
            pixel.copy_from_slice(&source[at..at + 3]);
        }
    }
    out
}

/// Whether width and height change places.
pub fn swaps_sides(orientation: u8) -> bool {
    (5..=8).contains(&orientation)
}
