//! Proposals, boxes and masks of two-stage detectors, as [`TwoStageHead`] describes them and the engine chooses
//! them. Each stage stands before the nodes that read its regions.

use super::super::lower::{FLOAT, Lowering, int};
use super::ops::Tail;
use super::{BOXES, LABELS, MASKS, SCORES, SIZE};
use crate::{Graph, GraphError, RpnLevel, Suppression, TwoStageHead};

/// Growth of a side beyond which a prediction is not believed, ln(1000 / 16).
const MOST_GROWTH: f32 = 4.135_166_6;

/// The post-processing of one graph, stage by stage.
pub(crate) struct TwoStage<'g> {
    graph: &'g Graph,
    head: &'g TwoStageHead,
    /// The value of each node.
    names: &'g [String],
    image_size: [usize; 2],
    /// Value of the proposals, K×5.
    rois: Option<String>,
    chosen: Option<Chosen>,
}

/// Detections in pixels of the input.
struct Chosen {
    /// M×4.
    boxes: String,
    /// M.
    scores: String,
    /// M, int64.
    classes: String,
}

impl<'g> TwoStage<'g> {
    pub fn new(
        graph: &'g Graph,
        head: &'g TwoStageHead,
        names: &'g [String],
        image_size: [usize; 2],
    ) -> Self {
        Self {
            graph,
            head,
            names,
            image_size,
            rois: None,
            chosen: None,
        }
    }

