//! JPEG by libjpeg-turbo: scaled in the DCT domain, only the needed region, strict about damage.

#[cfg(target_arch = "x86_64")]
mod baseline;
#[cfg(target_arch = "x86_64")]
mod dct;
mod eighth;
mod entropy;
mod frame;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(test)]
mod testing;
mod upsample;

use std::cell::RefCell;
use std::ffi::CStr;

use turbojpeg::raw;

use crate::header::{Format, ImageInfo};
use crate::{Image, ImageError, Rect, exif, pool};

/// Progressive files may hold thousands of scans that each cost a whole pass; real ones have about 10.
const MAX_SCANS: i32 = 100;
/// MiB that libjpeg-turbo may hold for coefficients of a progressive file.
const MAX_MEMORY_MIB: i32 = 1100;

/// What the markers before the pixels say.
pub(crate) struct Header {
    pub info: ImageInfo,
    /// Adobe's marker is there: CMYK values are stored inverted.
    adobe: bool,
    /// Lossless JPEG cannot be scaled.
    lossless: bool,
    /// Sequential Huffman, 8 bits, the components of JFIF, no word of Adobe's on their colours.
    plain: bool,
}

/// Whether every decoder reads this file as this crate does, those in hardware too: a sequential
/// 8-bit JPEG of Y, Cb and Cr in its stored orientation that ends with its end marker.
pub fn is_plain_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8])
        && bytes.ends_with(&[0xff, 0xd9])
        && header(bytes).is_ok_and(|head| head.plain && head.info.orientation == 1)
}

/// Walks the markers up to the frame header; takes no memory.
pub(crate) fn header(bytes: &[u8]) -> Result<Header, ImageError> {
    let cut = || ImageError::damaged(Format::Jpeg, "it ends within the header");
    let mut orientation = 1;
    let mut adobe = false;
    let mut at = 2usize;
    loop {
        // Fill bytes and stray bytes before a marker are legal or at least common.
        while *bytes.get(at).ok_or_else(cut)? != 0xff {
            at += 1;
        }
        while *bytes.get(at).ok_or_else(cut)? == 0xff {
            at += 1;
        }
        let marker = bytes[at];
        at += 1;
        if matches!(marker, 0x00 | 0x01 | 0xd0..=0xd8) {
            continue;
        }
        if matches!(marker, 0xd9 | 0xda) {
            return Err(ImageError::damaged(Format::Jpeg, "it has no frame header"));
        }
        let length = bytes.get(at..at + 2).ok_or_else(cut)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length < 2 {
            return Err(ImageError::damaged(
                Format::Jpeg,
                "a marker has an impossible length",
            ));
        }
        let body = bytes.get(at + 2..at + length).ok_or_else(cut)?;
        match marker {
            0xe1 if body.starts_with(b"Exif\0\0") => {
                orientation = exif::orientation(&body[6..]).unwrap_or(orientation);
            }
            0xee if body.starts_with(b"Adobe") => adobe = true,
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                if body.len() < 6 {
                    return Err(cut());
                }
                let info = ImageInfo {
                    format: Format::Jpeg,
                    height: usize::from(u16::from_be_bytes([body[1], body[2]])),
                    width: usize::from(u16::from_be_bytes([body[3], body[4]])),
                    channels: body[5].into(),
                    depth: body[0],
                    orientation,
                };
                let lossless = matches!(marker, 0xc3 | 0xc7 | 0xcb | 0xcf);
                let ids = [6, 9, 12].map(|i| body.get(i).copied());
                let jfif = ids == [Some(1), Some(2), Some(3)] && body[5] == 3;
                let plain = matches!(marker, 0xc0 | 0xc1) && jfif && body[0] == 8 && !adobe;
                return Ok(Header {
                    info,
                    adobe,
                    lossless,
                    plain,
                });
            }
            _ => {}
        }
        at += length;
    }
}

/// A libjpeg-turbo decompressor; one a thread.
struct Turbo(raw::tjhandle);

impl Turbo {
    fn new() -> Result<Self, ImageError> {
        // SAFETY: plain constructor call; a null result is checked.
        let handle = unsafe { raw::tj3Init(raw::TJINIT_TJINIT_DECOMPRESS as i32) };
        if handle.is_null() {
            return Err(ImageError::damaged(
                Format::Jpeg,
                "the decoder could not be started",
            ));
        }
        let this = Self(handle);
        this.set(raw::TJPARAM_TJPARAM_SCANLIMIT, MAX_SCANS)?;
        this.set(raw::TJPARAM_TJPARAM_MAXMEMORY, MAX_MEMORY_MIB)?;
        Ok(this)
    }

