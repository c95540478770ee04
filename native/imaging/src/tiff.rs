//! TIFF with any number of channels, chunky or planar, as remote sensing uses it.

use std::borrow::Cow;
use std::io::Cursor;

use ::tiff::decoder::{Decoder, DecodingResult, Limits as TiffLimits};
use ::tiff::tags::Tag;
use ::tiff::{ColorType, TiffError};

use crate::header::{Format, ImageInfo};
use crate::{ImageError, Raster, Samples, exif};

/// How far LZW and deflate shrink bytes at the very most: what a file promises beyond is a lie.
const MAX_EXPANSION: u64 = 2_000;

type Reader<'a> = Decoder<Cursor<Cow<'a, [u8]>>>;

fn failed(error: &TiffError) -> ImageError {
    let reason = match error {
        TiffError::IoError(_) => "it is truncated".to_owned(),
        TiffError::LimitsExceeded => "it claims more than its size can hold".to_owned(),
        TiffError::UnsupportedError(what) => {
            return ImageError::unsupported(Format::Tiff, what.to_string());
        }
        other => other.to_string(),
    };
    ImageError::damaged(Format::Tiff, reason)
}

/// An entry of a directory.
struct Entry {
    tag: u64,
    /// Bytes that its values take.
    bytes: u64,
    /// Where its value, or the place of its values, stands.
    value: usize,
}

/// Entries of the first directory; none when the file ends before them.
fn directory(bytes: &[u8]) -> Option<Vec<Entry>> {
    let little = bytes.starts_with(b"II");
    let number = |at: usize, size: usize| -> Option<u64> {
        let raw = bytes.get(at..at.checked_add(size)?)?;
        let fold = |sum: u64, b: &u8| sum << 8 | u64::from(*b);
        Some(if little {
            raw.iter().rev().fold(0, fold)
        } else {
            raw.iter().fold(0, fold)
        })
    };
    // BigTIFF (version 43) has 64-bit places and entries of 20 bytes.
    let big = number(2, 2)? == 43;
    let (place, long, counter, size) = if big { (8, 8, 8, 20) } else { (4, 4, 2, 12) };
    let start = usize::try_from(number(place, long)?).ok()?;
    let entries = usize::try_from(number(start, counter)?).ok()?;
    let first = start.checked_add(counter)?;
    bytes.get(first..first.checked_add(entries.checked_mul(size)?)?)?;
    let read = |i: usize| {
        let at = first + i * size;
        let unit = match number(at + 2, 2)? {
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            _ => 1,
        };
        Some(Entry {
            tag: number(at, 2)?,
            bytes: number(at + 4, long)?.saturating_mul(unit),
            value: at + 4 + long,
        })
    };
    (0..entries).map(read).collect()
}

/// Refuses entries that claim more than the whole file: the reader crate would take memory for them.
fn check_directory(bytes: &[u8]) -> Result<(), ImageError> {
    let bad = |reason: &str| Err(ImageError::damaged(Format::Tiff, reason));
    match directory(bytes) {
        None => bad("it is truncated"),
        Some(all) if all.iter().any(|e| e.bytes > bytes.len() as u64) => {
            bad("it claims more than its size can hold")
        }
        Some(_) => Ok(()),
    }
}

/// The reader crate leaves out channels beyond red, green and blue; without the meaning "RGB"
/// (photometric interpretation 2) the same bytes are a stack of bands, and every one is read.
fn as_bands(bytes: &[u8]) -> Cow<'_, [u8]> {
    const PHOTOMETRIC: u64 = 262;
    let entries = directory(bytes).unwrap_or_default();
    let Some(entry) = entries.iter().find(|e| e.tag == PHOTOMETRIC) else {
        return Cow::Borrowed(bytes);
    };
    let at = entry.value;
    let (rgb, grey): ([u8; 2], [u8; 2]) = if bytes.starts_with(b"II") {
        ([2, 0], [1, 0])
    } else {
        ([0, 2], [0, 1])
    };
    if bytes.get(at..at + 2) != Some(&rgb[..]) {
        return Cow::Borrowed(bytes);
    }
    let mut copy = bytes.to_vec();
    copy[at..at + 2].copy_from_slice(&grey);
    Cow::Owned(copy)
}

