//! Masks as run lengths, the form of COCO files: pixels are counted down the columns, left column first,
//! runs of 0 and of 1 in turn, 0 first (Lin et al. 2014, "Microsoft COCO", and its mask format).

use crate::{ImageError, Limits, Plane};

/// Why something is no mask. Messages do not name the annotation: the caller knows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RleError {
    /// No pixels, or more than an image may have.
    #[error("a mask of {width}×{height} pixels: it needs at least 1 and at most {limit} pixels")]
    Size {
        /// Stated width.
        width: u32,
        /// Stated height.
        height: u32,
        /// Most pixels allowed.
        limit: u64,
    },
    /// The runs do not fill the picture.
    #[error("the run lengths sum up to {sum}, but {width}×{height} pixels are {pixels}")]
    Sum {
        /// Sum of the runs, as far as it was added up.
        sum: u64,
        /// Stated width.
        width: u32,
        /// Stated height.
        height: u32,
        /// Their product.
        pixels: u32,
    },
    /// The compressed text is damaged.
    #[error("damaged run lengths at character {position} of the compressed text")]
    Text {
        /// Byte position from 0.
        position: usize,
    },
    /// A polygon that encloses nothing or has coordinates that are no numbers.
    #[error("polygon {index} {reason}")]
    Polygon {
        /// Which of the polygons, from 0.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A binary mask as run lengths. No run but the first is 0, and they sum up to the pixels of the picture.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rle {
    width: u32,
    height: u32,
    counts: Vec<u32>,
}

/// Pixels of a picture that may have a mask.
pub(crate) fn pixels(width: u32, height: u32) -> Result<u32, RleError> {
    let limit = Limits::default().pixels.min(u64::from(u32::MAX));
    match u64::from(width) * u64::from(height) {
        count if (1..=limit).contains(&count) => Ok(count as u32),
        _ => Err(RleError::Size {
            width,
            height,
            limit,
        }),
    }
}

impl Rle {
    /// From run lengths (`counts` as a list in COCO files).
    ///
    /// # Errors
    /// [`RleError::Size`]; [`RleError::Sum`] when the runs are not as many as the pixels.
    pub fn new(width: u32, height: u32, counts: &[u32]) -> Result<Self, RleError> {
        let pixels = pixels(width, height)?;
        let sum: u64 = counts.iter().map(|&c| u64::from(c)).sum();
        if sum != u64::from(pixels) {
            return Err(RleError::Sum {
                sum,
                width,
                height,
                pixels,
            });
        }
        let mut start = 0;
        let runs = counts.iter().enumerate().filter_map(|(i, &count)| {
            let run = (start, start + count);
            start += count;
            (i % 2 == 1).then_some(run)
        });
        Ok(Self::from_runs(width, height, runs))
    }

    /// From the compressed text of COCO files: each length in groups of 5 bits, least first, from the
    /// character `0` on, 32 marking that more follow; from the fourth on, the difference to the length
    /// before the last.
    ///
    /// # Errors
    /// [`RleError::Text`] for a damaged text, and those of [`Rle::new`].
    pub fn from_compressed(width: u32, height: u32, text: &str) -> Result<Self, RleError> {
        let limit = i64::from(pixels(width, height)?);
        let mut counts: Vec<u32> = Vec::new();
        let (mut value, mut shift) = (0i64, 0);
        for (position, byte) in text.bytes().enumerate() {
            let group = i64::from(byte) - 48;
            if !(0..64).contains(&group) || shift > 35 {
                return Err(RleError::Text { position });
            }
            value |= (group & 31) << shift;
            shift += 5;
            if group & 32 != 0 {
                continue;
            }
            if group & 16 != 0 {
                value |= -1 << shift;
            }
            if counts.len() > 2 {
                value += i64::from(counts[counts.len() - 2]);
            }
            if !(0..=limit).contains(&value) {
                return Err(RleError::Text { position });
            }
            counts.push(value as u32);
            (value, shift) = (0, 0);
        }
        if shift != 0 {
            return Err(RleError::Text {
                position: text.len(),
            });
        }
        Self::new(width, height, &counts)
    }

    /// From a mask: every value but 0 is set.
    ///
    /// # Errors
    /// [`RleError::Size`].
    pub fn from_plane(plane: &Plane) -> Result<Self, RleError> {
        let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        let (width, height) = (side(plane.width()), side(plane.height()));
        pixels(width, height)?;
        let mut counts = Vec::new();
        let (mut run, mut set) = (0, false);
        for x in 0..plane.width() {
            let column = plane.data()[x..].iter().step_by(plane.width());
            for &value in column {
                if (value != 0) != set {
                    counts.push(run);
                    (run, set) = (0, !set);
                }
                run += 1;
            }
        }
        counts.push(run);
        Ok(Self {
            width,
            height,
            counts,
        })
    }