    fn set(&self, param: raw::TJPARAM, value: i32) -> Result<(), ImageError> {
        // SAFETY: the handle lives as long as self.
        match unsafe { raw::tj3Set(self.0, param as i32, value) } {
            0 => Ok(()),
            _ => Err(ImageError::damaged(Format::Jpeg, self.message())),
        }
    }

    fn get(&self, param: raw::TJPARAM) -> i32 {
        // SAFETY: the handle lives as long as self.
        unsafe { raw::tj3Get(self.0, param as i32) }
    }

    /// The last error or warning, as libjpeg words it.
    fn message(&self) -> String {
        // SAFETY: never null, NUL-terminated, owned by the handle, copied at once.
        let text = unsafe { CStr::from_ptr(raw::tj3GetErrorStr(self.0)) };
        let text = text.to_string_lossy();
        match text.as_ref() {
            t if t.contains("Premature end") || t.contains("premature end") => {
                "it is truncated".to_owned()
            }
            t => t.replace('\n', " "),
        }
    }

    /// Whether the failure is only a remark about stray bytes, with every pixel decoded.
    fn harmless(&self) -> bool {
        // SAFETY: the handle lives as long as self; the text is copied at once.
        let (code, text) = unsafe {
            (
                raw::tj3GetErrorCode(self.0),
                CStr::from_ptr(raw::tj3GetErrorStr(self.0)),
            )
        };
        let text = text.to_string_lossy();
        code == raw::TJERR_TJERR_WARNING as i32
            && (text.contains("extraneous bytes before marker")
                || text.contains("Unknown Adobe color transform")
                || text.contains("unknown JFIF revision")
                || text.contains("Invalid SOS parameters for sequential"))
    }
}

impl Drop for Turbo {
    fn drop(&mut self) {
        // SAFETY: created by tj3Init, destroyed once.
        unsafe { raw::tj3Destroy(self.0) };
    }
}

thread_local! {
    static TURBO: RefCell<Option<Turbo>> = const { RefCell::new(None) };
}

/// Size of a side after scaling by 1/`denominator`, as libjpeg rounds it.
pub(crate) fn scaled(side: usize, denominator: usize) -> usize {
    side.div_ceil(denominator)
}

/// Largest of 8, 4, 2, 1 by which the stored size can be divided and still cover the needed size.
pub(crate) fn denominator(stored: (usize, usize), needed: (usize, usize)) -> usize {
    [8, 4, 2]
        .into_iter()
        .find(|&d| scaled(stored.0, d) >= needed.0 && scaled(stored.1, d) >= needed.1)
        .unwrap_or(1)
}

/// Decodes the stored picture at 1/`denominator`; with `region` (in scaled, stored coordinates)
/// only that part, pixel for pixel the same as cutting it from the whole.
pub(crate) fn decode(
    bytes: &[u8],
    denominator: usize,
    region: Option<Rect>,
) -> Result<Image, ImageError> {
    if denominator == 8
        && let Some(image) = eighth::decode(bytes, region)
    {
        return Ok(image);
    }
    #[cfg(target_arch = "x86_64")]
    if denominator == 1
        && let Some(image) = baseline::decode(bytes, region)
    {
        return Ok(image);
    }
    decode_turbo(bytes, denominator, region)
}

fn decode_turbo(
    bytes: &[u8],
    denominator: usize,
    region: Option<Rect>,
) -> Result<Image, ImageError> {
    TURBO.with_borrow_mut(|slot| {
        let turbo = match slot {
            Some(turbo) => turbo,
            None => slot.insert(Turbo::new()?),
        };
        let result = decode_with(turbo, bytes, denominator, region);
        if result.is_err() {
            *slot = None; // never reuse a decoder that has seen damaged data
        }
        result
    })
}