fn open(bytes: Cow<'_, [u8]>) -> Result<Reader<'_>, ImageError> {
    let file = bytes.len();
    let mut limits = TiffLimits::default();
    limits.ifd_value_size = limits.ifd_value_size.min(file);
    limits.intermediate_buffer_size = file;
    let decoder = Decoder::new(Cursor::new(bytes)).map_err(|e| failed(&e))?;
    Ok(decoder.with_limits(limits))
}

/// Width, height, channels, depth and orientation of the first picture.
pub(crate) fn info(bytes: &[u8]) -> Result<ImageInfo, ImageError> {
    check_directory(bytes)?;
    let mut decoder = open(Cow::Borrowed(bytes))?;
    let (width, height) = decoder.dimensions().map_err(|e| failed(&e))?;
    let colour = decoder.colortype().map_err(|e| failed(&e))?;
    let samples = decoder
        .find_tag_unsigned::<u16>(Tag::SamplesPerPixel)
        .map_err(|e| failed(&e))?
        .unwrap_or(1);
    Ok(ImageInfo {
        format: Format::Tiff,
        width: width as usize,
        height: height as usize,
        channels: match colour {
            ColorType::Palette(_) => 3,
            _ => samples.max(1),
        },
        depth: colour.bit_depth(),
        orientation: exif::orientation(bytes).unwrap_or(1),
    })
}

/// Every channel of the first picture, as stored. The caller checked the header against its limits.
pub(crate) fn decode(bytes: &[u8], info: &ImageInfo) -> Result<Raster, ImageError> {
    if !matches!(info.depth, 8 | 16 | 32 | 64) {
        let what = format!("{} bits a sample; 8, 16, 32 and 64 are read", info.depth);
        return Err(ImageError::unsupported(Format::Tiff, what));
    }
    let (width, height, channels) = (info.width, info.height, usize::from(info.channels));
    let count = width
        .checked_mul(height)
        .and_then(|n| n.checked_mul(channels))
        .ok_or_else(|| ImageError::damaged(Format::Tiff, "its size overflows"))?;
    let size = count as u64 * u64::from(info.depth / 8);
    if size > bytes.len() as u64 * MAX_EXPANSION {
        let reason = "it claims more than its size can hold";
        return Err(ImageError::damaged(Format::Tiff, reason));
    }
    let mut decoder = open(if channels > 3 {
        as_bands(bytes)
    } else {
        bytes.into()
    })?;
    let mut limits = TiffLimits::default();
    limits.intermediate_buffer_size = bytes.len();
    limits.decoding_buffer_size = usize::try_from(size).unwrap_or(usize::MAX);
    decoder = decoder.with_limits(limits);
    let mut result = DecodingResult::U8(Vec::new());
    let layout = decoder
        .read_image_to_buffer(&mut result)
        .map_err(|e| failed(&e))?;
    let planar = layout.planes > 1;
    macro_rules! floats {
        ($values:expr) => {
            Samples::F32($values.into_iter().map(|v| v as f32).collect())
        };
    }
    let samples = match result {
        DecodingResult::U8(v) => Samples::U8(v),
        DecodingResult::U16(v) => Samples::U16(v),
        DecodingResult::F32(v) => Samples::F32(v),
        DecodingResult::F16(v) => Samples::F32(v.into_iter().map(f32::from).collect()),
        DecodingResult::F64(v) => floats!(v),
        DecodingResult::I8(v) => floats!(v),
        DecodingResult::I16(v) => floats!(v),
        DecodingResult::I32(v) => floats!(v),
        DecodingResult::I64(v) => floats!(v),
        DecodingResult::U32(v) => floats!(v),
        DecodingResult::U64(v) => floats!(v),
    };
    if samples.len() != count {
        let what = format!("{} of {count} samples could be read", samples.len());
        return Err(ImageError::unsupported(Format::Tiff, what));
    }
    let samples = match samples {
        same if !planar => same,
        Samples::U8(v) => Samples::U8(interleaved(&v, channels)),
        Samples::U16(v) => Samples::U16(interleaved(&v, channels)),
        Samples::F32(v) => Samples::F32(interleaved(&v, channels)),
    };
    Raster::new(width, height, channels, samples)
}

/// From planes to channels last.
fn interleaved<T: Copy + Default>(planes: &[T], channels: usize) -> Vec<T> {
    let size = planes.len() / channels;
    let mut out = vec![T::default(); planes.len()];
    for (channel, plane) in planes.chunks_exact(size).enumerate() {
        for (slot, value) in out.iter_mut().skip(channel).step_by(channels).zip(plane) {
            *slot = *value;
        }
    }
    out
}
