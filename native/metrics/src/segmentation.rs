//! Measures of label maps: counts of pixels, intersection over union, kappa, and the report.
//!
//! Definitions are PaddleSeg's (`paddleseg.utils.metrics`), which PaddleX reports: a class with an empty union has
//! IoU 0 and counts in the mean; the accuracy of a class is its precision; the overall accuracy is the share of
//! correct pixels; kappa is Cohen's (1960).

use serde_json::{Map, Value, json};

use crate::classification::Confusion;
use crate::report::ReportError;

/// Pixels labelled so are left out.
pub const IGNORED: u8 = 255;

/// Tables that pixels are counted into by turns: one table would make each count wait for the last.
const TABLES: usize = 4;
/// Pixels that are looked at together.
const BLOCK: usize = 32;
/// Pixels until a table's counts could overflow.
const FLUSH: usize = u32::MAX as usize / 2;

/// A map of `from` (width, height) at another size: the value at ⌊i · from / to⌋.
pub fn nearest(map: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    if from == to {
        return map.to_vec();
    }
    let columns: Vec<usize> = (0..to.0).map(|x| x * from.0 / to.0).collect();
    let mut out = Vec::with_capacity(to.0 * to.1);
    for y in 0..to.1 {
        let row = &map[y * from.1 / to.1 * from.0..][..from.0];
        out.extend(columns.iter().map(|&x| row[x]));
    }
    out
}

/// Counts of truth and prediction in tables of `SIDE` classes a side, with `CELLS` = `SIDE`² cells: sides are powers of
/// two, so that where a pixel is counted is known to be in the table.
type Tables<const CELLS: usize> = [[u32; CELLS]; TABLES];

/// The smallest tables that hold the classes stay in the nearest cache.
enum AnyTables {
    Small(Box<Tables<{ 32 * 32 }>>),
    Middle(Box<Tables<{ 64 * 64 }>>),
    Large(Box<Tables<{ 256 * 256 }>>),
}

/// Counts pixels of truth against prediction.
pub struct PixelCounter {
    classes: usize,
    /// Stands for everything that is left out.
    last: u8,
    tables: AnyTables,
    pending: usize,
    counts: Vec<u64>,
}

impl std::fmt::Debug for PixelCounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PixelCounter of {} classes", self.classes)
    }
}

impl PixelCounter {
    /// For label maps of `classes` classes, at most 255.
    pub fn new(classes: usize) -> Self {
        let last = classes.min(usize::from(IGNORED)) as u8;
        Self {
            classes,
            last,
            tables: match last {
                ..32 => AnyTables::Small(Box::new([[0; _]; TABLES])),
                32..64 => AnyTables::Middle(Box::new([[0; _]; TABLES])),
                64.. => AnyTables::Large(Box::new([[0; _]; TABLES])),
            },
            pending: 0,
            counts: vec![0; classes * classes],
        }
    }

    /// Counts a map of class ids against the true one; pixels whose truth is [`IGNORED`], or an id beyond the classes
    /// on either side, are left out. What one map has more than the other is not looked at.
    pub fn add(&mut self, truth: &[u8], predicted: &[u8]) {
        let length = truth.len().min(predicted.len());
        for (truth, predicted) in truth[..length]
            .chunks(FLUSH)
            .zip(predicted[..length].chunks(FLUSH))
        {
            if self.pending + truth.len() > FLUSH {
                self.flush();
            }
            self.pending += truth.len();
            match &mut self.tables {
                AnyTables::Small(tables) => count(tables, self.last, truth, predicted),
                AnyTables::Middle(tables) => count(tables, self.last, truth, predicted),
                AnyTables::Large(tables) => count(tables, self.last, truth, predicted),
            }
        }
    }

    fn flush(&mut self) {
        let known = usize::from(self.last);
        match &mut self.tables {
            AnyTables::Small(tables) => flush(tables, known, self.classes, &mut self.counts),
            AnyTables::Middle(tables) => flush(tables, known, self.classes, &mut self.counts),
            AnyTables::Large(tables) => flush(tables, known, self.classes, &mut self.counts),
        }
        self.pending = 0;
    }

    /// The counts so far.
    pub fn finish(mut self) -> Confusion {
        self.flush();
        Confusion::from_counts(self.classes, self.counts)
    }
}

fn count<const CELLS: usize>(tables: &mut Tables<CELLS>, last: u8, truth: &[u8], predicted: &[u8]) {
    let (truths, truth_rest) = truth.as_chunks::<BLOCK>();
    let (predictions, predicted_rest) = predicted.as_chunks::<BLOCK>();
    for (truth, predicted) in truths.iter().zip(predictions) {
        // The inside of a region.
        let uniform = |ids: &[u8; BLOCK]| ids.iter().fold(0, |d, id| d | (id ^ ids[0])) == 0;
        if uniform(truth) && uniform(predicted) {
            tables[0][cell::<CELLS>(last, truth[0], predicted[0])] += BLOCK as u32;
            continue;
        }
        let mut cells = [0; BLOCK];
        for ((to, truth), predicted) in cells.iter_mut().zip(truth).zip(predicted) {
            *to = cell::<CELLS>(last, *truth, *predicted) as u16;
        }
        for group in cells.as_chunks::<TABLES>().0 {
            for (table, cell) in tables.iter_mut().zip(group) {
                table[usize::from(*cell) % CELLS] += 1;
            }
        }
    }
    for (truth, predicted) in truth_rest.iter().zip(predicted_rest) {
        tables[0][cell::<CELLS>(last, *truth, *predicted)] += 1;
    }
}

