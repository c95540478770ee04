//! What tools draw on pictures.

use oarlock_imaging::{BBox, Polygon, Rle, mask_outlines, polygon_area};

/// Width of drawn lines and radius of drawn points in label maps, pixels.
const LINE_WIDTH: f32 = 10.0;
const POINT_RADIUS: f32 = 5.0;
/// Corners of a circle.
const CORNERS: usize = 64;

/// One thing on a picture.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    /// Class name, not empty.
    pub name: String,
    pub geometry: Geometry,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Geometry {
    Box(BBox),
    /// Several outlines of one thing.
    Polygons(Vec<Polygon>),
    /// A mask and the box that came with it.
    Mask(Rle, BBox),
    Circle {
        centre: [f32; 2],
        radius: f32,
    },
    /// Open, or a point when it is one.
    Line(Polygon),
}

impl Shape {
    /// Fractions of the sides to pixels.
    pub fn scale(&mut self, (width, height): (usize, usize)) {
        let (w, h) = (width as f32, height as f32);
        match &mut self.geometry {
            Geometry::Box(b) => *b = BBox::new(b.x1 * w, b.y1 * h, b.x2 * w, b.y2 * h),
            Geometry::Polygons(polygons) => polygons
                .iter_mut()
                .flatten()
                .for_each(|p| *p = [p[0] * w, p[1] * h]),
            _ => {}
        }
    }

    /// Its box; without area for lines along an axis and points.
    pub fn bbox(&self) -> BBox {
        match &self.geometry {
            Geometry::Box(b) | Geometry::Mask(_, b) => *b,
            Geometry::Circle {
                centre: [x, y],
                radius: r,
            } => BBox::new(x - r, y - r, x + r, y + r),
            Geometry::Line(points) => around(points.iter()),
            Geometry::Polygons(polygons) => around(polygons.iter().flatten()),
        }
    }

    /// Whether detectors take its box as it is: what was drawn as a box.
    pub fn is_box(&self) -> bool {
        matches!(
            self.geometry,
            Geometry::Box(_) | Geometry::Circle { .. } | Geometry::Mask(..)
        )
    }

    /// Its outlines for instance segmentation; `None` for lines, points and circles.
    pub fn outlines(&self) -> Option<Vec<Polygon>> {
        match &self.geometry {
            Geometry::Box(b) => Some(vec![rectangle(b)]),
            Geometry::Polygons(polygons) => Some(polygons.clone()),
            Geometry::Mask(rle, _) => rle.to_plane().ok().map(|mask| mask_outlines(&mask)),
            Geometry::Circle { .. } | Geometry::Line(_) => None,
        }
        .map(|all| all.into_iter().filter(|p| polygon_area(p) > 0.0).collect())
    }

    /// What it covers in a label map, one set of outlines after the other.
    pub fn painted(&self) -> Vec<Vec<Polygon>> {
        match &self.geometry {
            Geometry::Circle { centre, radius } => vec![vec![circle(*centre, *radius)]],
            Geometry::Line(points) => match points.as_slice() {
                [point] => vec![vec![circle(*point, POINT_RADIUS)]],
                points => points.windows(2).map(|p| vec![thick(p[0], p[1])]).collect(),
            },
            _ => vec![self.outlines().unwrap_or_default()],
        }
    }
}

fn around<'a>(points: impl Iterator<Item = &'a [f32; 2]>) -> BBox {
    let start = BBox::new(
        f32::INFINITY,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NEG_INFINITY,
    );
    points.fold(start, |b, p| {
        BBox::new(
            b.x1.min(p[0]),
            b.y1.min(p[1]),
            b.x2.max(p[0]),
            b.y2.max(p[1]),
        )
    })
}

fn rectangle(b: &BBox) -> Polygon {
    vec![[b.x1, b.y1], [b.x2, b.y1], [b.x2, b.y2], [b.x1, b.y2]]
}

fn circle([x, y]: [f32; 2], radius: f32) -> Polygon {
    let turn = |i: usize| (i as f32 / CORNERS as f32 * std::f32::consts::TAU).sin_cos();
    (0..CORNERS)
        .map(turn)
        .map(|(s, c)| [x + radius * c, y + radius * s])
        .collect()
}

/// A line with its width.
fn thick(from: [f32; 2], to: [f32; 2]) -> Polygon {
    let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
    let length = dx.hypot(dy).max(f32::MIN_POSITIVE);
    let (nx, ny) = (
        -dy / length * LINE_WIDTH / 2.0,
        dx / length * LINE_WIDTH / 2.0,
    );
    vec![
        [from[0] + nx, from[1] + ny],
        [to[0] + nx, to[1] + ny],
        [to[0] - nx, to[1] - ny],
        [from[0] - nx, from[1] - ny],
    ]
}
