//! From a small mask of a box to the pixels of a picture.

use crate::{Rle, RleError};

/// Chance from which a pixel belongs to a thing.
const THRESHOLD: f32 = 0.5;

/// How the pixels of a picture lie along one side of a mask.
struct Axis {
    /// The pixels whose centres lie in the box, from the first on: the mask's value before (−1 for the edge), and the
    /// share of the next one.
    taps: Vec<(i32, f32)>,
    first: usize,
}

impl Axis {
    fn new((from, to): (f32, f32), count: usize, side: usize) -> Self {
        let bound = |v: f32| v.clamp(0.0, count as f32) as usize;
        let first = bound((from - 0.5).ceil());
        let end = bound((to - 0.5).floor() + 1.0);
        let tap = |pixel: usize| {
            let at = (pixel as f32 + 0.5 - from) / (to - from) * side as f32 - 0.5;
            let before = at.floor().clamp(-1.0, side as f32 - 1.0);
            (before as i32, at - before)
        };
        Self {
            taps: (first..end).map(tap).collect(),
            first,
        }
    }
}

/// The pixels of a picture of width and height `full` where a thing is whose chances within `bbox` are `mask`,
/// `side`×`side` values row by row: bilinear between the centres of the values, 0 outside, from 0.5 on
/// (He et al. 2017, "Mask R-CNN"; what PaddleX's post-processing pastes).
///
/// # Errors
/// A picture that can have no mask.
pub fn box_mask(
    mask: &[f32],
    side: usize,
    bbox: &[f32; 4],
    full: (usize, usize),
) -> Result<Rle, RleError> {
    let columns = Axis::new((bbox[0], bbox[2]), full.0, side);
    let rows = Axis::new((bbox[1], bbox[3]), full.1, side);
    let mut runs = Runs::new(full);
    // One column of the mask, with a zero on each end.
    let mut column = vec![0.0; side + 2];
    let value = |row: usize, x: i32| match usize::try_from(x) {
        Ok(x) if x < side => mask[row * side + x],
        _ => 0.0,
    };
    for (x, &(before, share)) in (columns.first..).zip(&columns.taps) {
        for row in 0..side {
            let (a, b) = (value(row, before), value(row, before + 1));
            column[row + 1] = a * (1.0 - share) + b * share;
        }
        let mut start = 0;
        for part in rows.taps.chunk_by(|a, b| a.0 == b.0) {
            let between = (part[0].0 + 1) as usize;
            let set = inside(part, column[between], column[between + 1]);
            let at = x * full.1 + rows.first + start;
            runs.add(at + set.start, at + set.end);
            start += part.len();
        }
    }
    runs.finish()
}

/// The pixels of `part` that are set; all lie between the same two values, so they are at one end of it.
fn inside(part: &[(i32, f32)], from: f32, to: f32) -> std::ops::Range<usize> {
    let set = |tap: &(i32, f32)| from * (1.0 - tap.1) + to * tap.1 >= THRESHOLD;
    if from < to {
        part.partition_point(|tap| !set(tap))..part.len()
    } else {
        0..part.partition_point(set)
    }
}

/// Run lengths down the columns, 0 first.
struct Runs {
    size: (usize, usize),
    counts: Vec<u32>,
    end: usize,
}

impl Runs {
    fn new(size: (usize, usize)) -> Self {
        Self {
            size,
            counts: Vec::new(),
            end: 0,
        }
    }

    /// Sets pixels behind all that are set.
    fn add(&mut self, from: usize, to: usize) {
        if from >= to {
            return;
        }
        let (gap, set) = ((from - self.end) as u32, (to - from) as u32);
        match self.counts.last_mut() {
            Some(last) if gap == 0 => *last += set,
            _ => self.counts.extend([gap, set]),
        }
        self.end = to;
    }

    fn finish(mut self) -> Result<Rle, RleError> {
        let (width, height) = self.size;
        if self.end < width * height {
            let rest = (width * height - self.end) as u32;
            self.counts.push(rest);
        }
        let side = |v: usize| u32::try_from(v).unwrap_or(u32::MAX);
        Rle::new(side(width), side(height), &self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mask_fills_its_box_and_an_empty_one_nothing() {
        let full = box_mask(&[1.0; 16], 4, &[2.0, 3.0, 12.0, 9.0], (20, 10)).unwrap();
        assert_eq!(full.area(), 60);
        assert_eq!(full.bbox(), [2, 3, 10, 6]);
        let whole = box_mask(&[1.0; 16], 4, &[0.0, 0.0, 20.0, 10.0], (20, 10)).unwrap();
        // The corners lie between one value and three zeros around the mask.
        assert_eq!(whole.area(), 196);
        let none = box_mask(&[0.0; 16], 4, &[2.0, 3.0, 12.0, 9.0], (20, 10)).unwrap();
        assert_eq!((none.area(), none.counts()), (0, &[200][..]));
        // Narrower than a pixel, between two centres.
        let thin = box_mask(&[1.0; 16], 4, &[2.6, 3.0, 3.4, 9.0], (20, 10)).unwrap();
        assert_eq!(thin.area(), 0);
    }

    #[test]
    fn every_pixel_is_what_it_would_be_alone() {
        let side = 5;
        let mask: Vec<f32> = (0..25).map(|i| (i * 7 % 11) as f32 / 10.0).collect();
        let (bbox, full) = ([1.3, 0.0, 22.9, 30.2], (24, 31));
        let plane = box_mask(&mask, side, &bbox, full)
            .unwrap()
            .to_plane()
            .unwrap();
        let at = |x: f32, from: f32, to: f32| (x + 0.5 - from) / (to - from) * side as f32 - 0.5;
        let value = |x: i32, y: i32| match (usize::try_from(x), usize::try_from(y)) {
            (Ok(x), Ok(y)) if x < side && y < side => mask[y * side + x],
            _ => 0.0,
        };
        for y in 0..full.1 {
            for x in 0..full.0 {
                let (u, v) = (
                    at(x as f32, bbox[0], bbox[2]),
                    at(y as f32, bbox[1], bbox[3]),
                );
                let (i, j) = (u.floor(), v.floor());
                let (p, q) = (u - i, v - j);
                let (i, j) = (i as i32, j as i32);
                let top = value(i, j) * (1.0 - p) + value(i + 1, j) * p;
                let bottom = value(i, j + 1) * (1.0 - p) + value(i + 1, j + 1) * p;
                let chance = top * (1.0 - q) + bottom * q;
                let expected = u8::from(chance >= 0.5);
                assert!(
                    plane.value(x, y) == expected || (chance - 0.5).abs() < 1e-5,
                    "{x} {y}"
                );
            }
        }
    }
}