    /// From runs of set pixels, half open, in order of their starts; they may touch and overlap. The
    /// caller has checked the size and that the runs lie within.
    pub(crate) fn from_runs(
        width: u32,
        height: u32,
        runs: impl IntoIterator<Item = (u32, u32)>,
    ) -> Self {
        let mut counts: Vec<u32> = Vec::new();
        let mut end = 0;
        for (from, to) in runs {
            let from = from.max(end);
            if from >= to {
                continue;
            }
            match counts.last_mut() {
                Some(last) if from == end => *last += to - from,
                _ => counts.extend([from - end, to - from]),
            }
            end = to;
        }
        if end < width * height {
            counts.push(width * height - end);
        }
        Self {
            width,
            height,
            counts,
        }
    }

    /// All pixels of some of the masks; `None` without masks or when their sizes differ.
    pub fn union<'a>(masks: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut masks = masks.into_iter();
        let first = masks.next()?;
        let mut runs: Vec<(u32, u32)> = first.runs().collect();
        for mask in masks {
            if (mask.width, mask.height) != (first.width, first.height) {
                return None;
            }
            runs.extend(mask.runs());
        }
        runs.sort_unstable();
        Some(Self::from_runs(first.width, first.height, runs))
    }

    /// Width of the picture.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height of the picture.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Run lengths.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// The compressed text of COCO files; see [`Rle::from_compressed`].
    pub fn compressed(&self) -> String {
        let mut text = String::with_capacity(self.counts.len() * 2);
        for (i, &count) in self.counts.iter().enumerate() {
            let before = if i > 2 { self.counts[i - 2] } else { 0 };
            let mut value = i64::from(count) - i64::from(before);
            loop {
                let group = (value & 31) as u8;
                value >>= 5;
                let done = value == if group & 16 != 0 { -1 } else { 0 };
                text.push(char::from(48 + group + if done { 0 } else { 32 }));
                if done {
                    break;
                }
            }
        }
        text
    }

    /// Runs of set pixels, half open.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u32, u32)> {
        let mut end = 0;
        self.counts.chunks(2).filter_map(move |pair| {
            let &[clear, set] = pair else { return None };
            let from = end + clear;
            end = from + set;
            Some((from, end))
        })
    }

    /// The mask: 1 where it is set.
    ///
    /// # Errors
    /// None for a mask made by this type; the plane's own check.
    pub fn to_plane(&self) -> Result<Plane, ImageError> {
        let (width, height) = (self.width as usize, self.height as usize);
        let mut data = vec![0; width * height];
        for (from, to) in self.runs() {
            let (mut x, mut y) = (from as usize / height, from as usize % height);
            for _ in from..to {
                data[y * width + x] = 1;
                y += 1;
                if y == height {
                    (x, y) = (x + 1, 0);
                }
            }
        }
        Plane::new(width, height, data)
    }

    /// Set pixels.
    pub fn area(&self) -> u32 {
        self.counts.iter().skip(1).step_by(2).sum()
    }

    /// The smallest box around the set pixels: x, y, width, height; zeros without any.
    pub fn bbox(&self) -> [u32; 4] {
        let (mut left, mut right, mut top, mut bottom) = (u32::MAX, 0, u32::MAX, 0);
        for (from, to) in self.runs() {
            let (first, last) = (from / self.height, (to - 1) / self.height);
            left = left.min(first);
            right = last + 1;
            if first == last {
                top = top.min(from % self.height);
                bottom = bottom.max((to - 1) % self.height + 1);
            } else {
                // A run that goes on in the next column touches both edges.
                (top, bottom) = (0, self.height);
            }
        }
        match right {
            0 => [0; 4],
            _ => [left, top, right - left, bottom - top],
        }
    }

    /// Pixels set in both; 0 for pictures of different sizes.
    pub fn intersection(&self, other: &Self) -> u32 {
        if (self.width, self.height) != (other.width, other.height) {
            return 0;
        }
        let (mut ours, mut theirs) = (self.runs(), other.runs());
        let (mut a, mut b) = (ours.next(), theirs.next());
        let mut shared = 0;
        while let (Some(x), Some(y)) = (a, b) {
            shared += x.1.min(y.1).saturating_sub(x.0.max(y.0));
            if x.1 <= y.1 {
                a = ours.next();
            } else {
                b = theirs.next();
            }
        }
        shared
    }

    /// Intersection over union, 0–1, of this detection with a truth. A crowd may be matched in part:
    /// over the detection's own area then.
    pub fn iou(&self, truth: &Self, crowd: bool) -> f64 {
        let shared = self.intersection(truth);
        if shared == 0 {
            return 0.0;
        }
        let whole = if crowd {
            f64::from(self.area())
        } else {
            f64::from(self.area()) + f64::from(truth.area()) - f64::from(shared)
        };
        f64::from(shared) / whole
    }
}
