//! What the pictures of a segmentation set have in common, told from some of them.

use oarlock_datasets::{Depth, SegmentSample};
use oarlock_imaging::{
    Format, Limits, Samples, channel_statistics, decode_raster, inspect, read_file,
};
use oarlock_jobs::ErrorCode;

use crate::records::Preprocessing;
use crate::{EngineError, Result};

/// Pictures whose header is read to learn the usual size.
const HEADERS: usize = 64;
/// Pictures whose values are looked at.
const VALUES: usize = 16;
/// Percentiles of a channel's values that become its range.
const PERCENTILES: (f64, f64) = (0.5, 99.5);

/// What the pictures have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pictures {
    /// Values of one pixel.
    pub channels: usize,
    /// Kind of the values.
    pub depth: Depth,
    /// Whether they are more than 8-bit RGB: `.npy`, other channels, 16 bits or floats.
    pub raster: bool,
    /// Median height and width.
    pub size: [u32; 2],
}

impl Pictures {
    /// Checks that a network with this preprocessing takes them.
    ///
    /// # Errors
    /// `InvalidData` when it takes other channels.
    pub fn fit(&self, how: &Preprocessing) -> Result<()> {
        let (ours, theirs) = (self.channels, how.mean.len());
        if ours == theirs {
            return Ok(());
        }
        let what = format!("the dataset's pictures have {ours} channels, the model takes {theirs}");
        Err(EngineError::new(ErrorCode::InvalidData, what)
            .hint("choose the dataset that the model was trained on"))
    }
}

/// Looks at headers spread over `samples`. The kind of pictures is that of the first that can be read; the loader
/// refuses others later, by name.
///
/// # Errors
/// `InvalidData` when none can be read.
pub fn look_at(samples: &[SegmentSample]) -> Result<Pictures> {
    let limits = Limits::default();
    let mut found: Option<(usize, Depth, bool)> = None;
    let mut reason = String::new();
    let (mut heights, mut widths) = (Vec::new(), Vec::new());
    for sample in spread(samples, HEADERS) {
        let read = read_file(&sample.path, &limits).and_then(|bytes| {
            let info = inspect(&bytes)?;
            let kind = match found {
                Some(kind) => kind,
                None => kind(&bytes, info.format, info.channels, info.depth)?,
            };
            Ok((kind, info.display_size()))
        });
        match read {
            Ok((kind, (width, height))) => {
                found = Some(kind);
                heights.push(height);
                widths.push(width);
            }
            Err(e) => reason = format!("'{}': {e}", sample.path.display()),
        }
    }
    let Some((channels, depth, raster)) = found else {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            format!("none of the training images can be read; {reason}"),
        ));
    };
    let median = |mut v: Vec<usize>| {
        v.sort_unstable();
        u32::try_from(v[v.len() / 2]).unwrap_or(u32::MAX)
    };
    Ok(Pictures {
        channels,
        depth,
        raster,
        size: [median(heights), median(widths)],
    })
}

fn kind(
    bytes: &[u8],
    format: Format,
    channels: u16,
    bits: u8,
) -> std::result::Result<(usize, Depth, bool), oarlock_imaging::ImageError> {
    let raster = match format {
        Format::Npy => true,
        // Grey and RGB of 8 bits are photographs, with alpha or not.
        Format::Tiff => channels > 4 || channels == 2 || bits != 8,
        _ => false,
    };
    if !raster {
        return Ok((3, Depth::U8, false));
    }
    let raster = decode_raster(bytes, &Limits::default())?;
    let depth = match raster.samples() {
        Samples::U8(_) => Depth::U8,
        Samples::U16(_) => Depth::U16,
        Samples::F32(_) => Depth::F32,
    };
    Ok((raster.channels(), depth, true))
}

/// Range of each channel's values, from some pictures: between the lowest low and the highest high percentile.
///
/// # Errors
/// `InvalidData` when none of them can be read, or a channel has one value only.
pub fn value_range(samples: &[SegmentSample]) -> Result<Vec<(f32, f32)>> {
    let limits = Limits::default();
    let mut range: Vec<(f32, f32)> = Vec::new();
    for sample in spread(samples, VALUES) {
        let raster = read_file(&sample.path, &limits).and_then(|b| decode_raster(&b, &limits));
        // Unreadable ones are told by the loader.
        let Ok(raster) = raster else { continue };
        for (c, numbers) in channel_statistics(&raster, PERCENTILES).iter().enumerate() {
            let (low, high) = numbers.percentiles;
            match range.get_mut(c) {
                Some(r) => *r = (r.0.min(low), r.1.max(high)),
                None => range.push((low, high)),
            }
        }
    }
    // A channel without contrast still needs a range.
    for (low, high) in &mut range {
        if *high <= *low {
            *high = *low + 1.0;
        }
    }
    if range.is_empty() {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            "none of the training images can be read",
        ));
    }
    Ok(range)
}

/// One value for each channel; a single one, or several that are equal, serve any number of channels.
pub fn per_channel(values: &[f32], channels: usize) -> Option<Vec<f32>> {
    let first = *values.first()?;
    if values.len() == channels {
        return Some(values.to_vec());
    }
    values
        .iter()
        .all(|v| *v == first)
        .then(|| vec![first; channels])
}

fn spread<T>(items: &[T], count: usize) -> impl Iterator<Item = &T> {
    items.iter().step_by(items.len().div_ceil(count).max(1))
}
