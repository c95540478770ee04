//! From masks back to polygons.

use crate::{Plane, Polygon};

/// Steps along pixel edges, clockwise: right, down, left, up.
const STEPS: [(i64, i64); 4] = [(1, 0), (0, 1), (-1, 0), (0, -1)];

/// The outlines of what is set, along pixel edges, corners only; parts that touch at a corner alone are
/// separate, and holes are polygons of their own. [`crate::polygon_runs`] of all of them gives the same mask.
pub fn mask_outlines(mask: &Plane) -> Vec<Polygon> {
    let (width, height) = (mask.width(), mask.height());
    let stride = width + 1;
    let set = |x: i64, y: i64| {
        let inside = (0..width as i64).contains(&x) && (0..height as i64).contains(&y);
        inside && mask.value(x as usize, y as usize) != 0
    };
    // One bit a direction for each edge that leaves a grid point with something set at its right hand.
    let mut leaving = vec![0u8; stride * (height + 1)];
    for y in 0..height as i64 {
        for x in 0..width as i64 {
            if !set(x, y) {
                continue;
            }
            let edges = [
                (x, y - 1, x, y, 0),
                (x + 1, y, x + 1, y, 1),
                (x, y + 1, x + 1, y + 1, 2),
                (x - 1, y, x, y + 1, 3),
            ];
            for (nx, ny, px, py, way) in edges {
                if !set(nx, ny) {
                    leaving[py as usize * stride + px as usize] |= 1 << way;
                }
            }
        }
    }
    let mut outlines = Vec::new();
    for start in 0..leaving.len() {
        while leaving[start] != 0 {
            outlines.push(follow(&mut leaving, stride, start));
        }
    }
    outlines
}

fn follow(leaving: &mut [u8], stride: usize, start: usize) -> Polygon {
    let mut polygon = Polygon::new();
    let mut at = start;
    let mut way = leaving[start].trailing_zeros() as usize;
    let mut before = usize::MAX;
    loop {
        if way != before {
            polygon.push([(at % stride) as f32, (at / stride) as f32]);
        }
        leaving[at] &= !(1 << way);
        before = way;
        let (dx, dy) = STEPS[way];
        at = (at as i64 + dx + dy * stride as i64) as usize;
        if at == start && leaving[at] >> ((way + 1) % 4) & 1 == 0 {
            break;
        }
        // To the right first: a part never goes on through a corner that it only touches.
        let next = [1, 0, 3].map(|turn| (way + turn) % 4);
        match next.into_iter().find(|w| leaving[at] >> w & 1 == 1) {
            Some(next) => way = next,
            None => break,
        }
    }
    polygon
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, polygon_area, polygon_runs};

    fn plane(rows: &[&str]) -> Plane {
        let data = rows
            .iter()
            .flat_map(|r| r.bytes().map(|b| u8::from(b == b'#')));
        Plane::new(rows[0].len(), rows.len(), data.collect()).unwrap()
    }

    fn filled(outlines: &[Polygon], like: &Plane) -> Plane {
        let mut out = Plane::filled(like.width(), like.height(), 0);
        let width = like.width();
        polygon_runs(outlines, (width, like.height()), |y, from, to| {
            out.data_mut()[y * width + from..y * width + to].fill(1);
        });
        out
    }

    #[test]
    fn outlines_are_corners_and_holes_are_their_own() {
        let square = mask_outlines(&plane(&["....", ".##.", ".##.", "...."]));
        assert_eq!(
            square,
            [vec![[1.0, 1.0], [3.0, 1.0], [3.0, 3.0], [1.0, 3.0]]]
        );
        let ring = mask_outlines(&plane(&["###", "#.#", "###"]));
        assert_eq!(
            ring.iter().map(|p| polygon_area(p)).collect::<Vec<_>>(),
            [9.0, 1.0]
        );
        let corner = mask_outlines(&plane(&["#.", ".#"]));
        assert_eq!(
            corner.iter().map(|p| polygon_area(p)).collect::<Vec<_>>(),
            [1.0, 1.0]
        );
        assert!(mask_outlines(&plane(&["..", ".."])).is_empty());
    }

    #[test]
    fn filling_the_outlines_gives_the_mask_again() {
        for seed in 0..60 {
            let mut rng = Rng::of(&[seed, 3]);
            let (w, h) = (1 + rng.below(24), 1 + rng.below(24));
            let share = rng.below(10);
            let data = (0..w * h)
                .map(|_| u8::from(rng.below(10) < share))
                .collect();
            let mask = Plane::new(w, h, data).unwrap();
            assert_eq!(
                filled(&mask_outlines(&mask), &mask).data(),
                mask.data(),
                "{seed}"
            );
        }
    }
}
