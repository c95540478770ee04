//! The anchors of a region proposal network (Ren et al. 2015, "Faster R-CNN").

use oarlock_graph::RpnLevel;
use tch::{Kind, Tensor};

use super::boxes::Edges;
use crate::Result;

/// All anchors for an input of one size: level by level, row by row, pixel by pixel, at each sizes × ratios.
///
/// They are not stored: a place says which one it is. The first pixel's lie around the input's corner, as in
/// PaddleDetection; torchvision's do too.
#[derive(Debug, Clone)]
pub struct Anchors {
    levels: Vec<Level>,
}

/// The anchors of one map.
#[derive(Debug, Clone)]
pub struct Level {
    stride: f32,
    rows: usize,
    columns: usize,
    /// Those of the first pixel.
    shapes: Vec<Edges>,
    /// Place of its first anchor among all.
    pub first: usize,
}

impl Level {
    /// Number of its anchors.
    pub fn count(&self) -> usize {
        self.rows * self.columns * self.shapes.len()
    }

    fn shape_at(&self, shape: usize, row: usize, column: usize) -> Edges {
        let (x, y) = (column as f32 * self.stride, row as f32 * self.stride);
        let [x1, y1, x2, y2] = self.shapes[shape];
        [x + x1, y + y1, x + x2, y + y2]
    }

    /// The anchors at places (of any shape) within the level, …×4, on the places' device.
    ///
    /// # Errors
    /// Out of memory.
    pub fn on_device(&self, places: &Tensor) -> Result<Tensor> {
        let (count, columns) = (self.shapes.len() as i64, self.columns as i64);
        let over = |t: &Tensor, by: i64| t.f_divide_scalar_mode(by, "floor");
        let pixel = over(places, count)?;
        let flat: Vec<f32> = self.shapes.iter().flatten().copied().collect();
        let shapes = Tensor::f_from_slice(&flat)?.f_to_device(places.device())?;
        let shape = places.f_remainder(count)?;
        let shapes = Tensor::f_embedding(&shapes.f_reshape([-1, 4])?, &shape, -1, false, false)?;
        let (x, y) = (pixel.f_remainder(columns)?, over(&pixel, columns)?);
        let at = Tensor::f_stack(&[&x, &y, &x, &y], -1)?.f_to_kind(Kind::Float)?;
        Ok(shapes.f_add(&at.f_mul_scalar(f64::from(self.stride))?)?)
    }

    fn at(&self, place: usize) -> Edges {
        let (pixel, shape) = (place / self.shapes.len(), place % self.shapes.len());
        self.shape_at(shape, pixel / self.columns, pixel % self.columns)
    }

    /// Pixels along one axis whose anchors reach from `low` to `high` of themselves and may touch `from` to `to`.
    fn reach(&self, (low, high): (f32, f32), (from, to): (f32, f32), count: usize) -> [usize; 2] {
        let bound = |v: f32| (v / self.stride).clamp(0.0, count as f32);
        [
            bound(from - high).floor() as usize,
            (bound(to - low).ceil() as usize + 1).min(count),
        ]
    }
}

impl Anchors {
    /// Those of `levels` on maps of these heights and widths.
    pub fn new(levels: &[RpnLevel], maps: &[(usize, usize)]) -> Self {
        let mut first = 0;
        let level = |(level, &(rows, columns)): (&RpnLevel, &(usize, usize))| {
            let made = Level {
                stride: level.stride as f32,
                rows,
                columns,
                shapes: shapes(level),
                first,
            };
            first += made.count();
            made
        };
        Self {
            levels: levels.iter().zip(maps).map(level).collect(),
        }
    }

    /// Level by level.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Number of all.
    pub fn count(&self) -> usize {
        self.levels.last().map_or(0, |l| l.first + l.count())
    }

    /// The anchor at a place below [`Self::count`].
    pub fn at(&self, place: usize) -> Edges {
        let level = self.levels.iter().rev().find(|l| l.first <= place);
        level.map_or([0.0; 4], |l| l.at(place - l.first))
    }

    /// Calls `visit` with the place and edges of each anchor that overlaps with `target`, and of some around it: all
    /// others are not looked at, so that ten thousand small objects cost no more than a few large ones.
    pub fn near(&self, target: &Edges, mut visit: impl FnMut(usize, &Edges)) {
        for level in &self.levels {
            for (shape, own) in level.shapes.iter().enumerate() {
                let [left, right] =
                    level.reach((own[0], own[2]), (target[0], target[2]), level.columns);
                let [top, bottom] =
                    level.reach((own[1], own[3]), (target[1], target[3]), level.rows);
                for row in top..bottom {
                    for column in left..right {
                        let pixel = row * level.columns + column;
                        let place = level.first + pixel * level.shapes.len() + shape;
                        visit(place, &level.shape_at(shape, row, column));
                    }
                }
            }
        }
    }
}

/// Anchors around the origin, ratios innermost.
fn shapes(level: &RpnLevel) -> Vec<Edges> {
    let shape = |size: f32, ratio: f32| {
        let (size, ratio) = (f64::from(size), f64::from(ratio));
        let width = (size * size / ratio).sqrt();
        let (x, y) = ((width / 2.0) as f32, (ratio * width / 2.0) as f32);
        [-x, -y, x, y]
    };
    let sizes = level.sizes.iter();
    sizes
        .flat_map(|&size| level.ratios.iter().map(move |&ratio| shape(size, ratio)))
        .collect()
}
