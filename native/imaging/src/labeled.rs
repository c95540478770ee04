//! A picture together with everything that is known about it.

use crate::polygon::{Polygon, clip_polygon, polygon_area};
use crate::view::Change;
use crate::{IGNORE, Image, ImageError, Interpolation, Pixels, Plane, Rect};

/// A box in pixels of the picture, by its edges: the whole picture is 0, 0, width, height.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BBox {
    /// Left edge.
    pub x1: f32,
    /// Top edge.
    pub y1: f32,
    /// Right edge.
    pub x2: f32,
    /// Bottom edge.
    pub y2: f32,
}

impl BBox {
    /// A box from its edges.
    pub fn new(x1: f32, y1: f32, x2: f32, y2: f32) -> Self {
        Self { x1, y1, x2, y2 }
    }

    /// Area, 0 for a box without one.
    pub fn area(&self) -> f32 {
        (self.x2 - self.x1).max(0.0) * (self.y2 - self.y1).max(0.0)
    }

    /// x and y of the centre.
    pub fn centre(&self) -> (f32, f32) {
        ((self.x1 + self.x2) / 2.0, (self.y1 + self.y2) / 2.0)
    }

    /// The part inside `bounds`; without area when there is none.
    #[must_use]
    pub fn clipped(&self, bounds: &Self) -> Self {
        Self {
            x1: self.x1.clamp(bounds.x1, bounds.x2),
            y1: self.y1.clamp(bounds.y1, bounds.y2),
            x2: self.x2.clamp(bounds.x1, bounds.x2),
            y2: self.y2.clamp(bounds.y1, bounds.y2),
        }
    }

    /// Intersection over union, 0–1.
    pub fn iou(&self, other: &Self) -> f32 {
        let width = self.x2.min(other.x2) - self.x1.max(other.x1);
        let height = self.y2.min(other.y2) - self.y1.max(other.y1);
        if width <= 0.0 || height <= 0.0 {
            return 0.0;
        }
        let shared = width * height;
        shared / (self.area() + other.area() - shared)
    }
}

impl From<Rect> for BBox {
    fn from(r: Rect) -> Self {
        let [x, y, right, bottom] = [r.x, r.y, r.x + r.width, r.y + r.height].map(|v| v as f32);
        Self::new(x, y, right, bottom)
    }
}

/// One thing in a picture.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object {
    /// Class id.
    pub class: usize,
    /// Box.
    pub bbox: BBox,
    /// Outline; several polygons when it is seen in parts, none when only the box is known.
    pub polygons: Vec<Polygon>,
    /// 1 where the thing is, as large as the picture; for annotations that come as masks.
    pub mask: Option<Plane>,
    /// Not counted in mean average precision.
    pub difficult: bool,
    /// Stands for a whole group: detections inside it are neither right nor wrong.
    pub crowd: bool,
    /// Weight in the loss: below 1 after [`crate::transform::mixup`].
    pub weight: f32,
}

/// A picture with its annotations; transforms change all of it together.
#[derive(Debug, Clone, PartialEq)]
pub struct Labeled<P = Image> {
    /// The picture.
    pub image: P,
    /// Things in it (detection, instance segmentation).
    pub objects: Vec<Object>,
    /// Class id of every pixel, 255 = ignored (segmentation).
    pub label_map: Option<Plane>,
}

/// Which objects stay when a part is cut out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Those with any area left.
    Touching,
    /// Those whose centre is inside.
    Centred,
}

impl<P: Pixels> Labeled<P> {
    /// A picture without annotations.
    pub fn new(image: P) -> Self {
        Self {
            image,
            objects: Vec::new(),
            label_map: None,
        }
    }

    /// Applies a change to all pixels, label map and masks included.
    fn change(&mut self, change: &Change) -> Result<(), ImageError> {
        self.image = self.image.changed(change)?;
        let labels = self.label_map.iter_mut().map(|map| (map, IGNORE));
        let masks = self.objects.iter_mut().filter_map(|o| o.mask.as_mut());
        for (plane, outside) in labels.chain(masks.map(|mask| (mask, 0))) {
            let outside = vec![f32::from(outside)];
            *plane = match change {
                Change::Place { canvas, at, .. } => plane.changed(&Change::Place {
                    canvas: *canvas,
                    at: *at,
                    fill: outside,
                }),
                Change::Warp { inverse, to, .. } => plane.changed(&Change::Warp {
                    inverse: *inverse,
                    to: *to,
                    fill: outside,
                }),
                Change::Blur(_) => continue,
                other => plane.changed(other),
            }?;
        }
        Ok(())
    }

