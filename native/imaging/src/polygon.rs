//! Polygons of instance annotations.

/// Corners in pixels of the picture, x then y; the last joins the first. Coordinates are those of pixel
/// edges: a rectangle around the whole picture is (0, 0)–(width, height).
pub type Polygon = Vec<[f32; 2]>;

/// Area, never negative (shoelace formula).
pub fn polygon_area(polygon: &[[f32; 2]]) -> f32 {
    let next = polygon.iter().cycle().skip(1);
    let cross = |(a, b): (&[f32; 2], &[f32; 2])| {
        f64::from(a[0]) * f64::from(b[1]) - f64::from(b[0]) * f64::from(a[1])
    };
    let sum: f64 = polygon.iter().zip(next).map(cross).sum();
    (sum.abs() / 2.0) as f32
}

/// The part inside the rectangle (left, top, right, bottom), by Sutherland and Hodgman (1974); empty
/// when nothing of an area is left.
pub fn clip_polygon(polygon: &[[f32; 2]], bounds: [f32; 4]) -> Polygon {
    let mut points = polygon.to_vec();
    for (side, limit) in bounds.into_iter().enumerate() {
        let axis = side % 2;
        let inside = |p: &[f32; 2]| {
            if side < 2 {
                p[axis] >= limit
            } else {
                p[axis] <= limit
            }
        };
        let mut kept = Vec::with_capacity(points.len() + 4);
        for (i, point) in points.iter().enumerate() {
            let before = &points[(i + points.len() - 1) % points.len()];
            if inside(before) != inside(point) {
                let t = (limit - before[axis]) / (point[axis] - before[axis]);
                let other = 1 - axis;
                let mut cross = [limit; 2];
                cross[other] = before[other] + (point[other] - before[other]) * t;
                kept.push(cross);
            }
            if inside(point) {
                kept.push(*point);
            }
        }
        points = kept;
    }
    if points.len() < 3 || polygon_area(&points) <= 0.0 {
        points.clear();
    }
    points
}

/// Calls `run(y, from, to)` for every run of pixels whose centres lie inside the polygons together
/// (even-odd rule), cut to the picture. One sweep over the rows, edges sorted once.
pub fn polygon_runs(
    polygons: &[Polygon],
    (width, height): (usize, usize),
    mut run: impl FnMut(usize, usize, usize),
) {
    // (first row, last row + 1, x at the first row, slope) of every edge that crosses row centres.
    let mut edges: Vec<(usize, usize, f64, f64)> = Vec::new();
    for polygon in polygons {
        for (i, a) in polygon.iter().enumerate() {
            let b = &polygon[(i + 1) % polygon.len()];
            let (a, b) = if a[1] <= b[1] { (a, b) } else { (b, a) };
            let [ax, ay, bx, by] = [a[0], a[1], b[0], b[1]].map(f64::from);
            if !(ax + ay + bx + by).is_finite() {
                continue;
            }
            let row = |y: f64| (y - 0.5).ceil().clamp(0.0, height as f64) as usize;
            let (first, end) = (row(ay), row(by));
            if first < end {
                let slope = (bx - ax) / (by - ay);
                edges.push((first, end, ax + (first as f64 + 0.5 - ay) * slope, slope));
            }
        }
    }
    edges.sort_by_key(|e| e.0);
    let mut next = 0;
    let mut active: Vec<(usize, usize, f64, f64)> = Vec::new();
    let mut crossings: Vec<f64> = Vec::new();
    for y in edges.first().map_or(height, |e| e.0)..height {
        while edges.get(next).is_some_and(|e| e.0 == y) {
            active.push(edges[next]);
            next += 1;
        }
        active.retain(|e| e.1 > y);
        if active.is_empty() && next == edges.len() {
            return;
        }
        crossings.clear();
        crossings.extend(active.iter().map(|e| e.2 + (y - e.0) as f64 * e.3));
        crossings.sort_by(f64::total_cmp);
        for pair in crossings.chunks_exact(2) {
            let column = |x: f64| (x - 0.5).ceil().clamp(0.0, width as f64) as usize;
            let (from, to) = (column(pair[0]), column(pair[1]));
            if from < to {
                run(y, from, to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_cuts_at_the_edges_and_keeps_the_area_inside() {
        let square = vec![[2.0, 2.0], [8.0, 2.0], [8.0, 8.0], [2.0, 8.0]];
        assert_eq!(polygon_area(&square), 36.0);
        let cut = clip_polygon(&square, [5.0, 0.0, 20.0, 4.0]);
        assert_eq!(polygon_area(&cut), 6.0);
        assert!(clip_polygon(&square, [8.0, 0.0, 20.0, 20.0]).is_empty());
        let triangle = vec![[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]];
        let cut = clip_polygon(&triangle, [0.0, 0.0, 6.0, 6.0]);
        assert!((polygon_area(&cut) - 34.0).abs() < 1e-4);
        assert_eq!(clip_polygon(&triangle, [-5.0, -5.0, 50.0, 50.0]).len(), 3);
        assert!(clip_polygon(&[], [0.0, 0.0, 1.0, 1.0]).is_empty());
    }

    #[test]
    fn runs_cover_the_pixels_whose_centres_are_inside() {
        let count = |polygons: &[Polygon]| {
            let mut sum = 0;
            polygon_runs(polygons, (10, 10), |_, from, to| sum += to - from);
            sum
        };
        let square = |a: f32, b: f32| vec![[a, a], [b, a], [b, b], [a, b]];
        assert_eq!(count(&[square(2.0, 8.0)]), 36);
        assert_eq!(count(&[square(-50.0, 50.0)]), 100);
        assert_eq!(count(&[square(2.0, 8.0), square(4.0, 6.0)]), 32, "a hole");
        assert_eq!(count(&[square(2.1, 2.4)]), 0);
        let triangle = vec![[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]];
        assert_eq!(count(&[triangle]), 45);
        assert_eq!(count(&[vec![[f32::NAN, 1.0], [5.0, 5.0], [1.0, 9.0]]]), 0);
    }
}
