//! Label maps of whole pictures, of any size.
//!
//! A picture is looked at as in training: resized as a whole to the network's input. One that is much larger than
//! those the network was trained on would lose what they show, and is looked at in overlapping windows of their size
//! instead; where windows overlap, their probabilities are blended.

use oarlock_datasets::Depth;
use oarlock_graph::HostTensor;
use oarlock_imaging::{Change, ImageError, Interpolation, Pixels, Plane, Raster, Rect, Samples};
use oarlock_jobs::ErrorCode;
use tch::{Kind, Tensor};

use super::model::Ready;
use crate::exec::{download, network_input};
use crate::records::Preprocessing;
use crate::{EngineError, Result};

/// A picture of more than so many times the trained area is looked at in windows.
const WHOLE: f64 = 4.0;
/// Share of a window that the next one overlaps.
const OVERLAP: f64 = 0.25;

/// Class ids of a picture, as large as it is. `tick` is called after each window.
///
/// # Errors
/// `InvalidData` for a picture of other channels than the network takes; `NonFinite` when the network gives NaN;
/// out of memory; what `tick` says.
pub(super) fn label_map(
    model: &Ready,
    picture: &Raster,
    tick: &dyn Fn() -> Result<()>,
) -> Result<Plane> {
    let how = &model.yml.preprocessing;
    if picture.channels() != how.mean.len() {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            format!(
                "it has {} channels, the model takes {}",
                picture.channels(),
                how.mean.len()
            ),
        ));
    }
    let size = (picture.width(), picture.height());
    let map = match windows_of(size, how) {
        None => {
            let logits = run(model, picture, picture.whole(), false)?;
            tick()?;
            enlarged(&logits, size)
        }
        Some(grid) => grid.run(model, picture, tick)?,
    };
    Plane::new(size.0, size.1, map).map_err(unusable)
}

fn unusable(e: ImageError) -> EngineError {
    EngineError::new(ErrorCode::InvalidData, e.to_string())
}

/// The network's answer for a part of the picture: height × width × classes, logits or probabilities.
fn run(model: &Ready, picture: &Raster, part: Rect, softmax: bool) -> Result<HostTensor> {
    let how = &model.yml.preprocessing;
    let [height, width] = how.size().map(|s| s as usize);
    let change = Change::Resize {
        from: part,
        to: (width, height),
        interpolation: Interpolation::Linear,
    };
    let resized = picture.changed(&change).map_err(unusable)?;
    let shape = [1, height, width, picture.channels()];
    let network = model.network();
    let place = network.placement();
    let input = match resized.samples() {
        Samples::U8(v) => network_input(v, Depth::U8, shape, how, place)?,
        Samples::U16(v) => {
            let bytes: Vec<u8> = v.iter().flat_map(|v| v.to_ne_bytes()).collect();
            network_input(&bytes, Depth::U16, shape, how, place)?
        }
        Samples::F32(v) => {
            let bytes: Vec<u8> = v.iter().flat_map(|v| v.to_ne_bytes()).collect();
            network_input(&bytes, Depth::F32, shape, how, place)?
        }
    };
    let logits = network.forward(&input, false)?;
    drop(network);
    let logits: Tensor = match softmax {
        true => logits.f_softmax(1, Kind::Float)?,
        false => logits,
    };
    let answer = download(&logits.f_squeeze_dim(0)?.f_permute([1, 2, 0])?)?;
    if answer.shape != [height, width, model.yml.labels.len()] {
        return Err(EngineError::internal(format!(
            "the network gives {:?} for {height}×{width} of {} classes",
            answer.shape,
            model.yml.labels.len()
        )));
    }
    if answer.data.iter().any(|v| !v.is_finite()) {
        return Err(
            EngineError::new(ErrorCode::NonFinite, "the model gives NaN for an image")
                .hint("choose a checkpoint from before the loss became NaN"),
        );
    }
    Ok(answer)
}

/// The greatest of each pixel's values, the first of equals.
fn greatest(values: &[f32]) -> u8 {
    let mut best = 0;
    for (i, v) in values.iter().enumerate() {
        if *v > values[best] {
            best = i;
        }
    }
    best as u8
}

