//! Confusion of detections, and precision and recall at a score.

/// Counts at one overlap and one score.
pub(super) struct DetectionConfusion {
    classes: usize,
    overlap: f64,
    /// (classes + 1)²: row the truth, column the prediction, the last one of each nothing.
    counts: Vec<u64>,
    found: Vec<u64>,
    truths: Vec<u64>,
    predictions: Vec<u64>,
}

/// Precision and recall of a class; none without predictions, without truths.
pub(super) struct Ratios {
    pub precision: Option<f64>,
    pub recall: Option<f64>,
}

impl DetectionConfusion {
    pub fn new(classes: usize, overlap: f64) -> Self {
        Self {
            classes,
            overlap,
            counts: vec![0; (classes + 1) * (classes + 1)],
            found: vec![0; classes],
            truths: vec![0; classes],
            predictions: vec![0; classes],
        }
    }

    /// Counts an image: class and difficulty of its truths, classes of its detections above the score
    /// threshold from the highest score on, and the overlap of a detection (first) with a truth.
    ///
    /// As PaddleX counts. In the matrix a detection goes to the last truth it overlaps enough with, whatever
    /// the classes, and several may go to one truth. For precision and recall it goes to the truth
    /// of its class that it overlaps most with, when no earlier one went there; difficult truths are never found.
    pub fn add(
        &mut self,
        truths: &[(usize, bool)],
        detections: &[usize],
        overlap: impl Fn(usize, usize) -> f64,
    ) {
        let nothing = self.classes;
        let mut matched = vec![false; truths.len()];
        let mut found = vec![false; truths.len()];
        for &(class, _) in truths {
            self.truths[class] += 1;
        }
        for (d, &class) in detections.iter().enumerate() {
            self.predictions[class] += 1;
            let (mut last, mut best) = (None, None::<(usize, f64)>);
            for (t, truth) in truths.iter().enumerate() {
                let shared = overlap(d, t);
                if shared >= self.overlap {
                    last = Some(t);
                }
                if truth.0 == class && best.is_none_or(|(_, most)| shared > most) {
                    best = Some((t, shared));
                }
            }
            if let Some(t) = last {
                matched[t] = true;
            }
            self.count(last.map_or(nothing, |t| truths[t].0), class);
            if let Some((t, shared)) = best
                && shared >= self.overlap
                && !truths[t].1
                && !std::mem::replace(&mut found[t], true)
            {
                self.found[class] += 1;
            }
        }
        for (t, _) in matched.iter().enumerate().filter(|(_, matched)| !**matched) {
            self.count(truths[t].0, nothing);
        }
    }

    fn count(&mut self, truth: usize, prediction: usize) {
        self.counts[truth * (self.classes + 1) + prediction] += 1;
    }

    /// One row a true class, then one of what was found where nothing is.
    pub fn rows(&self) -> Vec<Vec<f64>> {
        let rows = self.counts.chunks(self.classes + 1);
        rows.map(|row| row.iter().map(|&c| c as f64).collect())
            .collect()
    }

    pub fn ratios(&self, class: usize) -> Ratios {
        let found = self.found[class] as f64;
        let over = |whole: u64| (whole > 0).then(|| found / whole as f64);
        Ratios {
            precision: over(self.predictions[class]),
            recall: over(self.truths[class]),
        }
    }
}
