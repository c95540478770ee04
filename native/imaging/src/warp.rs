//! Affine maps.

use crate::view::{Made, Sample, View};

/// The map that turns counter-clockwise by `degrees` around the centre of a `width`×`height` picture,
/// as `cv2.getRotationMatrix2D` with the centre ((w−1)/2, (h−1)/2); with `grow` onto a canvas that
/// holds all of it. Gives the forward and the inverse map and the size of the result.
pub fn rotation(
    (width, height): (usize, usize),
    degrees: f64,
    grow: bool,
) -> ([f64; 6], [f64; 6], (usize, usize)) {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (w, h) = (width as f64, height as f64);
    let (cx, cy) = ((w - 1.0) / 2.0, (h - 1.0) / 2.0);
    let to = if grow {
        // A hair less than the mathematical size, so that a right angle does not add a pixel.
        let side = |a: f64, b: f64| ((a * cos.abs() + b * sin.abs() - 1e-6).ceil()).max(1.0);
        (side(w, h), side(h, w))
    } else {
        (w, h)
    };
    let (tx, ty) = ((to.0 - 1.0) / 2.0, (to.1 - 1.0) / 2.0);
    let forward = [
        cos,
        sin,
        tx - cos * cx - sin * cy,
        -sin,
        cos,
        ty + sin * cx - cos * cy,
    ];
    let inverse = [
        cos,
        -sin,
        cx - cos * tx + sin * ty,
        sin,
        cos,
        cy - sin * tx - cos * ty,
    ];
    (forward, inverse, (to.0 as usize, to.1 as usize))
}

pub(crate) fn affine<T: Sample>(
    view: &View<'_, T>,
    m: &[f64; 6],
    (width, height): (usize, usize),
    fill: &[f32],
    nearest: bool,
) -> Made<T> {
    let (width, height, c) = (width.max(1), height.max(1), view.channels);
    let fill = view.pixel(fill);
    let (w, h) = (view.width as i64, view.height as i64);
    let at = |x: i64, y: i64| -> &[T] {
        if x >= 0 && y >= 0 && x < w && y < h {
            let at = (y as usize * view.width + x as usize) * c;
            &view.data[at..at + c]
        } else {
            &fill
        }
    };
    let mut out = Vec::with_capacity(width * height * c);
    for y in 0..height {
        let (mut sx, mut sy) = (m[1] * y as f64 + m[2], m[4] * y as f64 + m[5]);
        for _ in 0..width {
            if nearest {
                out.extend_from_slice(at((sx + 0.5).floor() as i64, (sy + 0.5).floor() as i64));
            } else {
                let (x0, y0) = (sx.floor(), sy.floor());
                let (fx, fy) = ((sx - x0) as f32, (sy - y0) as f32);
                let (x0, y0) = (x0 as i64, y0 as i64);
                let corners = [
                    at(x0, y0),
                    at(x0 + 1, y0),
                    at(x0, y0 + 1),
                    at(x0 + 1, y0 + 1),
                ];
                for k in 0..c {
                    let [a, b, d, e] = corners.map(|p| p[k].float());
                    let (top, bottom) = (a + (b - a) * fx, d + (e - d) * fx);
                    out.push(T::of(top + (bottom - top) * fy));
                }
            }
            sx += m[0];
            sy += m[3];
        }
    }
    (width, height, out)
}