    fn output(&self, name: &str) -> Result<&'g str, GraphError> {
        let output = self.graph.outputs.iter().find(|o| o.name == name);
        let output = output.ok_or_else(|| self.error(format!("it has no output `{name}`")))?;
        Ok(&self.names[output.node])
    }

    fn error(&self, reason: String) -> GraphError {
        GraphError::Export {
            graph: self.graph.name.clone(),
            reason,
        }
    }

    /// Makes the value `out` of a node that is given regions: first the proposals, then the boxes of detections.
    ///
    /// # Errors
    /// A graph whose outputs or regions are not those of its head.
    pub fn regions(&mut self, lowering: &mut Lowering, out: &str) -> Result<(), GraphError> {
        if self.rois.is_none() {
            let mut tail = Tail::staged(lowering, self.image_size, "proposals");
            let boxes = self.proposals(&mut tail)?;
            with_image(&mut tail, &boxes, out);
            self.rois = Some(out.to_owned());
            return Ok(());
        }
        if self.chosen.is_some() || self.head.mask_size.is_none() {
            return Err(self.error("it has more regions than its head describes".to_owned()));
        }
        let mut tail = Tail::staged(lowering, self.image_size, "chosen");
        let chosen = self.choose(&mut tail)?;
        with_image(&mut tail, &chosen.boxes, out);
        self.chosen = Some(chosen);
        Ok(())
    }

    /// Names the detections in pixels of the stored picture.
    ///
    /// # Errors
    /// As [`Self::regions`].
    pub fn finish(mut self, lowering: &mut Lowering) -> Result<(), GraphError> {
        let mut tail = Tail::new(lowering, self.image_size);
        let chosen = match self.chosen.take() {
            Some(chosen) => chosen,
            None => self.choose(&mut tail)?,
        };
        let mut edges = columns(&mut tail, &chosen.boxes);
        for (i, edge) in edges.iter_mut().enumerate() {
            let axis = i % 2;
            let full = tail.slice(SIZE, 0, 1 - axis, 2 - axis);
            let shown = tail.slice(SIZE, 0, 3 - axis, 4 - axis);
            let scale = tail.div(&full, &shown);
            let scaled = tail.mul(edge, &scale);
            *edge = within(&mut tail, &scaled, &full);
        }
        let boxes = tail.concat(&edges, 1);
        let zero = tail.scalar(0.0);
        let stays = wide(&mut tail, &edges, "Greater", &zero);
        let mut results = vec![
            (boxes, BOXES),
            (chosen.scores, SCORES),
            (chosen.classes.clone(), LABELS),
        ];
        if self.head.mask_size.is_some() {
            let logits = self.output("mask")?;
            let logits = of_classes(&mut tail, logits, &chosen.classes, self.head);
            results.push((tail.sigmoid(&logits), MASKS));
        }
        for (value, name) in results {
            let kept = compress(&mut tail, &value, &stays);
            tail.name(&kept, name);
        }
        Ok(())
    }

    /// K×4 edges in pixels of the input, surest first.
    fn proposals(&self, tail: &mut Tail) -> Result<String, GraphError> {
        let (mut boxes, mut scores) = (Vec::new(), Vec::new());
        for (i, level) in self.head.levels.iter().enumerate() {
            let maps = [
                self.output(&format!("rpn_score{i}"))?,
                self.output(&format!("rpn_delta{i}"))?,
            ];
            let (found, sure) = self.of_level(tail, level, maps);
            boxes.push(found);
            scores.push(sure);
        }
        let (boxes, scores) = (tail.concat(&boxes, 0), tail.concat(&scores, 0));
        let count = tail.at_most(&scores, self.head.test.after);
        let (_, order) = tail.top(&scores, &count);
        Ok(tail.gather(&boxes, &order, 0))
    }

    /// Proposals of one level and their scores before the sigmoid.
    fn of_level(
        &self,
        tail: &mut Tail,
        level: &RpnLevel,
        [score, delta]: [&str; 2],
    ) -> (String, String) {
        let how = &self.head.test;
        let anchors = anchors(level, self.image_size);
        let count = anchors.len() / 4;
        let score = tail.transpose(score, &[0, 2, 3, 1]);
        let score = tail.reshape(&score, &[-1]);
        let delta = tail.transpose(delta, &[0, 2, 3, 1]);
        let delta = tail.reshape(&delta, &[-1, 4]);
        let limit = tail.ints(&[how.before.min(count) as i64]);
        let (score, places) = tail.top(&score, &limit);
        let delta = tail.gather(&delta, &places, 0);
        let anchors = tail.floats(&[count, 4], &anchors);
        let anchors = tail.gather(&anchors, &places, 0);
        let (base, delta) = (columns(tail, &anchors), columns(tail, &delta));
        let edges = decode(tail, &base, &delta, [1.0; 4]);
        let edges = clipped(tail, edges);
        // Paddle's `generate_proposals` keeps no box below one pixel, whatever it is told.
        let least = tail.scalar(how.min_size.max(1.0));
        let stays = wide(tail, &edges, "GreaterOrEqual", &least);
        let boxes = tail.concat(&edges, 1);
        let boxes = compress(tail, &boxes, &stays);
        let score = compress(tail, &score, &stays);

        let all = tail.unsqueeze(&boxes, 0);
        let sure = tail.unsqueeze(&score, 0);
        let sure = tail.unsqueeze(&sure, 0);
        let overlap = tail.floats(&[1], &[how.overlap]);
        let kept = tail.op("NonMaxSuppression", &[&all, &sure, &limit, &overlap]);
        let kept = tail.slice(&kept, 1, 2, 3);
        let kept = tail.squeeze(&kept, 1);
        (tail.gather(&boxes, &kept, 0), tail.gather(&score, &kept, 0))
    }

    /// The detections: each class suppressed for itself, then the surest of all.
    fn choose(&self, tail: &mut Tail) -> Result<Chosen, GraphError> {
        let &Suppression::Nms {
            score: least,
            overlap,
            candidates: None,
            detections,
        } = &self.head.suppression
        else {
            return Err(self.error("its boxes are not chosen by plain suppression".to_owned()));
        };
        let Some(rois) = &self.rois else {
            return Err(self.error("it has no regions".to_owned()));
        };
        let classes = self.head.classes;
        let chances = self.output("box_score")?;
        let chances = tail.op_with("Softmax", &[chances], vec![int("axis", 1)]);
        let chances = tail.slice(&chances, 1, 0, classes);
        let chances = tail.transpose(&chances, &[1, 0]); // classes×K

        // Boxes are a class's own: the classes take the place of the images of a batch.
        let delta = tail.reshape(self.output("box_delta")?, &[-1, classes as i64, 4]);
        let delta = tail.transpose(&delta, &[1, 0, 2]);
        let delta = [0, 1, 2, 3].map(|i| tail.slice(&delta, 2, i, i + 1));
        let regions = tail.slice(rois, 1, 1, 5);
        let base = centred(tail, &regions);
        let base = base.map(|side| tail.unsqueeze(&side, 0)); // 1×K×1
        let edges = decode(tail, &base, &delta, self.head.delta_weights);
        let edges = clipped(tail, edges);
        let boxes = tail.concat(&edges, 2); // classes×K×4

        let sure = tail.unsqueeze(&chances, 1);
        let most = tail.ints(&[self.head.test.after as i64]);
        let overlap = tail.floats(&[1], &[overlap]);
        let least = tail.floats(&[1], &[least]);
        let kept = tail.op(
            "NonMaxSuppression",
            &[&boxes, &sure, &most, &overlap, &least],
        );
        let [class, place] = [0, 2].map(|i| {
            let column = tail.slice(&kept, 1, i, i + 1);
            tail.squeeze(&column, 1)
        });
        // Place of a region of a class among all.
        let length = tail.op_with("Shape", &[&chances], vec![int("start", 1), int("end", 2)]);
        let start = tail.mul(&class, &length);
        let index = tail.add(&start, &place);
        let flat = tail.reshape(&chances, &[-1]);
        let scores = tail.gather(&flat, &index, 0);
        let count = tail.at_most(&scores, detections);
        let (scores, order) = tail.top(&scores, &count);
        let index = tail.gather(&index, &order, 0);
        let boxes = tail.reshape(&boxes, &[-1, 4]);
        Ok(Chosen {
            boxes: tail.gather(&boxes, &index, 0),
            scores,
            classes: tail.gather(&class, &order, 0),
        })
    }
}

