//! Bytes to pixels, within limits.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use ::image::ColorType;

use crate::convert::{Layout, append_rgb, to_rgb};
use crate::header::{Format, ImageInfo, caught, from_image_crate, inspect, open};
use crate::{Image, ImageError, Raster, exif, jpeg, npy, tiff};

/// What an image may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pixels announced by the header.
    pub pixels: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the samples of a [`Raster`], as stored.
    pub raster_bytes: u64,
}

impl Default for Limits {
    /// 178,956,970 pixels (where Pillow refuses an image as a decompression bomb), 256 MiB of file,
    /// 1 GiB of samples.
    fn default() -> Self {
        Self {
            pixels: 178_956_970,
            file_bytes: 256 << 20,
            raster_bytes: 1 << 30,
        }
    }
}

impl Limits {
    /// Refuses an image by its header.
    pub fn check(&self, info: &ImageInfo) -> Result<(), ImageError> {
        let (width, height) = (info.width as u64, info.height as u64);
        if width.saturating_mul(height) > self.pixels {
            return Err(ImageError::TooManyPixels {
                width,
                height,
                limit: self.pixels,
            });
        }
        Ok(())
    }
}

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// Left column.
    pub x: usize,
    /// Top row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Rect {
    /// The part inside a `width`×`height` image; at least one pixel.
    #[must_use]
    pub fn clamped(self, width: usize, height: usize) -> Self {
        let x = self.x.min(width.saturating_sub(1));
        let y = self.y.min(height.saturating_sub(1));
        Self {
            x,
            y,
            width: self.width.clamp(1, width - x),
            height: self.height.clamp(1, height - y),
        }
    }
}

/// How an image will be decoded: known from its header, before pixels are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodePlan {
    /// What the header says.
    pub info: ImageInfo,
    /// JPEG is decoded at 1/`denominator` (1, 2, 4 or 8); other formats always at 1.
    pub denominator: usize,
    /// Width of the decoded image, as displayed.
    pub width: usize,
    /// Height of the decoded image, as displayed.
    pub height: usize,
}

/// Plans the cheapest decode whose result is at least `cover` (width, height) in size where the
/// image itself is; `None` = full size. Errors: no image, damaged header, over the limits.
pub fn plan(
    bytes: &[u8],
    limits: &Limits,
    cover: Option<(usize, usize)>,
) -> Result<DecodePlan, ImageError> {
    if bytes.len() as u64 > limits.file_bytes {
        return Err(ImageError::TooManyBytes {
            bytes: bytes.len() as u64,
            limit: limits.file_bytes,
        });
    }
    let info = inspect(bytes)?;
    limits.check(&info)?;
    Ok(DecodePlan::of(info, cover))
}

impl DecodePlan {
    /// The plan for a picture whose header is known; see [`plan`].
    pub fn of(info: ImageInfo, cover: Option<(usize, usize)>) -> Self {
        let size = info.display_size();
        let denominator = match cover {
            Some(needed) if info.format == Format::Jpeg => jpeg::denominator(size, needed),
            _ => 1,
        };
        Self {
            info,
            denominator,
            width: jpeg::scaled(size.0, denominator),
            height: jpeg::scaled(size.1, denominator),
        }
    }
}

/// Decodes a whole image to RGB in display orientation; see [`plan`] for `cover`.
pub fn decode(
    bytes: &[u8],
    limits: &Limits,
    cover: Option<(usize, usize)>,
) -> Result<Image, ImageError> {
    decode_region(bytes, &plan(bytes, limits, cover)?, None)
}

/// Decodes by a plan of the same bytes; with `region` (display coordinates of the planned size)
/// only that part. Equals the same crop of the whole decode, pixel for pixel.
pub fn decode_region(
    bytes: &[u8],
    plan: &DecodePlan,
    region: Option<Rect>,
) -> Result<Image, ImageError> {
    let info = &plan.info;
    if info.format == Format::Jpeg {
        let stored = (info.width, info.height);
        let stored = (
            jpeg::scaled(stored.0, plan.denominator),
            jpeg::scaled(stored.1, plan.denominator),
        );
        let region = region.map(|r| to_stored(r, info.orientation, stored));
        let image = jpeg::decode(bytes, plan.denominator, region)?;
        return Ok(exif::apply(image, info.orientation));
    }
    let image = caught(info.format, || match info.format {
        Format::Png => decode_png(bytes, info),
        Format::Npy => Err(ImageError::unsupported(
            Format::Npy,
            "no picture of red, green and blue",
        )),
        format => decode_other(bytes, format),
    })?;
    let image = exif::apply(image, info.orientation);
    Ok(match region {
        Some(rect) => image.crop(rect),
        None => image,
    })
}

/// Decodes every channel as stored: `.npy` arrays and TIFF with their own sample kind and without
/// turning them by their orientation; all other formats as 8-bit RGB in display orientation.
/// Errors: like [`decode`]; more bytes of samples than the limit.
pub fn decode_raster(bytes: &[u8], limits: &Limits) -> Result<Raster, ImageError> {
    let plan = plan(bytes, limits, None)?;
    let info = &plan.info;
    let format = info.format;
    if !matches!(format, Format::Npy | Format::Tiff) {
        return decode_region(bytes, &plan, None).map(Into::into);
    }
    let pixels = (info.width as u64).saturating_mul(info.height as u64);
    let stored = pixels
        .saturating_mul(u64::from(info.channels))
        .saturating_mul(u64::from(info.depth.div_ceil(8)));
    if stored > limits.raster_bytes {
        return Err(ImageError::TooManyBytes {
            bytes: stored,
            limit: limits.raster_bytes,
        });
    }
    caught(format, || match format {
        Format::Npy => npy::decode(bytes),
        _ => tiff::decode(bytes, info),
    })
}