/// Where a pixel is counted.
#[inline(always)]
fn cell<const CELLS: usize>(last: u8, truth: u8, predicted: u8) -> usize {
    let bits = const { CELLS.trailing_zeros() / 2 };
    let cell = (u16::from(truth.min(last)) << bits) | u16::from(predicted.min(last));
    usize::from(cell) % CELLS
}

/// Moves the counts of the `known` first classes to `counts`, a square of `classes` a side.
fn flush<const CELLS: usize>(
    tables: &mut Tables<CELLS>,
    known: usize,
    classes: usize,
    counts: &mut [u64],
) {
    let side = const { 1 << (CELLS.trailing_zeros() / 2) };
    for table in tables {
        for (truth, row) in table.chunks_exact(side).take(known).enumerate() {
            let counts = &mut counts[truth * classes..][..known];
            counts
                .iter_mut()
                .zip(row)
                .for_each(|(c, n)| *c += u64::from(*n));
        }
        table.fill(0);
    }
}

/// Measures of one class, each within 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassOverlap {
    /// Intersection over union; 0 when the union is empty.
    pub iou: f64,
    /// Share of the pixels predicted as this class that are of it; 0 when there are none.
    pub accuracy: f64,
    /// Harmonic mean of precision and recall; 0 where one of them is undefined.
    pub f1: f64,
}

/// Measures of a whole set of label maps.
#[derive(Debug, Clone, PartialEq)]
pub struct Overlap {
    /// By class id.
    pub classes: Vec<ClassOverlap>,
    /// Mean IoU over all classes.
    pub miou: f64,
    /// Share of correct pixels; 0 without pixels.
    pub accuracy: f64,
    /// Agreement beyond chance; `None` where chance alone agrees everywhere.
    pub kappa: Option<f64>,
}

/// The measures of counted pixels.
pub fn overlap(confusion: &Confusion) -> Overlap {
    let n = confusion.classes();
    let correct: Vec<u64> = confusion.rows().enumerate().map(|(i, r)| r[i]).collect();
    let truths: Vec<u64> = confusion.rows().map(|r| r.iter().sum()).collect();
    let mut predictions = vec![0u64; n];
    for row in confusion.rows() {
        predictions.iter_mut().zip(row).for_each(|(p, c)| *p += c);
    }
    let classes: Vec<ClassOverlap> = (0..n)
        .map(|c| ClassOverlap {
            iou: ratio(correct[c], truths[c] + predictions[c] - correct[c]),
            accuracy: ratio(correct[c], predictions[c]),
            f1: ratio(2 * correct[c], truths[c] + predictions[c]),
        })
        .collect();
    let total = confusion.total();
    let accuracy = ratio(correct.iter().sum(), total);
    let by_chance = truths.iter().zip(&predictions);
    let by_chance: f64 = by_chance
        .map(|(t, p)| ratio(*t, total) * ratio(*p, total))
        .sum();
    Overlap {
        miou: classes.iter().map(|c| c.iou).sum::<f64>() / n.max(1) as f64,
        classes,
        accuracy,
        kappa: (total > 0 && by_chance < 1.0).then(|| (accuracy - by_chance) / (1.0 - by_chance)),
    }
}

/// The report on counted pixels: `label_list`, `epoch`, `Confusion_Matrix`, `Mean_IoU`, `Mean_Acc`, `PRIoU`.
/// Precision of a class never predicted and recall of a class without pixels are −1.
///
/// # Errors
/// [`ReportError`] when there are no pixels or the sizes disagree.
pub fn segmentation_report(
    names: &[String],
    confusion: &Confusion,
    epoch: Option<u32>,
) -> Result<Value, ReportError> {
    if names.len() != confusion.classes() {
        return Err(ReportError::Shape(format!(
            "a matrix of {} classes does not belong to {} names",
            confusion.classes(),
            names.len()
        )));
    }
    if confusion.total() == 0 {
        return Err(ReportError::Empty);
    }
    let measures = overlap(confusion);
    let share = |part: u64, whole: u64| if whole == 0 { -1.0 } else { ratio(part, whole) };
    let mut per_class = Map::new();
    for (class, name) in names.iter().enumerate() {
        let correct = confusion.rows().nth(class).map_or(0, |row| row[class]);
        per_class.insert(
            name.clone(),
            json!({
                "precision": share(correct, confusion.predictions(class)),
                "recall": share(correct, confusion.truths(class)),
                "iou": measures.classes[class].iou,
            }),
        );
    }
    Ok(json!({
        "label_list": names,
        "epoch": epoch,
        "Confusion_Matrix": confusion.rows().collect::<Vec<_>>(),
        "Mean_IoU": measures.miou,
        "Mean_Acc": measures.accuracy,
        "PRIoU": per_class,
    }))
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
