//! Images to files.

use crate::{Format, Image, ImageError};

/// PNG, 8-bit RGB; fast rather than smallest.
pub fn encode_png(image: &Image) -> Result<Vec<u8>, ImageError> {
    let failed = |error: png::EncodingError| ImageError::damaged(Format::Png, error.to_string());
    let mut out = Vec::with_capacity(image.data().len() / 2 + 1024);
    let mut encoder = png::Encoder::new(&mut out, image.width() as u32, image.height() as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(image.data()).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(out)
}

/// JPEG, 4:2:0, `quality` 1–100.
pub fn encode_jpeg(image: &Image, quality: u8) -> Result<Vec<u8>, ImageError> {
    let view = turbojpeg::Image {
        pixels: image.data(),
        width: image.width(),
        pitch: image.width() * 3,
        height: image.height(),
        format: turbojpeg::PixelFormat::RGB,
    };
    let quality = i32::from(quality.clamp(1, 100));
    turbojpeg::compress(view, quality, turbojpeg::Subsamp::Sub2x2)
        .map(|buffer| buffer.to_vec())
        .map_err(|error| ImageError::damaged(Format::Jpeg, error.to_string()))
}
