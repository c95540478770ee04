//! From matches to precision and recall, COCO's way.

use super::coco::{CocoParameters, Matches};
use super::{by_score, in_pieces};

/// Levels of recall that precision is read at: 0, 0.01 … 1.
pub(super) const LEVELS: usize = 101;

/// Recall of a level.
pub(super) fn level(i: usize) -> f64 {
    // As COCO's code spaces them: a recall must not fall on the other side.
    if i == LEVELS - 1 {
        1.0
    } else {
        i as f64 * 0.01
    }
}

/// Precision over recall, at recall 0, 0.01 … 1.
#[derive(Debug, Clone, PartialEq)]
pub struct PrCurve {
    /// The best precision at this recall or a greater one; 0 where it is not reached. 101 values.
    pub precision: Vec<f64>,
    /// The score threshold that gives the recall; 0 where it is not reached. 101 values.
    pub score: Vec<f64>,
}

impl PrCurve {
    fn flat() -> Self {
        Self {
            precision: vec![0.0; LEVELS],
            score: vec![0.0; LEVELS],
        }
    }

    /// From the correct detections in order of their scores, each with its score and the number of
    /// detections up to and with it; `first` is the highest score of all.
    pub(super) fn new(hits: &[(f64, u64)], truths: u64, first: Option<f64>) -> Self {
        let mut curve = Self::flat();
        // The precision is never better further left.
        let mut best = 0.0_f64;
        let mut next = LEVELS;
        for (k, &(score, seen)) in hits.iter().enumerate().rev() {
            let correct = (k + 1) as f64;
            best = best.max(correct / (seen as f64 + f64::EPSILON));
            // Levels that the hit before this one does not reach.
            let before = k as f64 / truths as f64;
            while next > 0 && level(next - 1) > before {
                next -= 1;
                if level(next) <= correct / truths as f64 {
                    curve.precision[next] = best;
                    curve.score[next] = score;
                }
            }
        }
        curve.precision[0] = best;
        curve.score[0] = first.unwrap_or(0.0);
        curve
    }

    /// The mean precision over the levels of recall.
    pub fn average_precision(&self) -> f64 {
        self.precision.iter().sum::<f64>() / LEVELS as f64
    }
}

/// COCO's twelve figures, 0–1; none where no class has a truth of that size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CocoSummary {
    /// Average precision over the overlaps 0.50, 0.55 … 0.95 ("mmap").
    pub ap: Option<f64>,
    /// At overlap 0.50.
    pub ap50: Option<f64>,
    /// At overlap 0.75.
    pub ap75: Option<f64>,
    /// Of objects up to 32², up to 96², and greater ones.
    pub ap_by_size: [Option<f64>; 3],
    /// Average recall with 1, 10 and 100 detections of a class in an image.
    pub ar: [Option<f64>; 3],
    /// With 100 detections, of objects up to 32², up to 96², and greater ones.
    pub ar_by_size: [Option<f64>; 3],
}

/// Average precision and recall of every class, overlap, range of areas and number of detections.
#[derive(Debug, Clone, PartialEq)]
pub struct CocoResult {
    parameters: CocoParameters,
    classes: Vec<Option<ClassResult>>,
}

/// Of a class that has truths in some range of areas; none in the others.
#[derive(Debug, Clone, PartialEq)]
struct ClassResult {
    /// Average precision and recall, by range of areas, number of detections, overlap.
    values: Vec<Option<(f64, f64)>>,
    /// By overlap, for the first range of areas and most detections; empty without truths.
    curves: Vec<PrCurve>,
}

impl CocoResult {
    /// What was evaluated.
    pub fn parameters(&self) -> &CocoParameters {
        &self.parameters
    }

    fn value(&self, class: usize, at: (usize, usize, usize)) -> Option<(f64, f64)> {
        let (overlap, area, detections) = at;
        let class = self.classes.get(class)?.as_ref()?;
        let index = (area * self.parameters.detections.len() + detections)
            * self.parameters.overlaps.len()
            + overlap;
        class.values.get(index).copied().flatten()
    }

    fn mean(&self, overlap: Option<usize>, area: usize, detections: usize) -> Option<(f64, f64)> {
        let overlaps = match overlap {
            Some(t) => t..t + 1,
            None => 0..self.parameters.overlaps.len(),
        };
        let (mut sums, mut count) = ((0.0, 0.0), 0);
        for class in 0..self.classes.len() {
            for t in overlaps.clone() {
                if let Some((precision, recall)) = self.value(class, (t, area, detections)) {
                    sums = (sums.0 + precision, sums.1 + recall);
                    count += 1;
                }
            }
        }
        let mean = |sum: f64| sum / f64::from(count);
        (count > 0).then(|| (mean(sums.0), mean(sums.1)))
    }

    /// Mean average precision over classes, at one overlap or over all. All indices are places in the
    /// parameters. None when no class has a truth.
    pub fn average_precision(
        &self,
        overlap: Option<usize>,
        area: usize,
        detections: usize,
    ) -> Option<f64> {
        self.mean(overlap, area, detections).map(|m| m.0)
    }

