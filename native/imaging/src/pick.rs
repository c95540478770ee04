//! Class ids of the nearest pixels of a label map.

use crate::Plane;

/// Ids that one shuffle picks.
const GROUP: usize = 16;

/// The class ids under the centres of `to` (width, height) places that share the box `left`, `top`, `width`, `height`
/// of the map (fractions of pixels allowed), in rows of `out` that begin `stride` apart; `mirrored` left and right.
pub fn pick_labels(
    map: &Plane,
    (left, top, width, height): (f64, f64, f64, f64),
    to: (usize, usize),
    mirrored: bool,
    stride: usize,
    out: &mut [u8],
) {
    let places = |from: f64, length: f64, count: usize, side: usize| {
        let step = length / count as f64;
        let place = |i: usize| ((from + (i as f64 + 0.5) * step) as usize).min(side - 1);
        (0..count).map(place).collect::<Vec<usize>>()
    };
    let mut columns = places(left, width, to.0, map.width());
    if mirrored {
        columns.reverse();
    }
    let rows = places(top, height, to.1, map.height());
    let shuffles = shuffles(&columns, map.width());
    let mut last = None;
    for (i, y) in rows.into_iter().enumerate() {
        if last == Some(y) {
            out.copy_within((i - 1) * stride..(i - 1) * stride + to.0, i * stride);
            continue;
        }
        last = Some(y);
        let source = &map.data()[y * map.width()..(y + 1) * map.width()];
        let row = &mut out[i * stride..i * stride + to.0];
        #[cfg(target_arch = "x86_64")]
        if let Some(shuffles) = &shuffles {
            // SAFETY: made only where SSSE3 is there.
            unsafe { shuffled(shuffles, source, row) };
            let done = row.len() / GROUP * GROUP;
            let rest = row[done..].iter_mut().zip(&columns[done..]);
            rest.for_each(|(label, x)| *label = source[*x]);
            continue;
        }
        let labels = row.iter_mut().zip(&columns);
        labels.for_each(|(label, x)| *label = source[*x]);
    }
}

/// Where the source of a group begins, and the places of its ids from there.
type Shuffle = (usize, [u8; GROUP]);

/// `None` where the ids of a group lie too far apart, or the processor has no shuffle.
fn shuffles(columns: &[usize], width: usize) -> Option<Vec<Shuffle>> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("ssse3") {
        let last = width.checked_sub(GROUP)?;
        let shuffle = |group: &[usize; GROUP]| {
            let start = (*group.iter().min()?).min(last);
            let far = group.iter().any(|x| x - start >= GROUP);
            (!far).then(|| (start, group.map(|x| (x - start) as u8)))
        };
        return columns.as_chunks().0.iter().map(shuffle).collect();
    }
    _ = (columns, width);
    None
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "ssse3")]
fn shuffled(shuffles: &[Shuffle], source: &[u8], out: &mut [u8]) {
    use std::arch::x86_64::*;
    for ((start, places), out) in shuffles.iter().zip(out.as_chunks_mut::<GROUP>().0) {
        let source = &source[*start..*start + GROUP];
        // SAFETY: sixteen bytes each.
        unsafe {
            let ids = _mm_loadu_si128(source.as_ptr().cast());
            let ids = _mm_shuffle_epi8(ids, _mm_loadu_si128(places.as_ptr().cast()));
            _mm_storeu_si128(out.as_mut_ptr().cast(), ids);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    #[test]
    fn ids_are_those_under_the_centres() {
        for seed in 0..80 {
            let mut rng = Rng::of(&[seed]);
            let (width, height) = (1 + rng.below(60), 1 + rng.below(30));
            let data = (0..width * height).map(|_| rng.below(256) as u8).collect();
            let map = Plane::new(width, height, data).unwrap();
            let (left, top) = (rng.uniform(0.0, 3.0), rng.uniform(0.0, 3.0));
            let place = (
                left.min(width as f64 / 2.0),
                top.min(height as f64 / 2.0),
                width as f64 * rng.uniform(0.1, 0.5),
                height as f64 * rng.uniform(0.1, 0.5),
            );
            let to = (1 + rng.below(70), 1 + rng.below(40));
            let stride = to.0 + rng.below(9);
            for mirrored in [false, true] {
                let mut out = vec![7; stride * to.1];
                pick_labels(&map, place, to, mirrored, stride, &mut out);
                for (i, label) in out.iter().enumerate() {
                    let (x, y) = (i % stride, i / stride);
                    if x >= to.0 {
                        assert_eq!(*label, 7, "nothing beyond the row");
                        continue;
                    }
                    let x = if mirrored { to.0 - 1 - x } else { x };
                    let at = |start: f64, length: f64, i: usize, count: usize| {
                        (start + (i as f64 + 0.5) * (length / count as f64)) as usize
                    };
                    let (x, y) = (at(place.0, place.2, x, to.0), at(place.1, place.3, y, to.1));
                    let expected = map.value(x.min(width - 1), y.min(height - 1));
                    assert_eq!(*label, expected, "seed {seed} {mirrored}");
                }
            }
        }
    }
}
