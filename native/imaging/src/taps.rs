//! Which source pixels make a resized one, with which weights.

/// How a picture is resized.
///
/// The first five are those of `cv2.resize`, which PaddleX trains and predicts with: they look at a
/// fixed number of neighbours, so strong shrinking aliases (area excepted). The antialiased ones widen
/// the filter with the shrinking, as Pillow and torchvision's `antialias=True` do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// `INTER_NEAREST`; the only one for label maps and masks.
    Nearest,
    /// `INTER_LINEAR`: 2 neighbours an axis.
    Linear,
    /// `INTER_CUBIC`: 4 neighbours, Keys' kernel with a = −0.75.
    Cubic,
    /// `INTER_AREA`: mean of the covered area when shrinking both sides, else a stepped linear.
    Area,
    /// `INTER_LANCZOS4`: 8 neighbours.
    Lanczos,
    /// Pillow's `BILINEAR`.
    LinearAntialiased,
    /// Pillow's `BICUBIC`: a = −0.5.
    CubicAntialiased,
    /// Pillow's `LANCZOS`: 3 lobes.
    LanczosAntialiased,
}

impl Interpolation {
    /// Those of `cv2.resize`, in the order of its constants; a random one is drawn in training.
    pub const CV2: [Self; 5] = [
        Self::Nearest,
        Self::Linear,
        Self::Cubic,
        Self::Area,
        Self::Lanczos,
    ];
}

/// Source places and weights of every place of one axis, `count` each.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    pub count: usize,
    pub places: Vec<u32>,
    pub weights: Vec<f32>,
}

impl Taps {
    /// Taps for an axis of `from` places resized to `to`; `shrinks` tells whether both axes shrink.
    pub fn new(from: usize, to: usize, interpolation: Interpolation, shrinks: bool) -> Self {
        use Interpolation as I;
        match interpolation {
            I::Nearest => Self::fixed(from, to, 1, |_| [1.0]),
            I::Linear => Self::fixed(from, to, 0, |t| [1.0 - t, t]),
            I::Cubic => Self::fixed(from, to, 1, cubic),
            I::Lanczos => Self::fixed(from, to, 3, lanczos4),
            I::Area if shrinks => Self::area(from, to),
            I::Area => Self::stepped(from, to),
            I::LinearAntialiased => Self::wide(from, to, 1.0, |x| 1.0 - x.abs()),
            I::CubicAntialiased => Self::wide(from, to, 2.0, keys),
            I::LanczosAntialiased => Self::wide(from, to, 3.0, |x| sinc(x) * sinc(x / 3.0)),
        }
    }

    fn push(&mut self, place: i64, weight: f32, from: usize) {
        self.places.push(place.clamp(0, from as i64 - 1) as u32);
        self.weights.push(weight);
    }

    /// The same number of neighbours everywhere; those over the edge repeat the edge.
    fn fixed<const N: usize>(
        from: usize,
        to: usize,
        before: i64,
        weights: impl Fn(f32) -> [f32; N],
    ) -> Self {
        let scale = from as f64 / to as f64;
        let mut taps = Self {
            count: N,
            ..Self::default()
        };
        for place in 0..to {
            if N == 1 {
                taps.push((place as f64 * scale).floor() as i64, 1.0, from);
                continue;
            }
            let centre = ((place as f64 + 0.5) * scale - 0.5) as f32;
            let left = centre.floor();
            for (i, weight) in weights(centre - left).into_iter().enumerate() {
                taps.push(left as i64 - before + i as i64, weight, from);
            }
        }
        taps
    }

    /// A list of (place, weight) for each place, filled up to the longest.
    fn ragged(lists: Vec<Vec<(i64, f32)>>, from: usize) -> Self {
        let count = lists.iter().map(Vec::len).max().unwrap_or(1);
        let mut taps = Self {
            count,
            ..Self::default()
        };
        for list in lists {
            let last = list.last().map_or(0, |(place, _)| *place);
            for i in 0..count {
                let (place, weight) = list.get(i).copied().unwrap_or((last, 0.0));
                taps.push(place, weight, from);
            }
        }
        taps
    }

    /// OpenCV's computeResizeAreaTab: the share of every source pixel in the covered interval.
    fn area(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let list = |place: usize| {
            let (start, end) = (place as f64 * scale, (place + 1) as f64 * scale);
            let cell = scale.min(from as f64 - start);
            let last = (end.floor() as i64).min(from as i64 - 1);
            let first = (start.ceil() as i64).min(last);
            let mut list = Vec::new();
            if first as f64 - start > 1e-3 {
                list.push((first - 1, ((first as f64 - start) / cell) as f32));
            }
            list.extend((first..last).map(|x| (x, (1.0 / cell) as f32)));
            if end - last as f64 > 1e-3 {
                let part = (end - last as f64).min(1.0).min(cell);
                list.push((last, (part / cell) as f32));
            }
            list
        };
        Self::ragged((0..to).map(list).collect(), from)
    }

    /// `INTER_AREA` when a side grows: linear, but only in the pixel that holds the border.
    fn stepped(from: usize, to: usize) -> Self {
        let (scale, inverse) = (from as f64 / to as f64, to as f64 / from as f64);
        let list = |place: usize| {
            let left = (place as f64 * scale).floor();
            let t = ((place + 1) as f64 - (left + 1.0) * inverse) as f32;
            let t = if t <= 0.0 { 0.0 } else { t - t.floor() };
            vec![(left as i64, 1.0 - t), (left as i64 + 1, t)]
        };
        Self::ragged((0..to).map(list).collect(), from)
    }

    /// A kernel as wide as the shrinking, cut off at the edges and normalised (Pillow).
    fn wide(from: usize, to: usize, reach: f64, kernel: impl Fn(f64) -> f64) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = reach * stretch;
        let list = |place: usize| {
            let centre = (place as f64 + 0.5) * scale;
            let first = ((centre - support + 0.5) as i64).max(0);
            let last = ((centre + support + 0.5) as i64).min(from as i64);
            let weight = |x: i64| {
                let x = (x as f64 + 0.5 - centre) / stretch;
                if x.abs() < reach { kernel(x) } else { 0.0 }
            };
            let weights: Vec<f64> = (first..last).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            let share = |(i, w): (usize, &f64)| (first + i as i64, (w / sum) as f32);
            weights.iter().enumerate().map(share).collect()
        };
        Self::ragged((0..to).map(list).collect(), from)
    }
}

fn cubic(t: f32) -> [f32; 4] {
    const A: f32 = -0.75;
    let first = ((A * (t + 1.0) - 5.0 * A) * (t + 1.0) + 8.0 * A) * (t + 1.0) - 4.0 * A;
    let near = |t: f32| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
    let (second, third) = (near(t), near(1.0 - t));
    [first, second, third, 1.0 - first - second - third]
}

fn keys(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

fn lanczos4(t: f32) -> [f32; 8] {
    let weight = |i: usize| {
        let x = f64::from(t) + 3.0 - i as f64;
        sinc(x) * sinc(x / 4.0)
    };
    let weights: [f64; 8] = std::array::from_fn(weight);
    let sum: f64 = weights.iter().sum();
    weights.map(|w| (w / sum) as f32)
}