    /// Mean recall over classes and overlaps; as [`CocoResult::average_precision`].
    pub fn average_recall(
        &self,
        overlap: Option<usize>,
        area: usize,
        detections: usize,
    ) -> Option<f64> {
        self.mean(overlap, area, detections).map(|m| m.1)
    }

    /// Average precision of a class, first range of areas, most detections, at one overlap or over all.
    /// None when the class has no truth.
    pub fn class_average_precision(&self, class: usize, overlap: Option<usize>) -> Option<f64> {
        let curves = &self.classes.get(class)?.as_ref()?.curves;
        let curves = match overlap {
            Some(t) => curves.get(t..=t)?,
            None => curves,
        };
        let sum: f64 = curves.iter().map(PrCurve::average_precision).sum();
        (!curves.is_empty()).then(|| sum / curves.len() as f64)
    }

    /// Precision over recall of a class, first range of areas, most detections. None when the class has no
    /// truth.
    pub fn curve(&self, class: usize, overlap: usize) -> Option<&PrCurve> {
        self.classes.get(class)?.as_ref()?.curves.get(overlap)
    }

    /// The twelve figures, for a result of the default parameters; none for what others lack.
    pub fn summary(&self) -> CocoSummary {
        let last = self.parameters.detections.len() - 1;
        let at = |wanted: f64| {
            let same = |o: &f64| (o - wanted).abs() < 1e-9;
            let t = self.parameters.overlaps.iter().position(same)?;
            self.average_precision(Some(t), 0, last)
        };
        CocoSummary {
            ap: self.average_precision(None, 0, last),
            ap50: at(0.5),
            ap75: at(0.75),
            ap_by_size: [1, 2, 3].map(|a| self.average_precision(None, a, last)),
            ar: [0, 1, 2].map(|m| self.average_recall(None, 0, m)),
            ar_by_size: [1, 2, 3].map(|a| self.average_recall(None, a, last)),
        }
    }
}

/// Joins what the pieces of the images gave, in their order.
pub(super) fn accumulate(
    pieces: Vec<Vec<Matches>>,
    classes: usize,
    parameters: CocoParameters,
    threads: usize,
) -> CocoResult {
    let results = in_pieces(classes, threads, |range| {
        let class = |c: usize| {
            let parts: Vec<&Matches> = pieces.iter().map(|p| &p[c]).collect();
            accumulate_class(&parts, &parameters)
        };
        range.map(class).collect::<Vec<_>>()
    });
    CocoResult {
        classes: results.into_iter().flatten().collect(),
        parameters,
    }
}

fn accumulate_class(parts: &[&Matches], parameters: &CocoParameters) -> Option<ClassResult> {
    if !parts.iter().any(|p| p.seen) {
        return None;
    }
    let join = |field: fn(&Matches) -> &Vec<u32>| -> Vec<u32> {
        parts.iter().flat_map(|p| field(p)).copied().collect()
    };
    let scores: Vec<f64> = parts.iter().flat_map(|p| &p.scores).copied().collect();
    let (ranks, matched, ignored) = (
        join(|p| &p.ranks),
        join(|p| &p.matched),
        join(|p| &p.ignored),
    );
    let order = by_score(scores.iter().copied());
    let (areas, overlaps) = (parameters.areas.len(), parameters.overlaps.len());
    let mut result = ClassResult {
        values: Vec::new(),
        curves: Vec::new(),
    };
    for a in 0..areas {
        let truths: u64 = parts.iter().map(|p| p.truths[a]).sum();
        for (m, &most) in parameters.detections.iter().enumerate() {
            if truths == 0 {
                result.values.extend(std::iter::repeat_n(None, overlaps));
                continue;
            }
            let chosen = order
                .iter()
                .map(|&i| i as usize)
                .filter(|&i| (ranks[i] as usize) < most);
            let flags = chosen.map(|i| (scores[i], matched[i * areas + a], ignored[i * areas + a]));
            for curve in curves(flags, overlaps, truths) {
                let (curve, recall) = curve;
                result
                    .values
                    .push(Some((curve.average_precision(), recall)));
                if a == 0 && m == parameters.detections.len() - 1 {
                    result.curves.push(curve);
                }
            }
        }
    }
    Some(result)
}

/// Curve and recall at every overlap.
fn curves(
    flags: impl Iterator<Item = (f64, u32, u32)>,
    overlaps: usize,
    truths: u64,
) -> Vec<(PrCurve, f64)> {
    let mut hits: Vec<Vec<(f64, u64)>> = vec![Vec::new(); overlaps];
    // Detections that count at every overlap, and how many of them do not at some.
    let (mut counted, mut ignored_at) = (0u64, vec![0u64; overlaps]);
    let mut first = None;
    for (score, matched, ignored) in flags {
        first.get_or_insert(score);
        counted += 1;
        if matched == 0 && ignored == 0 {
            continue;
        }
        for (t, hits) in hits.iter_mut().enumerate() {
            if ignored >> t & 1 == 1 {
                ignored_at[t] += 1;
            } else if matched >> t & 1 == 1 {
                hits.push((score, counted - ignored_at[t]));
            }
        }
    }
    let finish = |hits: Vec<(f64, u64)>| {
        let recall = hits.len() as f64 / truths as f64;
        (PrCurve::new(&hits, truths, first), recall)
    };
    hits.into_iter().map(finish).collect()
}
