//! What a file is, told by its first bytes, before any pixel is decoded.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::image::ImageDecoder;

use crate::{ImageError, exif, jpeg, npy, tiff};

/// Image formats that are read, told by content and never by the name's suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// JPEG, also progressive, grey and CMYK.
    Jpeg,
    /// PNG; of an animated one the default image.
    Png,
    /// Windows bitmap.
    Bmp,
    /// GIF; the first frame.
    Gif,
    /// WebP; of an animated one the first frame.
    WebP,
    /// TIFF, also BigTIFF; the first page.
    Tiff,
    /// NumPy array of height × width × channels; read as a raster only.
    Npy,
}

impl Format {
    /// Lower-case name: `jpeg`, `png`, `bmp`, `gif`, `webp`, `tiff`, `npy`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Bmp => "bmp",
            Self::Gif => "gif",
            Self::WebP => "webp",
            Self::Tiff => "tiff",
            Self::Npy => "npy",
        }
    }

    /// MIME type.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Bmp => "image/bmp",
            Self::Gif => "image/gif",
            Self::WebP => "image/webp",
            Self::Tiff => "image/tiff",
            Self::Npy => "application/octet-stream",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Tiff => "TIFF",
            Self::Npy => "NumPy",
        })
    }
}

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageInfo {
    /// Format by content.
    pub format: Format,
    /// Width as stored.
    pub width: usize,
    /// Height as stored.
    pub height: usize,
    /// Channels as stored; a palette counts as 3.
    pub channels: u16,
    /// Bits of one channel.
    pub depth: u8,
    /// EXIF orientation 1–8.
    pub orientation: u8,
}

impl ImageInfo {
    /// (width, height) as displayed.
    pub fn display_size(&self) -> (usize, usize) {
        if exif::swaps_sides(self.orientation) {
            (self.height, self.width)
        } else {
            (self.width, self.height)
        }
    }
}

/// The format that the content begins like, if it is one that is read.
pub fn sniff(bytes: &[u8]) -> Option<Format> {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    if starts(&[0xff, 0xd8, 0xff]) {
        Some(Format::Jpeg)
    } else if starts(b"\x89PNG\r\n\x1a\n") {
        Some(Format::Png)
    } else if starts(b"GIF87a") || starts(b"GIF89a") {
        Some(Format::Gif)
    } else if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        Some(Format::WebP)
    } else if [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]
        .iter()
        .any(|m| starts(&m[..]))
    {
        Some(Format::Tiff)
    } else if starts(b"\x93NUMPY") {
        Some(Format::Npy)
    } else if starts(b"BM") && bytes.len() >= 26 {
        Some(Format::Bmp)
    } else {
        None
    }
}

/// What content that is no image looks like, for the message.
fn describe(bytes: &[u8]) -> String {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    let head = &bytes[..bytes.len().min(512)];
    let brand = bytes
        .get(4..8)
        .filter(|b| *b == b"ftyp")
        .and(bytes.get(8..12));
    let known = if let Some(brand) = brand {
        match brand {
            b"heic" | b"heix" | b"mif1" | b"msf1" => "a HEIC picture (convert it to JPEG or PNG)",
            b"avif" | b"avis" => "an AVIF picture (convert it to JPEG or PNG)",
            _ => "a video",
        }
    } else if starts(b"%PDF") {
        "a PDF document"
    } else if starts(b"PK\x03\x04") {
        "a ZIP archive or office document"
    } else if starts(b"\x1f\x8b") {
        "a gzip archive"
    } else if starts(b"\xff\x0a") || starts(b"\0\0\0\x0cJXL ") {
        "a JPEG XL picture (convert it to JPEG or PNG)"
    } else if starts(b"\0\0\0\x0cjP  ") {
        "a JPEG 2000 picture (convert it to JPEG or PNG)"
    } else if head.iter().all(|&b| b == 0) {
        "only zero bytes"
    } else if std::str::from_utf8(head).is_ok() || head.iter().all(|b| b.is_ascii()) {
        let text = String::from_utf8_lossy(head).to_ascii_lowercase();
        if text.contains("<svg") {
            "an SVG drawing (convert it to PNG)"
        } else if text.contains("<html") || text.contains("<!doctype") {
            "an HTML page"
        } else {
            "text"
        }
    } else {
        let shown: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
        return format!(
            "of no known image format (it starts with {})",
            shown.join(" ")
        );
    };
    known.to_owned()
}