fn decode_with(
    turbo: &Turbo,
    bytes: &[u8],
    denominator: usize,
    region: Option<Rect>,
) -> Result<Image, ImageError> {
    let head = header(bytes)?;
    let failed = || ImageError::damaged(Format::Jpeg, turbo.message());
    if head.info.depth != 8 {
        let what = format!("{} bits a sample; only 8 are read", head.info.depth);
        return Err(ImageError::unsupported(Format::Jpeg, what));
    }
    // SAFETY: pointer and length describe `bytes`, which outlives the call.
    let code = unsafe { raw::tj3DecompressHeader(turbo.0, bytes.as_ptr(), bytes.len() as _) };
    if code != 0 && !turbo.harmless() {
        return Err(failed());
    }
    // libjpeg-turbo's own reading is what sizes its output: it must agree with ours.
    let side = |param| usize::try_from(turbo.get(param)).unwrap_or(0);
    let (width, height) = (
        side(raw::TJPARAM_TJPARAM_JPEGWIDTH),
        side(raw::TJPARAM_TJPARAM_JPEGHEIGHT),
    );
    if (width, height) != (head.info.width, head.info.height) || width == 0 || height == 0 {
        return Err(ImageError::damaged(
            Format::Jpeg,
            "it has contradicting frame headers",
        ));
    }
    let denominator = if head.lossless { 1 } else { denominator };
    let factor = raw::tjscalingfactor {
        num: 1,
        denom: denominator as i32,
    };
    // SAFETY: the handle is valid; the factor is one of those libjpeg-turbo offers.
    if unsafe { raw::tj3SetScalingFactor(turbo.0, factor) } != 0 {
        return Err(failed());
    }
    let (full_w, full_h) = (scaled(width, denominator), scaled(height, denominator));
    let whole = Rect {
        x: 0,
        y: 0,
        width: full_w,
        height: full_h,
    };
    let wanted = region.map_or(whole, |r| r.clamped(full_w, full_h));
    let block = mcu_width(turbo).map(|w| w.div_ceil(denominator));
    let read = match block {
        Some(block) if wanted != whole && !head.lossless => around(wanted, block, whole),
        _ => whole,
    };
    let crop = if read == whole {
        raw::tjregion {
            x: 0,
            y: 0,
            w: 0,
            h: 0,
        }
    } else {
        raw::tjregion {
            x: read.x as i32,
            y: read.y as i32,
            w: read.width as i32,
            h: read.height as i32,
        }
    };
    // SAFETY: the handle is valid and has read the header; libjpeg-turbo checks the region itself.
    if unsafe { raw::tj3SetCroppingRegion(turbo.0, crop) } != 0 {
        return Err(failed());
    }

    let colourspace = turbo.get(raw::TJPARAM_TJPARAM_COLORSPACE);
    let cmyk =
        colourspace == raw::TJCS_TJCS_CMYK as i32 || colourspace == raw::TJCS_TJCS_YCCK as i32;
    let (channels, pixel_format) = if cmyk {
        (4, raw::TJPF_TJPF_CMYK)
    } else {
        (3, raw::TJPF_TJPF_RGB)
    };
    let mut pixels = pool::take(read.width * read.height * channels);
    // SAFETY: `pixels` has pitch·height bytes for the region just set; both buffers outlive the call.
    let code = unsafe {
        raw::tj3Decompress8(
            turbo.0,
            bytes.as_ptr(),
            bytes.len() as _,
            pixels.as_mut_ptr(),
            (read.width * channels) as i32,
            pixel_format,
        )
    };
    if code != 0 && !turbo.harmless() {
        return Err(failed());
    }
    if cmyk {
        pixels = cmyk_to_rgb(&pixels, head.adobe);
    }
    let image = Image::new(read.width, read.height, pixels)?;
    if read == wanted {
        return Ok(image);
    }
    let part = image.crop(Rect {
        x: wanted.x - read.x,
        y: wanted.y - read.y,
        ..wanted
    });
    image.recycle();
    Ok(part)
}

/// Width in pixels of the smallest unit of columns that can be left out; none for odd subsamplings.
fn mcu_width(turbo: &Turbo) -> Option<usize> {
    match turbo.get(raw::TJPARAM_TJPARAM_SUBSAMP) {
        s if s == raw::TJSAMP_TJSAMP_444 || s == raw::TJSAMP_TJSAMP_GRAY => Some(8),
        s if s == raw::TJSAMP_TJSAMP_440 || s == raw::TJSAMP_TJSAMP_441 => Some(8),
        s if s == raw::TJSAMP_TJSAMP_422 || s == raw::TJSAMP_TJSAMP_420 => Some(16),
        s if s == raw::TJSAMP_TJSAMP_411 => Some(32),
        _ => None,
    }
}

/// The region widened to whole units, plus one at each side: smooth chroma upsampling looks at
/// neighbours, and with them the pixels equal those of a whole decode.
fn around(wanted: Rect, block: usize, whole: Rect) -> Rect {
    let left = (wanted.x / block).saturating_sub(1) * block;
    let right = ((wanted.x + wanted.width).div_ceil(block) + 1) * block;
    let right = right.min(whole.width);
    Rect {
        x: left,
        y: wanted.y,
        width: right - left,
        height: wanted.height,
    }
}

/// Ink to light, without a colour profile: R = C'·K' with inverted inks (as OpenCV and Pillow do).
fn cmyk_to_rgb(cmyk: &[u8], inverted: bool) -> Vec<u8> {
    let flip = if inverted { 0 } else { 0xff };
    let mut out = Vec::with_capacity(cmyk.len() / 4 * 3);
    for ink in cmyk.chunks_exact(4) {
        let key = u32::from(ink[3] ^ flip);
        for &c in &ink[..3] {
            out.push(((u32::from(c ^ flip) * key + 127) / 255) as u8);
        }
    }
    out
}