/// Centre, width and height of all anchors, pixel by pixel, at each sizes × ratios.
fn anchors(level: &RpnLevel, image: [usize; 2]) -> Vec<f32> {
    let [height, width] = image.map(|side| side.div_ceil(level.stride.max(1)));
    let sizes = level.sizes.iter();
    let shapes: Vec<[f32; 2]> = sizes
        .flat_map(|&size| level.ratios.iter().map(move |&ratio| (size, ratio)))
        .map(|(size, ratio)| {
            let (size, ratio) = (f64::from(size), f64::from(ratio));
            let width = (size * size / ratio).sqrt();
            [width as f32, (width * ratio) as f32]
        })
        .collect();
    let mut anchors = Vec::with_capacity(height * width * shapes.len() * 4);
    for row in 0..height {
        for column in 0..width {
            let [x, y] = [column, row].map(|i| (i * level.stride) as f32);
            anchors.extend(shapes.iter().flat_map(|&[w, h]| [x, y, w, h]));
        }
    }
    anchors
}

/// The four columns of a K×4 matrix, each K×1.
fn columns(tail: &mut Tail, matrix: &str) -> [String; 4] {
    [0, 1, 2, 3].map(|i| tail.slice(matrix, 1, i, i + 1))
}

/// Centre, width and height of boxes with four edges, each K×1.
fn centred(tail: &mut Tail, boxes: &str) -> [String; 4] {
    let [left, top, right, bottom] = columns(tail, boxes);
    let (width, height) = (tail.sub(&right, &left), tail.sub(&bottom, &top));
    let mut centre = |low: &str, side: &str| {
        let half = tail.affine(side, 0.5, 0.0);
        tail.add(low, &half)
    };
    let (x, y) = (centre(&left, &width), centre(&top, &height));
    [x, y, width, height]
}

