//! Label maps from PNG files: palette indices and grey values are class ids, not colours.

use std::io::Cursor;

use crate::decode::{DecodePlan, Limits, plan};
use crate::header::{Format, caught};
use crate::{ImageError, Plane};

/// Reads the class ids of a PNG of one channel (grey or palette, up to 8 bits). Errors: another format,
/// more channels, 16 bits, damage, more pixels than the limit.
pub fn decode_label_map(bytes: &[u8], limits: &Limits) -> Result<Plane, ImageError> {
    let DecodePlan { info, .. } = plan(bytes, limits, None)?;
    if info.format != Format::Png {
        return Err(ImageError::unsupported(
            info.format,
            "label maps are PNG files",
        ));
    }
    caught(Format::Png, || {
        let failed = |e: png::DecodingError| ImageError::damaged(Format::Png, e.to_string());
        let budget = (info.width as u64 * info.height as u64).saturating_mul(2) + (16 << 20);
        let limits = png::Limits {
            bytes: usize::try_from(budget).unwrap_or(usize::MAX),
        };
        let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
        decoder.set_transformations(png::Transformations::IDENTITY);
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        let mut reader = decoder.read_info().map_err(failed)?;
        let (colour, depth) = reader.output_color_type();
        if !matches!(colour, png::ColorType::Grayscale | png::ColorType::Indexed) {
            let what = "more than one channel; class ids are one grey or palette value a pixel";
            return Err(ImageError::unsupported(Format::Png, what));
        }
        if depth == png::BitDepth::Sixteen {
            let what = "16 bits a pixel; class ids have 8";
            return Err(ImageError::unsupported(Format::Png, what));
        }
        let size = reader
            .output_buffer_size()
            .ok_or_else(|| ImageError::damaged(Format::Png, "its size overflows"))?;
        let mut data = vec![0; size];
        reader.next_frame(&mut data).map_err(failed)?;
        let data = match depth as usize {
            8 => data,
            bits => unpacked(&data, bits, info.width, info.height),
        };
        Plane::new(info.width, info.height, data)
    })
}

/// A PNG whose palette indices are the class ids and whose colours are theirs: shown in colour, read as ids.
pub fn encode_label_map(map: &Plane) -> Result<Vec<u8>, ImageError> {
    let failed = |error: png::EncodingError| ImageError::damaged(Format::Png, error.to_string());
    let mut out = Vec::with_capacity(map.data().len() / 16 + 1024);
    let mut encoder = png::Encoder::new(&mut out, map.width() as u32, map.height() as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    let colours: Vec<u8> = (0..256).flat_map(crate::class_colour).collect();
    encoder.set_palette(colours);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(map.data()).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(out)
}

/// One byte a value from rows of packed bits.
fn unpacked(data: &[u8], bits: usize, width: usize, height: usize) -> Vec<u8> {
    let stride = (width * bits).div_ceil(8);
    let mask = (1u8 << bits) - 1;
    let mut out = Vec::with_capacity(width * height);
    for row in data.chunks_exact(stride).take(height) {
        out.extend((0..width).map(|x| {
            let bit = x * bits;
            row[bit / 8] >> (8 - bits - bit % 8) & mask
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(colour: png::ColorType, depth: png::BitDepth, width: u32, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, width, 2);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        encoder.set_palette([9u8, 9, 9].repeat(256));
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let map = Plane::new(3, 2, vec![0, 1, 255, 7, 8, 9]).unwrap();
        let bytes = encode_label_map(&map).unwrap();
        assert_eq!(decode_label_map(&bytes, &Limits::default()).unwrap(), map);
        let shown = crate::decode(&bytes, &Limits::default(), None).unwrap();
        assert_eq!(shown.pixel(1, 0), crate::class_colour(1));
    }

    #[test]
    fn indices_and_grey_values_are_ids_of_every_depth() {
        use png::{BitDepth, ColorType};
        let read = |bytes: &[u8]| decode_label_map(bytes, &Limits::default());
        for colour in [ColorType::Indexed, ColorType::Grayscale] {
            let eight = png(colour, BitDepth::Eight, 3, &[0, 1, 255, 7, 8, 9]);
            assert_eq!(read(&eight).unwrap().data(), [0, 1, 255, 7, 8, 9]);
            let four = png(colour, BitDepth::Four, 3, &[0x12, 0x30, 0xf4, 0x50]);
            assert_eq!(read(&four).unwrap().data(), [1, 2, 3, 15, 4, 5]);
            let one = png(colour, BitDepth::One, 3, &[0b1010_0000, 0b0110_0000]);
            assert_eq!(read(&one).unwrap().data(), [1, 0, 1, 0, 1, 1]);
        }
        let rgb = png(ColorType::Rgb, BitDepth::Eight, 1, &[1, 2, 3, 4, 5, 6]);
        let deep = png(ColorType::Grayscale, BitDepth::Sixteen, 1, &[0, 1, 0, 2]);
        for (bytes, part) in [(rgb, "more than one channel"), (deep, "16 bits")] {
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(read(b"\xff\xd8\xff").is_err());
    }
}
