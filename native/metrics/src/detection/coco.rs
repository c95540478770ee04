//! Matching of detections to truths as COCO's evaluation does it.

use oarlock_imaging::Rle;

use super::accumulate::{CocoResult, accumulate};
use super::{ImageResult, box_iou, by_score, check, in_pieces};
use crate::report::ReportError;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// Boxes.
    Box,
    /// Masks; objects without one overlap with nothing, detections without one do not count.
    Mask,
}

/// What average precision is taken over.
#[derive(Debug, Clone, PartialEq)]
pub struct CocoParameters {
    /// Overlaps from which on a detection matches, 32 at most.
    pub overlaps: Vec<f64>,
    /// Ranges of areas in square pixels, both ends included. The first one is that of the curves.
    pub areas: Vec<[f64; 2]>,
    /// Most detections of a class in an image, ascending. The last one is that of the curves.
    pub detections: Vec<usize>,
}

impl Default for CocoParameters {
    /// COCO's: overlaps 0.50, 0.55 … 0.95; all, small (to 32²), medium (to 96²) and large objects; 1, 10 and
    /// 100 detections.
    fn default() -> Self {
        // Nine steps of this size, as COCO's code spaces them: a threshold must be the same number.
        let step = (0.95 - 0.5) / 9.0;
        let overlap = |i: u8| {
            if i == 9 {
                0.95
            } else {
                f64::from(i) * step + 0.5
            }
        };
        let (all, small, medium) = (1e10, 1024.0, 9216.0);
        Self {
            overlaps: (0..10).map(overlap).collect(),
            areas: vec![[0.0, all], [0.0, small], [small, medium], [medium, all]],
            detections: vec![1, 10, 100],
        }
    }
}

impl CocoParameters {
    /// One overlap, all areas, 100 detections: what reports show.
    pub fn single(overlap: f64) -> Self {
        Self {
            overlaps: vec![overlap],
            areas: vec![[0.0, 1e10]],
            detections: vec![100],
        }
    }

    fn check(&self) -> Result<(), ReportError> {
        let text = if self.overlaps.is_empty() || self.overlaps.len() > 32 {
            format!(
                "{} overlap thresholds; 1 to 32 are possible",
                self.overlaps.len()
            )
        } else if self.areas.is_empty() || self.detections.is_empty() {
            "no range of areas or no number of detections to evaluate".into()
        } else {
            return Ok(());
        };
        Err(ReportError::Shape(text))
    }
}

/// The detections of one class over images. Bit t of a flag belongs to overlap threshold t; there is a
/// flag for every range of areas in turn.
#[derive(Default, Clone)]
pub(super) struct Matches {
    pub scores: Vec<f64>,
    /// Place among the detections of the class in its image.
    pub ranks: Vec<u32>,
    pub matched: Vec<u32>,
    pub ignored: Vec<u32>,
    /// Truths to be found, for every range of areas.
    pub truths: Vec<u64>,
    /// Whether any image has a truth or a detection of the class.
    pub seen: bool,
}

/// Average precision and recall of `images` as pycocotools computes them, at 101 levels of recall.
///
/// Like there, detections are matched from the highest score on, each to the free truth of its class that
/// it overlaps most with; crowds and objects outside the range of areas neither have to be found nor
/// count as wrong. An annotation's id plays no part (pycocotools takes one with id 0 as never found).
/// The result does not depend on `threads`.
///
/// # Errors
/// [`ReportError::Shape`] for classes from `classes` on, scores that are no numbers, and parameters without
/// thresholds, areas or numbers of detections.
pub fn coco_evaluate(
    images: &[ImageResult],
    classes: usize,
    region: Region,
    parameters: CocoParameters,
    threads: usize,
) -> Result<CocoResult, ReportError> {
    check(images, classes)?;
    parameters.check()?;
    let pieces = in_pieces(images.len(), threads, |range| {
        let mut matches = vec![Matches::default(); classes];
        for class in &mut matches {
            class.truths = vec![0; parameters.areas.len()];
        }
        let mut matcher = Matcher::new(&parameters, region);
        for image in &images[range] {
            matcher.image(image, &mut matches);
        }
        matches
    });
    Ok(accumulate(pieces, classes, parameters, threads))
}

/// A detection or truth as the matching sees it.
struct Item<'a> {
    class: usize,
    bbox: [f64; 4],
    mask: Option<&'a Rle>,
    area: f64,
    crowd: bool,
    score: f64,
}

impl Item<'_> {
    /// Overlap with a truth.
    fn overlap(&self, truth: &Self, region: Region) -> f64 {
        if region == Region::Box {
            return box_iou(&self.bbox, &truth.bbox, truth.crowd);
        }
        let (Some(mask), Some(other)) = (self.mask, truth.mask) else {
            return 0.0;
        };
        // Boxes of masks tell most pairs apart without a look at the runs.
        if box_iou(&self.bbox, &truth.bbox, true) <= 0.0 {
            return 0.0;
        }
        mask.iou(other, truth.crowd)
    }
}