/// Edges of boxes that are others (centre, width, height) moved and grown (Girshick et al. 2014, "R-CNN", appendix C).
fn decode(
    tail: &mut Tail,
    base: &[String; 4],
    delta: &[String; 4],
    weights: [f32; 4],
) -> [String; 4] {
    let mut edges = [const { String::new() }; 4];
    for axis in 0..2 {
        let side = &base[axis + 2];
        let [shift, growth] = [axis, axis + 2].map(|i| {
            let weight = tail.scalar(weights[i]);
            tail.div(&delta[i], &weight)
        });
        let shift = tail.mul(&shift, side);
        let centre = tail.add(&base[axis], &shift);
        let most = tail.scalar(MOST_GROWTH);
        let growth = tail.op("Min", &[&growth, &most]);
        let growth = tail.op("Exp", &[&growth]);
        let half = tail.mul(&growth, side);
        let half = tail.affine(&half, 0.5, 0.0);
        edges[axis] = tail.sub(&centre, &half);
        edges[axis + 2] = tail.add(&centre, &half);
    }
    edges
}

/// Between 0 and `limit`.
fn within(tail: &mut Tail, edge: &str, limit: &str) -> String {
    let zero = tail.scalar(0.0);
    let edge = tail.op("Min", &[edge, limit]);
    tail.op("Max", &[&edge, &zero])
}

/// Edges within the picture's image in the input.
fn clipped(tail: &mut Tail, edges: [String; 4]) -> [String; 4] {
    let shown = [3, 2].map(|i| tail.slice(SIZE, 0, i, i + 1));
    let mut i = 0;
    edges.map(|edge| {
        i += 1;
        within(tail, &edge, &shown[(i - 1) % 2])
    })
}

/// Whether both sides of boxes compare so with `least`: [K] of edges that are K×1.
fn wide(tail: &mut Tail, edges: &[String; 4], compare: &str, least: &str) -> String {
    let sides = [0, 1].map(|axis| {
        let side = tail.sub(&edges[axis + 2], &edges[axis]);
        tail.op(compare, &[&side, least])
    });
    let both = tail.op("And", &[&sides[0], &sides[1]]);
    tail.squeeze(&both, 1)
}

fn compress(tail: &mut Tail, value: &str, stays: &str) -> String {
    tail.op_with("Compress", &[value, stays], vec![int("axis", 0)])
}

/// Boxes K×4 as regions of the only image, K×5.
fn with_image(tail: &mut Tail, boxes: &str, out: &str) {
    let left = tail.slice(boxes, 1, 0, 1);
    let image = tail.affine(&left, 0.0, 0.0);
    let regions = tail.concat(&[image, boxes.to_owned()], 1);
    tail.name(&regions, out);
}

/// Of maps M×classes×s×s those of one class each, M×s×s.
fn of_classes(tail: &mut Tail, maps: &str, classes: &str, head: &TwoStageHead) -> String {
    let side = head.mask_size.unwrap_or(0) as i64;
    let flat = tail.reshape(maps, &[-1, side, side]);
    // The number of each detection: exact in single precision, which every runtime sums.
    let zero = tail.scalar(0.0);
    let ones = tail.cast(classes, FLOAT);
    let ones = tail.mul(&ones, &zero);
    let one = tail.scalar(1.0);
    let ones = tail.add(&ones, &one);
    let axis = tail.ints(&[0]);
    let axis = tail.squeeze(&axis, 0);
    let numbers = tail.op_with("CumSum", &[&ones, &axis], vec![int("exclusive", 1)]);
    let numbers = tail.cast(&numbers, super::super::lower::INT64);
    let count = tail.ints(&[head.classes as i64]);
    let start = tail.mul(&numbers, &count);
    let index = tail.add(&start, classes);
    tail.gather(&flat, &index, 0)
}
