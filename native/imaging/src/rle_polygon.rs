//! Polygons as masks, pixel for pixel as COCO's own tools make them.
//!
//! [`crate::polygon_runs`] takes the pixels whose centres lie inside, which is the better mask; results are
//! comparable with published ones only on COCO's raster, so evaluation uses this one.

use crate::rle::{Rle, RleError, pixels};

/// COCO draws outlines on a grid of fifths of a pixel.
const SCALE: i64 = 5;

/// Column borders that the outlines of one annotation may cross; annotated outlines cross thousands.
const MAX_CROSSINGS: u64 = 1 << 22;

impl Rle {
    /// The pixels inside any of the polygons, each a flat list x, y, x, y, … in pixels of the picture.
    ///
    /// The raster is that of COCO's mask tools: corners go to the nearest fifth of a pixel, edges are drawn on
    /// that grid, and where an outline passes the middle of a column, pixels from there on
    /// down change sides. Coordinates stay 64 bits wide: tenths of pixels lie on the borders of that grid.
    ///
    /// # Errors
    /// [`RleError::Size`]; [`RleError::Polygon`] for fewer than three corners, a coordinate that is no finite
    /// number, or outlines that cross the picture millions of times.
    pub fn from_polygons<P: AsRef<[f64]>>(
        width: u32,
        height: u32,
        polygons: &[P],
    ) -> Result<Self, RleError> {
        let pixels = pixels(width, height)?;
        let mut runs = Vec::new();
        let mut left = MAX_CROSSINGS;
        let mut turns = Vec::new();
        for (index, polygon) in polygons.iter().enumerate() {
            turns.clear();
            outline(polygon.as_ref(), (width, height), &mut left, &mut turns)
                .map_err(|reason| RleError::Polygon { index, reason })?;
            turns.sort_unstable();
            // Pixels change sides at every turn; two at one place undo each other, as empty runs.
            for pair in turns.chunks(2) {
                runs.push((pair[0], pair.get(1).copied().unwrap_or(pixels)));
            }
        }
        runs.sort_unstable();
        Ok(Self::from_runs(width, height, runs))
    }
}

/// Adds the pixels from which on the outline changes sides.
fn outline(
    flat: &[f64],
    size: (u32, u32),
    left: &mut u64,
    turns: &mut Vec<u32>,
) -> Result<(), &'static str> {
    let points = flat.as_chunks::<2>().0;
    if points.len() < 3 {
        return Err("has fewer than 3 corners");
    }
    if flat.iter().any(|v| !v.is_finite()) {
        return Err("has a coordinate that is no finite number");
    }
    // Beyond this no outline comes back into a picture with a slope that could be seen.
    let fine = |v: f64| (SCALE as f64 * v + 0.5).clamp(-1e9, 1e9) as i64;
    let corner = |p: &[f64; 2]| (fine(p[0]), fine(p[1]));
    for (i, point) in points.iter().enumerate() {
        let next = &points[(i + 1) % points.len()];
        edge(corner(point), corner(next), size, left, turns)?;
    }
    Ok(())
}

/// The turns of one edge: one for every column whose middle it passes.
fn edge(
    a: (i64, i64),
    b: (i64, i64),
    (width, height): (u32, u32),
    left: &mut u64,
    turns: &mut Vec<u32>,
) -> Result<(), &'static str> {
    let (dx, dy) = ((a.0 - b.0).abs(), (a.1 - b.1).abs());
    let flat = dx >= dy;
    let swapped = if flat { a.0 > b.0 } else { a.1 > b.1 };
    let (from, to) = if swapped { (b, a) } else { (a, b) };
    // The middle of a column lies between its third and fourth fifth.
    let middle = SCALE / 2;
    let (low, high) = (from.0.min(to.0), from.0.max(to.0));
    let first = (low - middle + SCALE - 1).div_euclid(SCALE).max(0);
    let last = (high - middle - 1)
        .div_euclid(SCALE)
        .min(i64::from(width) - 1);
    if first > last {
        return Ok(());
    }
    let count = (last - first + 1) as u64;
    *left = left
        .checked_sub(count)
        .ok_or("makes the outline cross the picture millions of times")?;
    let slope = if flat {
        (to.1 - from.1) as f64 / dx as f64
    } else {
        (to.0 - from.0) as f64 / dy as f64
    };
    for column in first..=last {
        let before = column * SCALE + middle;
        let y = if flat {
            let at = |t: i64| (from.1 as f64 + slope * t as f64 + 0.5) as i64;
            at(before - from.0).min(at(before - from.0 + 1))
        } else {
            let at = |t: i64| (from.0 as f64 + slope * t as f64 + 0.5) as i64;
            from.1 + last_step(dy, |t| (at(t) <= before) == (slope > 0.0))
        };
        let row = ((y as f64 + 0.5) / SCALE as f64 - 0.5).clamp(0.0, f64::from(height));
        turns.push(column as u32 * height + row.ceil() as u32);
    }
    Ok(())
}

/// The last step from 0 to `steps` − 1 that is still on the near side; bisection, as sides change once.
fn last_step(steps: i64, near: impl Fn(i64) -> bool) -> i64 {
    let (mut low, mut high) = (0, steps);
    while high - low > 1 {
        let mid = low + (high - low) / 2;
        if near(mid) {
            low = mid;
        } else {
            high = mid;
        }
    }
    low
}