    /// Moves every coordinate by the affine map (boxes become the bounding box of their corners).
    fn map_points(&mut self, m: [f64; 6]) {
        let map = |p: [f32; 2]| {
            let (x, y) = (f64::from(p[0]), f64::from(p[1]));
            [
                (m[0] * x + m[1] * y + m[2]) as f32,
                (m[3] * x + m[4] * y + m[5]) as f32,
            ]
        };
        for object in &mut self.objects {
            for point in object.polygons.iter_mut().flatten() {
                *point = map(*point);
            }
            let BBox { x1, y1, x2, y2 } = object.bbox;
            let corners = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]].map(map);
            let fold = |axis: usize, pick: fn(f32, f32) -> f32| {
                corners[1..]
                    .iter()
                    .fold(corners[0][axis], |a, c| pick(a, c[axis]))
            };
            object.bbox = BBox::new(
                fold(0, f32::min),
                fold(1, f32::min),
                fold(0, f32::max),
                fold(1, f32::max),
            );
        }
    }

    /// Cuts annotations off at the picture's edges and drops what has no area left.
    fn clip(&mut self) {
        let bounds: BBox = self.image.whole().into();
        let edges = [bounds.x1, bounds.y1, bounds.x2, bounds.y2];
        self.objects.retain_mut(|object| {
            object.bbox = object.bbox.clipped(&bounds);
            if !object.polygons.is_empty() {
                let parts = object.polygons.iter().map(|p| clip_polygon(p, edges));
                object.polygons = parts.filter(|p| polygon_area(p) > 0.0).collect();
                if object.polygons.is_empty() {
                    return false;
                }
            }
            object.bbox.area() > 0.0
        });
    }

    /// Cuts out a part.
    pub fn crop(&mut self, rect: Rect, keep: Keep) -> Result<(), ImageError> {
        let (width, height) = self.image.size();
        let rect = rect.clamped(width, height);
        let part = BBox::from(rect);
        if keep == Keep::Centred {
            self.objects.retain(|object| {
                let (x, y) = object.bbox.centre();
                x >= part.x1 && y >= part.y1 && x < part.x2 && y < part.y2
            });
        }
        self.change(&Change::Crop(rect))?;
        self.map_points([1.0, 0.0, -(rect.x as f64), 0.0, 1.0, -(rect.y as f64)]);
        self.clip();
        Ok(())
    }

    /// Resizes to a width and height.
    pub fn resize(&mut self, to: (usize, usize), how: Interpolation) -> Result<(), ImageError> {
        let from = self.image.whole();
        if to == (from.width, from.height) {
            return Ok(());
        }
        self.change(&Change::Resize {
            from,
            to,
            interpolation: how,
        })?;
        let scale = |to: usize, from: usize| to as f64 / from as f64;
        let (x, y) = (scale(to.0, from.width), scale(to.1, from.height));
        self.map_points([x, 0.0, 0.0, 0.0, y, 0.0]);
        Ok(())
    }

    /// Puts the picture on a canvas with its top left corner at `at`. Around it: `fill` in the
    /// picture, 255 in the label map, 0 in masks.
    pub fn place(
        &mut self,
        canvas: (usize, usize),
        at: (usize, usize),
        fill: &[f32],
    ) -> Result<(), ImageError> {
        self.change(&Change::Place {
            canvas,
            at,
            fill: fill.to_vec(),
        })?;
        self.map_points([1.0, 0.0, at.0 as f64, 0.0, 1.0, at.1 as f64]);
        self.clip();
        Ok(())
    }

    /// Mirrors left and right.
    pub fn flip_horizontal(&mut self) -> Result<(), ImageError> {
        self.change(&Change::FlipHorizontal)?;
        let width = self.image.size().0 as f64;
        self.map_points([-1.0, 0.0, width, 0.0, 1.0, 0.0]);
        Ok(())
    }

    /// Mirrors top and bottom.
    pub fn flip_vertical(&mut self) -> Result<(), ImageError> {
        self.change(&Change::FlipVertical)?;
        let height = self.image.size().1 as f64;
        self.map_points([1.0, 0.0, 0.0, 0.0, -1.0, height]);
        Ok(())
    }

    /// Turns counter-clockwise by `degrees`; with `grow` the canvas grows so that nothing is cut.
    /// Outside: `fill` in the picture, 255 in the label map, 0 in masks.
    pub fn rotate(&mut self, degrees: f64, grow: bool, fill: &[f32]) -> Result<(), ImageError> {
        let (forward, inverse, to) = crate::warp::rotation(self.image.size(), degrees, grow);
        self.change(&Change::Warp {
            inverse,
            to,
            fill: fill.to_vec(),
        })?;
        // The map is one of pixel centres, annotations are of pixel edges: half a pixel apart.
        let mut m = forward;
        m[2] += 0.5 - 0.5 * (m[0] + m[1]);
        m[5] += 0.5 - 0.5 * (m[3] + m[4]);
        self.map_points(m);
        self.clip();
        Ok(())
    }

    /// Blurs the picture alone.
    pub fn blur(&mut self, kernel: usize) -> Result<(), ImageError> {
        self.change(&Change::Blur(kernel))
    }
}
