//! The picture of an analysis: one line a group of layers, loss over share removed.

use oarlock_imaging::{Colour, Image, draw_text, encode_png, fill_rect, resize_smooth, text_width};

use super::table::Table;
use crate::{EngineError, Result};

/// Name of the file in the folder of an analysis.
pub const FILE_NAME: &str = "sensitivities.png";

/// Lines are drawn this many times larger, then made smaller smoothly.
const SCALE: usize = 3;
const PLOT: (usize, usize) = (900, 620);
const LEFT: usize = 76;
const TOP: usize = 76;
const BOTTOM: usize = 64;
const TEXT: f32 = 17.0;
const ROW: usize = 21;
const INK: Colour = [40, 40, 40];
const GRID: Colour = [225, 225, 225];

/// The picture as PNG: ratios from 0 to 100 % to the right, losses in per cent upwards, a legend in the order of the network.
///
/// # Errors
/// `Internal`, should encoding fail.
pub fn picture(table: &Table) -> Result<Vec<u8>> {
    let names: Vec<&str> = table.sensitivities.keys().map(String::as_str).collect();
    let losses = || table.sensitivities.values().flatten().map(|p| 100.0 * p.1);
    let scale = Ticks::over(losses().fold(0.0, f64::min), losses().fold(1.0, f64::max));
    let lines = lines(table, &scale)?;

    let rows = (PLOT.1 / ROW).max(1);
    let longest = names
        .iter()
        .map(|n| text_width(n, TEXT))
        .fold(0.0, f32::max);
    let column = longest as usize + 50;
    let columns = names.len().div_ceil(rows);
    let width = LEFT + PLOT.0 + 30 + columns * column + 10;
    let mut image = Image::filled(width, TOP + PLOT.1 + BOTTOM, [255; 3]);
    image.paste(&lines, LEFT, TOP);
    axes(&mut image, table, &scale);
    for (i, name) in names.iter().enumerate() {
        let x = LEFT + PLOT.0 + 30 + i / rows * column;
        let y = TOP + i % rows * ROW;
        let colour = colour(i, names.len());
        fill_rect(&mut image, x as i64, (y + 8) as i64, 26, 4, colour);
        draw_text(&mut image, name, (x + 34) as f32, y as f32, TEXT, INK);
    }
    encode_png(&image).map_err(|e| EngineError::internal(format!("sensitivities.png: {e}")))
}

/// Round numbers along an axis.
struct Ticks {
    low: f64,
    high: f64,
    step: f64,
}

impl Ticks {
    fn over(low: f64, high: f64) -> Self {
        let raw = ((high - low) / 8.0).max(1e-9);
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|m| m * power)
            .into_iter()
            .find(|s| *s >= raw)
            .unwrap_or(10.0 * power);
        Self {
            low: (low / step).floor() * step,
            high: (high / step).ceil() * step,
            step,
        }
    }

    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        let count = ((self.high - self.low) / self.step).round() as usize;
        (0..=count).map(|i| self.low + i as f64 * self.step)
    }

    /// Distance of `value` from the top of the plot, as a share of its height.
    fn place(&self, value: f64) -> f64 {
        (self.high - value) / (self.high - self.low)
    }
}

/// Blue at the front of the network to red at its end; neighbours differ in brightness too.
fn colour(index: usize, count: usize) -> Colour {
    let along = index as f64 / (count.max(2) - 1) as f64;
    let hue = 4.0 * (1.0 - along); // sixths of the colour wheel
    let value = if index.is_multiple_of(2) { 0.88 } else { 0.58 };
    [5.0, 3.0, 1.0].map(|n: f64| {
        let k = (n + hue) % 6.0;
        let share = 1.0 - 0.9 * k.min(4.0 - k).clamp(0.0, 1.0);
        (255.0 * value * share) as u8
    })
}