/// A rectangle of the displayed picture in the coordinates of the stored one (`stored` = its size).
fn to_stored(r: Rect, orientation: u8, stored: (usize, usize)) -> Rect {
    let (w, h) = stored;
    let display = if exif::swaps_sides(orientation) {
        (h, w)
    } else {
        (w, h)
    };
    let r = r.clamped(display.0, display.1);
    let (right, bottom) = (display.0 - r.x - r.width, display.1 - r.y - r.height);
    let rect = |x, y, width, height| Rect {
        x,
        y,
        width,
        height,
    };
    match orientation {
        2 => rect(right, r.y, r.width, r.height),
        3 => rect(right, bottom, r.width, r.height),
        4 => rect(r.x, bottom, r.width, r.height),
        5 => rect(r.y, r.x, r.height, r.width),
        6 => rect(r.y, right, r.height, r.width),
        7 => rect(bottom, right, r.height, r.width),
        8 => rect(bottom, r.x, r.height, r.width),
        _ => r,
    }
}

/// Reads a whole file; refuses by its size before reading. Errors as [`ImageError::Io`].
pub fn read_file(path: &Path, limits: &Limits) -> Result<Vec<u8>, ImageError> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(ImageError::NotAnImage("a folder or device, no file".into()));
    }
    if meta.len() > limits.file_bytes {
        return Err(ImageError::TooManyBytes {
            bytes: meta.len(),
            limit: limits.file_bytes,
        });
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize + 1);
    // The file may grow meanwhile: never read more than the limit.
    file.take(limits.file_bytes + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// [`read_file`], then [`decode`].
pub fn decode_file(
    path: &Path,
    limits: &Limits,
    cover: Option<(usize, usize)>,
) -> Result<Image, ImageError> {
    decode(&read_file(path, limits)?, limits, cover)
}

/// PNG row by row, so that only the RGB result is held (interlaced ones need one whole buffer).
fn decode_png(bytes: &[u8], info: &ImageInfo) -> Result<Image, ImageError> {
    let failed = |error: png::DecodingError| png_error(&error);
    let budget = (info.width as u64)
        .saturating_mul(info.height as u64)
        .saturating_mul(8)
        + (64 << 20);
    let limits = png::Limits {
        bytes: usize::try_from(budget).unwrap_or(usize::MAX),
    };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(failed)?;
    let (colour, _) = reader.output_color_type();
    let layout = Layout {
        channels: colour.samples(),
        bytes: 1,
    };
    let (width, height) = (info.width, info.height);
    let mut out = Vec::with_capacity(width * height * 3);
    if reader.info().interlaced {
        let size = reader
            .output_buffer_size()
            .ok_or_else(|| ImageError::damaged(Format::Png, "its size overflows"))?;
        let mut buffer = vec![0; size];
        reader.next_frame(&mut buffer).map_err(failed)?;
        append_rgb(&buffer, layout, &mut out);
    } else {
        while let Some(row) = reader.next_row().map_err(failed)? {
            append_rgb(row.data(), layout, &mut out);
        }
    }
    if out.len() != width * height * 3 {
        return Err(ImageError::damaged(Format::Png, "it is truncated"));
    }
    Image::new(width, height, out)
}

fn png_error(error: &png::DecodingError) -> ImageError {
    let text = error.to_string();
    let reason = match error {
        png::DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            "it is truncated".to_owned()
        }
        _ if text.contains("nexpected end") || text.contains("EOF") => "it is truncated".to_owned(),
        _ => text,
    };
    ImageError::damaged(Format::Png, reason)
}

fn decode_other(bytes: &[u8], format: Format) -> Result<Image, ImageError> {
    let mut decoder = open(bytes, format)?;
    let colour = decoder.color_type();
    let layout = match colour {
        ColorType::L8 => Layout {
            channels: 1,
            bytes: 1,
        },
        ColorType::La8 => Layout {
            channels: 2,
            bytes: 1,
        },
        ColorType::Rgb8 => Layout {
            channels: 3,
            bytes: 1,
        },
        ColorType::Rgba8 => Layout {
            channels: 4,
            bytes: 1,
        },
        ColorType::L16 => Layout {
            channels: 1,
            bytes: 2,
        },
        ColorType::La16 => Layout {
            channels: 2,
            bytes: 2,
        },
        ColorType::Rgb16 => Layout {
            channels: 3,
            bytes: 2,
        },
        ColorType::Rgba16 => Layout {
            channels: 4,
            bytes: 2,
        },
        other => {
            let what = format!("samples of kind {other:?}; only 8 and 16 bit integers are read");
            return Err(ImageError::unsupported(format, what));
        }
    };
    let (width, height) = decoder.dimensions();
    let total = decoder.total_bytes();
    let mut limits = ::image::Limits::default();
    limits.max_alloc = Some(total.saturating_mul(2).saturating_add(64 << 20));
    decoder
        .set_limits(limits)
        .map_err(|e| from_image_crate(format, &e))?;
    let size =
        usize::try_from(total).map_err(|_| ImageError::damaged(format, "its size overflows"))?;
    let mut data = vec![0; size];
    decoder
        .read_image_boxed(&mut data)
        .map_err(|e| from_image_crate(format, &e))?;
    Image::new(width as usize, height as usize, to_rgb(data, layout))
}
