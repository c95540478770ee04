//! Confusion matrix and what follows from it.

/// Counts of truth (rows) against prediction (columns).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
}

/// Precision, recall and F1 of one class, each within 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// Correct among those predicted as this class; 0 when it was never predicted.
    pub precision: f64,
    /// Found among those that are of this class.
    pub recall: f64,
    /// Harmonic mean of both; 0 when both are 0.
    pub f1: f64,
}

impl Confusion {
    /// An empty matrix.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            counts: vec![0; classes * classes],
        }
    }

    /// A matrix of `classes`² counts, row by row; missing ones are 0.
    pub fn from_counts(classes: usize, mut counts: Vec<u64>) -> Self {
        counts.resize(classes * classes, 0);
        Self { classes, counts }
    }

    /// Counts one image; classes out of range are not counted.
    pub fn add(&mut self, truth: usize, predicted: usize) {
        if truth < self.classes && predicted < self.classes {
            self.counts[truth * self.classes + predicted] += 1;
        }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// One row a true class.
    pub fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.counts.chunks(self.classes.max(1))
    }

    /// Images of a class.
    pub fn truths(&self, class: usize) -> u64 {
        self.counts[class * self.classes..(class + 1) * self.classes]
            .iter()
            .sum()
    }

    /// Images predicted as a class.
    pub fn predictions(&self, class: usize) -> u64 {
        self.rows().map(|row| row[class]).sum()
    }

    /// Images counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Share of correct predictions; 0 without images.
    pub fn accuracy(&self) -> f64 {
        let correct: u64 = (0..self.classes)
            .map(|c| self.counts[c * self.classes + c])
            .sum();
        ratio(correct, self.total())
    }

    /// Measures of one class; `None` when no image is of this class.
    pub fn class(&self, class: usize) -> Option<PrecisionRecall> {
        let truths = self.truths(class);
        if truths == 0 {
            return None;
        }
        let correct = self.counts[class * self.classes + class];
        let predicted = self.predictions(class);
        Some(PrecisionRecall {
            precision: ratio(correct, predicted),
            recall: ratio(correct, truths),
            f1: ratio(2 * correct, predicted + truths),
        })
    }

    /// Averages over the classes that occur, weighted by their share of the images.
    pub fn weighted(&self) -> PrecisionRecall {
        let total = self.total();
        let mut mean = PrecisionRecall {
            precision: 0.0,
            recall: 0.0,
            f1: 0.0,
        };
        for class in 0..self.classes {
            let Some(m) = self.class(class) else { continue };
            let weight = ratio(self.truths(class), total);
            mean.precision += weight * m.precision;
            mean.recall += weight * m.recall;
            mean.f1 += weight * m.f1;
        }
        mean
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