/// Grid and lines, without text.
fn lines(table: &Table, scale: &Ticks) -> Result<Image> {
    let (width, height) = (PLOT.0 * SCALE, PLOT.1 * SCALE);
    let mut image = Image::filled(width, height, [255; 3]);
    let at = |ratio: f64, loss: f64| {
        let y = scale.place(100.0 * loss) * (height - 1) as f64;
        (ratio * (width - 1) as f64, y)
    };
    for i in 0..=10 {
        let (x, _) = at(f64::from(i) / 10.0, 0.0);
        fill_rect(&mut image, x as i64 - 1, 0, 3, height as i64, GRID);
    }
    for value in scale.values() {
        let (_, y) = at(0.0, value / 100.0);
        let colour = if value.abs() < scale.step / 2.0 {
            [130; 3]
        } else {
            GRID
        };
        fill_rect(&mut image, 0, y as i64 - 1, width as i64, 3, colour);
    }
    let count = table.sensitivities.len();
    for (i, points) in table.sensitivities.values().enumerate() {
        let places: Vec<(f64, f64)> = std::iter::once((0.0, 0.0))
            .chain(points.iter().copied())
            .map(|(ratio, loss)| at(ratio, loss))
            .collect();
        let colour = colour(i, count);
        for pair in places.windows(2) {
            stroke(&mut image, pair[0], pair[1], colour);
        }
        places[1..]
            .iter()
            .for_each(|&place| dot(&mut image, place, 3.4, colour));
    }
    resize_smooth(&image, PLOT.0, PLOT.1).map_err(|e| EngineError::internal(e.to_string()))
}

fn stroke(image: &mut Image, from: (f64, f64), to: (f64, f64), colour: Colour) {
    let length = (to.0 - from.0).hypot(to.1 - from.1).max(1.0);
    for i in 0..=length as usize {
        let t = i as f64 / length;
        let place = (from.0 + t * (to.0 - from.0), from.1 + t * (to.1 - from.1));
        dot(image, place, 0.9, colour);
    }
}

/// A disc of `radius` pixels of the finished picture.
fn dot(image: &mut Image, (x, y): (f64, f64), radius: f64, colour: Colour) {
    let r = radius * SCALE as f64;
    let (top, bottom) = ((y - r).ceil() as i64, (y + r).floor() as i64);
    for row in top..=bottom {
        let half = (r * r - (row as f64 - y).powi(2)).max(0.0).sqrt();
        let (left, right) = ((x - half).round() as i64, (x + half).round() as i64);
        fill_rect(image, left, row, right - left + 1, 1, colour);
    }
}

fn axes(image: &mut Image, table: &Table, scale: &Ticks) {
    let title = format!(
        "{}: {} is {:.4} unpruned, on {} images",
        table.model, table.metric, table.base, table.images
    );
    draw_text(image, &title, LEFT as f32, 12.0, 22.0, INK);
    let y_label = format!("relative loss of {} in %", table.metric);
    draw_text(image, &y_label, 12.0, TOP as f32 - 28.0, TEXT, INK);
    for value in scale.values() {
        let text = if scale.step < 1.0 {
            format!("{value:.1}")
        } else {
            format!("{value:.0}")
        };
        let x = LEFT as f32 - 10.0 - text_width(&text, TEXT);
        let y = TOP as f32 + (scale.place(value) * PLOT.1 as f64) as f32 - TEXT / 2.0;
        draw_text(image, &text, x, y, TEXT, INK);
    }
    let below = (TOP + PLOT.1) as f32 + 8.0;
    for i in 0..=10 {
        let text = format!("{}", 10 * i);
        let x = (LEFT + PLOT.0 * i / 10) as f32 - text_width(&text, TEXT) / 2.0;
        draw_text(image, &text, x, below, TEXT, INK);
    }
    let x_label = "channels removed in %";
    let x = LEFT as f32 + (PLOT.0 as f32 - text_width(x_label, TEXT)) / 2.0;
    draw_text(image, x_label, x, below + 24.0, TEXT, INK);
}