/// Class ids at another size (width, height): logits are interpolated, then compared, one row at a time.
fn enlarged(logits: &HostTensor, (width, height): (usize, usize)) -> Vec<u8> {
    let [h, w, classes] = [logits.shape[0], logits.shape[1], logits.shape[2]];
    let columns = taps(w, width);
    let rows = taps(h, height);
    let mut map = Vec::with_capacity(width * height);
    let mut line = vec![0f32; w * classes];
    let mut pixel = vec![0f32; classes];
    for (y0, y1, t) in rows {
        let row = |y: usize| &logits.data[y * w * classes..(y + 1) * w * classes];
        for ((out, a), b) in line.iter_mut().zip(row(y0)).zip(row(y1)) {
            *out = a + (b - a) * t;
        }
        for (x0, x1, t) in &columns {
            let at = |x: usize| &line[x * classes..(x + 1) * classes];
            for ((out, a), b) in pixel.iter_mut().zip(at(*x0)).zip(at(*x1)) {
                *out = a + (b - a) * t;
            }
            map.push(greatest(&pixel));
        }
    }
    map
}

/// For each place of `to`, the two of `from` that it lies between, and how far (pixel centres, edges repeated).
fn taps(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    (0..to)
        .map(|i| {
            let at = (i as f64 + 0.5) * from as f64 / to as f64 - 0.5;
            let at = at.clamp(0.0, (from - 1) as f64);
            let low = at as usize;
            (low, (low + 1).min(from - 1), (at - low as f64) as f32)
        })
        .collect()
}

/// Windows over a canvas at the network's scale.
#[derive(Debug, PartialEq)]
struct Grid {
    /// Network input (width, height).
    window: (usize, usize),
    /// The whole picture at its scale.
    canvas: (usize, usize),
    /// Left sides.
    columns: Vec<usize>,
    /// Upper sides.
    rows: Vec<usize>,
}

/// How a picture of this size (width, height) is parted; `None` where it is looked at whole.
fn windows_of(size: (usize, usize), how: &Preprocessing) -> Option<Grid> {
    let [height, width] = how.size().map(|s| s as usize);
    let [trained_height, trained_width] = how.image_size?.map(|s| f64::from(s.max(1)));
    let area = size.0 as f64 * size.1 as f64;
    if area <= WHOLE * trained_width * trained_height {
        return None;
    }
    let canvas = |side: usize, trained: f64, net: usize| {
        ((side as f64 * net as f64 / trained).round() as usize).max(net)
    };
    let canvas = (
        canvas(size.0, trained_width, width),
        canvas(size.1, trained_height, height),
    );
    Some(Grid {
        window: (width, height),
        canvas,
        columns: starts(canvas.0, width),
        rows: starts(canvas.1, height),
    })
}

/// Where windows begin, evenly, so that neighbours overlap by at least [`OVERLAP`] and the last ends at the end.
fn starts(whole: usize, window: usize) -> Vec<usize> {
    let step = ((window as f64 * (1.0 - OVERLAP)) as usize).max(1);
    let count = (whole - window).div_ceil(step) + 1;
    let last = (count - 1).max(1);
    (0..count).map(|i| i * (whole - window) / last).collect()
}

