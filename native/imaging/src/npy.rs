//! NumPy's `.npy` files (format versions 1–3): numeric arrays of H×W or H×W×C.
//!
//! Arrays of Python objects are pickles and never read. The header must promise exactly the bytes
//! that follow, so nothing is allocated beyond the size of the file.

use crate::header::{Format, ImageInfo};
use crate::{ImageError, Raster, Samples};

/// What the header says.
pub(crate) struct Header {
    kind: Kind,
    big_endian: bool,
    fortran: bool,
    height: usize,
    width: usize,
    channels: usize,
    /// Where the samples start.
    start: usize,
}

/// Kind of one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Unsigned(usize),
    Signed(usize),
    Float(usize),
}

impl Kind {
    fn bytes(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::Unsigned(n) | Self::Signed(n) | Self::Float(n) => n,
        }
    }
}

fn bad(reason: impl Into<String>) -> ImageError {
    ImageError::damaged(Format::Npy, reason)
}

fn unsupported(what: impl Into<String>) -> ImageError {
    ImageError::unsupported(Format::Npy, what)
}

/// The text between the end of `key` with its colon and the rest of the dictionary.
fn after<'a>(text: &'a str, key: &str) -> Result<&'a str, ImageError> {
    [format!("'{key}'"), format!("\"{key}\"")]
        .iter()
        .find_map(|quoted| text.split_once(quoted.as_str()))
        .and_then(|(_, rest)| rest.trim_start().strip_prefix(':'))
        .map(str::trim_start)
        .ok_or_else(|| bad(format!("its header has no {key}")))
}

/// A descriptor such as `<f4`: kind and whether it is big-endian.
fn kind(rest: &str) -> Result<(Kind, bool), ImageError> {
    let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
        return Err(unsupported(
            "a structured array; only plain numbers are read",
        ));
    };
    let descriptor = rest[1..]
        .split(quote)
        .next()
        .filter(|d| d.is_ascii() && (2..=8).contains(&d.len()))
        .ok_or_else(|| bad("its element type cannot be read"))?;
    let (order, name) = descriptor.split_at(1);
    if name.starts_with('O') {
        return Err(unsupported(
            "an array of Python objects, which are never loaded; save it with a numeric dtype",
        ));
    }
    let kind = match name {
        "b1" => Kind::Bool,
        "u1" => Kind::Unsigned(1),
        "u2" => Kind::Unsigned(2),
        "u4" => Kind::Unsigned(4),
        "u8" => Kind::Unsigned(8),
        "i1" => Kind::Signed(1),
        "i2" => Kind::Signed(2),
        "i4" => Kind::Signed(4),
        "i8" => Kind::Signed(8),
        "f2" => Kind::Float(2),
        "f4" => Kind::Float(4),
        "f8" => Kind::Float(8),
        other => return Err(unsupported(format!("elements of type {other}"))),
    };
    match order {
        "<" | "|" | "=" => Ok((kind, false)),
        ">" => Ok((kind, true)),
        _ => Err(bad("its byte order cannot be read")),
    }
}

fn shape(rest: &str) -> Result<(usize, usize, usize), ImageError> {
    let inner = rest
        .strip_prefix('(')
        .and_then(|r| r.split_once(')'))
        .ok_or_else(|| bad("its shape cannot be read"))?
        .0;
    let sides = inner
        .split(',')
        .map(|s| s.trim().trim_end_matches('L'))
        .filter(|s| !s.is_empty())
        .map(str::parse)
        .collect::<Result<Vec<usize>, _>>()
        .map_err(|_| bad("its shape cannot be read"))?;
    match sides[..] {
        [height, width] => Ok((height, width, 1)),
        [height, width, channels] => Ok((height, width, channels)),
        _ => Err(unsupported(format!(
            "{} dimensions; height × width or height × width × channels is read",
            sides.len()
        ))),
    }
}