/// Reads the header only: no pixel memory is taken. Errors: empty, no image, damaged header.
pub fn inspect(bytes: &[u8]) -> Result<ImageInfo, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    let format = sniff(bytes).ok_or_else(|| ImageError::NotAnImage(describe(bytes)))?;
    let info = match format {
        Format::Jpeg => jpeg::header(bytes)?.info,
        Format::Png => png_header(bytes)?,
        Format::Npy => npy::info(bytes)?,
        Format::Tiff => caught(format, || tiff::info(bytes))?,
        _ => other_header(bytes, format)?,
    };
    if info.width == 0 || info.height == 0 {
        return Err(ImageError::damaged(
            format,
            "the header says width or height 0",
        ));
    }
    Ok(info)
}

fn png_header(bytes: &[u8]) -> Result<ImageInfo, ImageError> {
    let bad = |reason: &str| ImageError::damaged(Format::Png, reason);
    if bytes.get(12..16) != Some(b"IHDR") {
        return Err(bad("it has no header chunk"));
    }
    let fields = bytes
        .get(16..29)
        .ok_or_else(|| bad("it ends within the header"))?;
    let number = |at: usize| {
        u32::from_be_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]) as usize
    };
    let channels = match fields[9] {
        0 => 1,
        2 | 3 => 3,
        4 => 2,
        6 => 4,
        other => return Err(bad(&format!("colour type {other} does not exist"))),
    };
    Ok(ImageInfo {
        format: Format::Png,
        width: number(0),
        height: number(4),
        channels,
        depth: if fields[9] == 3 { 8 } else { fields[8] },
        orientation: png_orientation(bytes).unwrap_or(1),
    })
}

/// Orientation from an eXIf chunk that stands before the pixels.
fn png_orientation(bytes: &[u8]) -> Option<u8> {
    let mut at = 8usize;
    loop {
        let length = u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize;
        match bytes.get(at + 4..at + 8)? {
            b"eXIf" => {
                return exif::orientation(bytes.get(at + 8..(at + 8).checked_add(length)?)?);
            }
            b"IDAT" | b"IEND" => return None,
            _ => at = at.checked_add(length)?.checked_add(12)?,
        }
    }
}

/// A decoder of the `image` crate, headers read, for the formats that it serves here.
pub(crate) fn open<'a>(
    bytes: &'a [u8],
    format: Format,
) -> Result<Box<dyn ImageDecoder + 'a>, ImageError> {
    use ::image::codecs::{bmp::BmpDecoder, gif::GifDecoder, tiff::TiffDecoder, webp::WebPDecoder};
    let source = Cursor::new(bytes);
    let opened: ::image::ImageResult<Box<dyn ImageDecoder + 'a>> = match format {
        Format::Bmp => BmpDecoder::new(source).map(|d| Box::new(d) as _),
        Format::Gif => GifDecoder::new(source).map(|d| Box::new(d) as _),
        Format::WebP => WebPDecoder::new(source).map(|d| Box::new(d) as _),
        Format::Tiff => TiffDecoder::new(source).map(|d| Box::new(d) as _),
        Format::Jpeg | Format::Png | Format::Npy => {
            return Err(ImageError::Argument(format!(
                "{format} has a decoder of its own"
            )));
        }
    };
    opened.map_err(|error| from_image_crate(format, &error))
}

/// Turns an error of the `image` crate into ours, without its repeated prefixes.
pub(crate) fn from_image_crate(format: Format, error: &::image::ImageError) -> ImageError {
    use std::error::Error;
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        reason = inner.to_string();
        source = inner.source();
    }
    let reason = match reason.as_str() {
        "" => "its content ends early or contradicts itself".to_owned(),
        text if text.contains("failed to fill whole buffer") || text.contains("unexpected end") => {
            "it is truncated".to_owned()
        }
        text => text.to_owned(),
    };
    match error {
        ::image::ImageError::Unsupported(_) => ImageError::unsupported(format, reason),
        _ => ImageError::damaged(format, reason),
    }
}

/// Runs a format crate. They are safe Rust, but a damaged file may still meet one of their assertions.
pub(crate) fn caught<T>(
    format: Format,
    work: impl FnOnce() -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(ImageError::damaged(
            format,
            "its content contradicts itself",
        ))
    })
}

fn other_header(bytes: &[u8], format: Format) -> Result<ImageInfo, ImageError> {
    caught(format, || {
        let mut decoder = open(bytes, format)?;
        let (width, height) = decoder.dimensions();
        let colour = decoder.original_color_type();
        let channels = colour.channel_count();
        let orientation = match format {
            Format::WebP => decoder
                .exif_metadata()
                .ok()
                .flatten()
                .and_then(|data| exif::orientation(data.strip_prefix(b"Exif\0\0").unwrap_or(&data)))
                .unwrap_or(1),
            _ => 1,
        };
        Ok(ImageInfo {
            format,
            width: width as usize,
            height: height as usize,
            channels: channels.into(),
            depth: (colour.bits_per_pixel() / u16::from(channels.max(1))) as u8,
            orientation,
        })
    })
}