impl Grid {
    /// One row of windows at a time: memory is that of one row, whatever the picture's height.
    fn run(
        &self,
        model: &Ready,
        picture: &Raster,
        tick: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<u8>> {
        let classes = model.yml.labels.len();
        let ((w, h), wide) = (self.window, self.canvas.0);
        let (ramp_x, ramp_y) = (ramp(w), ramp(h));
        let mut band = vec![0f32; h * wide * classes];
        let mut ids = Vec::with_capacity(wide * self.canvas.1);
        for (i, &top) in self.rows.iter().enumerate() {
            for &left in &self.columns {
                let part = self.part((left, top), (picture.width(), picture.height()));
                let answer = run(model, picture, part, true)?;
                for (y, (row, ry)) in answer
                    .data
                    .chunks_exact(w * classes)
                    .zip(&ramp_y)
                    .enumerate()
                {
                    let out = &mut band[(y * wide + left) * classes..][..w * classes];
                    let pixels = out.chunks_exact_mut(classes).zip(row.chunks_exact(classes));
                    for ((out, value), rx) in pixels.zip(&ramp_x) {
                        // Only the greatest matters: weights need not sum to one.
                        out.iter_mut()
                            .zip(value)
                            .for_each(|(o, v)| *o += v * rx * ry);
                    }
                }
                tick()?;
            }
            let next = self.rows.get(i + 1).map_or(h, |next| next - top);
            ids.extend(
                band[..next * wide * classes]
                    .chunks_exact(classes)
                    .map(greatest),
            );
            band.copy_within(next * wide * classes.., 0);
            let kept = band.len() - next * wide * classes;
            band[kept..].fill(0.0);
        }
        let size = (picture.width(), picture.height());
        Ok(oarlock_metrics::nearest(&ids, self.canvas, size))
    }

    /// The window's part of the picture.
    fn part(&self, (left, top): (usize, usize), size: (usize, usize)) -> Rect {
        let along = |start: usize, window: usize, canvas: usize, side: usize| {
            let from = start * side / canvas;
            let end = ((start + window) * side).div_ceil(canvas).min(side);
            (from, (end - from).max(1))
        };
        let (x, width) = along(left, self.window.0, self.canvas.0, size.0);
        let (y, height) = along(top, self.window.1, self.canvas.1, size.1);
        Rect {
            x,
            y,
            width,
            height,
        }
    }
}

/// Weight of each place of a window: lower towards its edges, where the network sees one side only.
fn ramp(side: usize) -> Vec<f32> {
    let reach = (side as f32 * OVERLAP as f32).max(1.0);
    (0..side)
        .map(|i| ((i.min(side - 1 - i) as f32 + 0.5) / reach).min(1.0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Resize;

    fn how(size: [u32; 2], trained: [u32; 2]) -> Preprocessing {
        Preprocessing {
            resize: Resize::Exact {
                height: size[0],
                width: size[1],
            },
            mean: vec![0.5; 3],
            std: vec![0.5; 3],
            range: Vec::new(),
            image_size: Some(trained),
        }
    }

    #[test]
    fn windows_cover_everything_and_overlap() {
        assert_eq!(windows_of((200, 200), &how([64, 64], [100, 100])), None);
        for (size, trained) in [
            ((1000, 900), [100, 120]),
            ((3000, 20), [64, 64]),
            ((401, 101), [100, 100]),
        ] {
            let grid = windows_of(size, &how([64, 96], trained)).unwrap();
            for (starts, whole, window) in [
                (&grid.columns, grid.canvas.0, grid.window.0),
                (&grid.rows, grid.canvas.1, grid.window.1),
            ] {
                assert_eq!(
                    (starts[0], starts.last().unwrap() + window),
                    (0, whole),
                    "{grid:?}"
                );
                let overlap = |p: &[usize]| p[0] + window - p[1];
                assert!(
                    starts.windows(2).all(|p| overlap(p) * 4 >= window),
                    "{grid:?}"
                );
            }
            let last = (*grid.columns.last().unwrap(), *grid.rows.last().unwrap());
            let part = grid.part(last, size);
            assert_eq!((part.x + part.width, part.y + part.height), size);
        }
    }

    #[test]
    fn enlarging_interpolates_before_it_compares() {
        // Two classes that cross over halfway between two columns.
        let logits = HostTensor {
            shape: vec![1, 2, 2],
            data: vec![1.0, 0.0, 0.0, 1.0],
        };
        assert_eq!(
            enlarged(&logits, (8, 2)),
            [0, 0, 0, 0, 1, 1, 1, 1].repeat(2)
        );
        assert_eq!(enlarged(&logits, (2, 1)), [0, 1]);
    }

    #[test]
    fn places_lie_where_pytorch_puts_them() {
        // torch.nn.functional.interpolate(torch.arange(3.)[None, None], 5, mode="linear")
        let values: Vec<f32> = taps(3, 5)
            .iter()
            .map(|(a, b, t)| *a as f32 + (*b as f32 - *a as f32) * t)
            .collect();
        for (value, wanted) in values.iter().zip([0.0, 0.4, 1.0, 1.6, 2.0]) {
            assert!((value - wanted).abs() < 1e-6, "{values:?}");
        }
    }
}