fn items(image: &ImageResult, region: Region) -> (Vec<Item<'_>>, Vec<Item<'_>>) {
    let around = |mask: Option<&Rle>, bbox: [f64; 4]| match (region, mask) {
        (Region::Mask, Some(mask)) => mask.bbox().map(f64::from),
        _ => bbox,
    };
    let truths = image.truths.iter().map(|t| Item {
        class: t.class,
        bbox: around(t.mask.as_ref(), t.bbox),
        mask: t.mask.as_ref(),
        area: t.area,
        crowd: t.crowd,
        score: 0.0,
    });
    let counts = |d: &&super::Detection| region == Region::Box || d.mask.is_some();
    let detections = image.detections.iter().filter(counts).map(|d| Item {
        class: d.class,
        bbox: around(d.mask.as_ref(), d.bbox),
        mask: d.mask.as_ref(),
        area: match (region, &d.mask) {
            (Region::Mask, Some(mask)) => f64::from(mask.area()),
            _ => d.bbox[2] * d.bbox[3],
        },
        crowd: false,
        score: d.score,
    });
    (truths.collect(), detections.collect())
}

/// Works through images, reusing its memory.
struct Matcher<'a> {
    parameters: &'a CocoParameters,
    region: Region,
    most: usize,
    /// Overlaps of a class: a row a detection.
    overlaps: Vec<f64>,
    /// Truths in the order of matching: ignored ones last.
    order: Vec<usize>,
    ignored: Vec<bool>,
    taken: Vec<bool>,
}

impl<'a> Matcher<'a> {
    fn new(parameters: &'a CocoParameters, region: Region) -> Self {
        Self {
            parameters,
            region,
            most: parameters.detections.iter().copied().max().unwrap_or(0),
            overlaps: Vec::new(),
            order: Vec::new(),
            ignored: Vec::new(),
            taken: Vec::new(),
        }
    }

    fn image(&mut self, image: &ImageResult, matches: &mut [Matches]) {
        let (mut truths, detections) = items(image, self.region);
        truths.sort_by_key(|t| t.class);
        let mut sorted: Vec<&Item> = by_score(detections.iter().map(|d| d.score))
            .into_iter()
            .map(|i| &detections[i as usize])
            .collect();
        sorted.sort_by_key(|d| d.class);
        let (mut truths, mut detections) = (truths.as_slice(), sorted.as_slice());
        loop {
            let class = match (truths.first(), detections.first()) {
                (None, None) => return,
                (t, d) => t
                    .map_or(usize::MAX, |t| t.class)
                    .min(d.map_or(usize::MAX, |d| d.class)),
            };
            let (own_truths, rest) = truths.split_at(truths.partition_point(|t| t.class == class));
            truths = rest;
            let (own, rest) = detections.split_at(detections.partition_point(|d| d.class == class));
            detections = rest;
            self.class(
                own_truths,
                &own[..own.len().min(self.most)],
                &mut matches[class],
            );
        }
    }

    fn class(&mut self, truths: &[Item], detections: &[&Item], out: &mut Matches) {
        out.seen = true;
        self.overlaps.clear();
        for detection in detections {
            let row = truths.iter().map(|t| detection.overlap(t, self.region));
            self.overlaps.extend(row);
        }
        let areas = self.parameters.areas.len();
        let start = out.matched.len();
        out.scores.extend(detections.iter().map(|d| d.score));
        out.ranks.extend(0..detections.len() as u32);
        out.matched.resize(start + detections.len() * areas, 0);
        out.ignored.resize(start + detections.len() * areas, 0);
        for (a, &[low, high]) in self.parameters.areas.iter().enumerate() {
            let outside = |item: &Item| item.area < low || item.area > high;
            let ignored = |t: &Item| t.crowd || outside(t);
            out.truths[a] += truths.iter().filter(|t| !ignored(t)).count() as u64;
            self.order.clear();
            self.order.extend(0..truths.len());
            self.order.sort_by_key(|&i| ignored(&truths[i]));
            self.ignored.clear();
            self.ignored
                .extend(self.order.iter().map(|&i| ignored(&truths[i])));
            let at = |i: usize| start + i * areas + a;
            for t in 0..self.parameters.overlaps.len() {
                self.threshold(t, truths, detections.len(), |i, on_ignored| {
                    out.matched[at(i)] |= 1 << t;
                    out.ignored[at(i)] |= u32::from(on_ignored) << t;
                });
            }
            for (i, _) in detections.iter().enumerate().filter(|(_, d)| outside(d)) {
                out.ignored[at(i)] |= !out.matched[at(i)];
            }
        }
    }

    /// Tells which detections match at a threshold, and whether on a truth that is ignored.
    fn threshold(
        &mut self,
        t: usize,
        truths: &[Item],
        detections: usize,
        mut found: impl FnMut(usize, bool),
    ) {
        let least = self.parameters.overlaps[t].min(1.0 - 1e-10);
        self.taken.clear();
        self.taken.resize(truths.len(), false);
        for i in 0..detections {
            let row = &self.overlaps[i * truths.len()..(i + 1) * truths.len()];
            if !row.iter().any(|&o| o >= least) {
                continue;
            }
            let (mut best, mut overlap) = (None::<usize>, least);
            for (k, &truth) in self.order.iter().enumerate() {
                if self.taken[k] && !truths[truth].crowd {
                    continue;
                }
                if self.ignored[k] && best.is_some_and(|b| !self.ignored[b]) {
                    break;
                }
                if row[truth] >= overlap {
                    (best, overlap) = (Some(k), row[truth]);
                }
            }
            if let Some(k) = best {
                self.taken[k] = true;
                found(i, self.ignored[k]);
            }
        }
    }
}