/// Reads the header and checks that exactly the promised samples follow.
pub(crate) fn header(bytes: &[u8]) -> Result<Header, ImageError> {
    let cut = || bad("it ends within the header");
    let version = *bytes.get(6).ok_or_else(cut)?;
    let (length, start) = match version {
        1 => {
            let b = bytes.get(8..10).ok_or_else(cut)?;
            (usize::from(u16::from_le_bytes([b[0], b[1]])), 10)
        }
        2 | 3 => {
            let b = bytes.get(8..12).ok_or_else(cut)?;
            (u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize, 12)
        }
        other => return Err(unsupported(format!("format version {other}"))),
    };
    // NumPy itself refuses headers above 10,000 characters.
    if length > 10_000 {
        return Err(bad("its header is far too long"));
    }
    let text = bytes.get(start..start + length).ok_or_else(cut)?;
    let text = std::str::from_utf8(text).map_err(|_| bad("its header is no text"))?;
    let (kind, big_endian) = kind(after(text, "descr")?)?;
    let fortran = match after(text, "fortran_order")? {
        rest if rest.starts_with("True") => true,
        rest if rest.starts_with("False") => false,
        _ => return Err(bad("its memory order cannot be read")),
    };
    let (height, width, channels) = shape(after(text, "shape")?)?;
    let start = start + length;
    let promised = height
        .checked_mul(width)
        .and_then(|n| n.checked_mul(channels))
        .and_then(|n| n.checked_mul(kind.bytes()))
        .ok_or_else(|| bad("its size overflows"))?;
    let there = bytes.len() - start;
    if promised > there {
        return Err(bad("it is truncated"));
    }
    if promised < there {
        return Err(bad("bytes follow behind the array"));
    }
    Ok(Header {
        kind,
        big_endian,
        fortran,
        height,
        width,
        channels,
        start,
    })
}

/// The header as every format tells it.
pub(crate) fn info(bytes: &[u8]) -> Result<ImageInfo, ImageError> {
    let head = header(bytes)?;
    Ok(ImageInfo {
        format: Format::Npy,
        width: head.width,
        height: head.height,
        channels: u16::try_from(head.channels)
            .map_err(|_| unsupported("more than 65535 channels"))?,
        depth: head.kind.bytes() as u8 * 8,
        orientation: 1,
    })
}

/// Reads `N` bytes an element, whatever their order, and turns them by `value`.
fn elements<const N: usize, T: Copy>(
    bytes: &[u8],
    big_endian: bool,
    value: impl Fn([u8; N]) -> T,
) -> Vec<T> {
    let read = |chunk: &[u8]| {
        let mut raw = [0; N];
        raw.copy_from_slice(chunk);
        if big_endian {
            raw.reverse();
        }
        value(raw)
    };
    bytes.chunks_exact(N).map(read).collect()
}

/// Decodes the array; limits were checked by the caller.
pub(crate) fn decode(bytes: &[u8]) -> Result<Raster, ImageError> {
    let head = header(bytes)?;
    let data = &bytes[head.start..];
    let big = head.big_endian;
    let samples = match head.kind {
        Kind::Bool => Samples::U8(data.iter().map(|v| u8::from(*v != 0)).collect()),
        Kind::Unsigned(1) => Samples::U8(data.to_vec()),
        Kind::Unsigned(2) => Samples::U16(elements(data, big, u16::from_le_bytes)),
        Kind::Unsigned(4) => Samples::F32(elements(data, big, |b| u32::from_le_bytes(b) as f32)),
        Kind::Unsigned(_) => Samples::F32(elements(data, big, |b| u64::from_le_bytes(b) as f32)),
        Kind::Signed(1) => Samples::F32(elements(data, big, |b| f32::from(i8::from_le_bytes(b)))),
        Kind::Signed(2) => Samples::F32(elements(data, big, |b| f32::from(i16::from_le_bytes(b)))),
        Kind::Signed(4) => Samples::F32(elements(data, big, |b| i32::from_le_bytes(b) as f32)),
        Kind::Signed(_) => Samples::F32(elements(data, big, |b| i64::from_le_bytes(b) as f32)),
        Kind::Float(2) => Samples::F32(elements(data, big, |b| half::f16::from_le_bytes(b).into())),
        Kind::Float(4) => Samples::F32(elements(data, big, f32::from_le_bytes)),
        Kind::Float(_) => Samples::F32(elements(data, big, |b| f64::from_le_bytes(b) as f32)),
    };
    let (h, w, c) = (head.height, head.width, head.channels);
    let samples = if head.fortran {
        match samples {
            Samples::U8(v) => Samples::U8(rows_first(&v, h, w, c)),
            Samples::U16(v) => Samples::U16(rows_first(&v, h, w, c)),
            Samples::F32(v) => Samples::F32(rows_first(&v, h, w, c)),
        }
    } else {
        samples
    };
    Raster::new(w, h, c, samples)
}

/// From Fortran order (first index fastest) to rows.
fn rows_first<T: Copy>(data: &[T], h: usize, w: usize, c: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(data.len());
    for y in 0..h {
        for x in 0..w {
            out.extend((0..c).map(|k| data[y + h * (x + w * k)]));
        }
    }
    out
}
