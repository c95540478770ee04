//! Numbers of a detector's head that a project chose itself.

use oarlock_graph::{Graph, GraphError, Head, NodeId, Op, Suppression};

/// What is not given stays as the network has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadSettings {
    /// YOLO: width and height of the anchors of each level, the coarsest level first, in pixels of the input.
    pub anchors: Option<Vec<Vec<[f32; 2]>>>,
    /// Two-stage detectors: sides of the square anchors of each level, the finest first; further ones are not used.
    pub anchor_sizes: Option<Vec<Vec<f32>>>,
    /// Height over width of these anchors.
    pub aspect_ratios: Option<Vec<f32>>,
    /// Only greater scores count.
    pub score: Option<f32>,
    /// Overlap from which a box goes.
    pub overlap: Option<f32>,
    /// Surest boxes of each class that are looked at.
    pub candidates: Option<Option<usize>>,
    /// Most detections of an image.
    pub detections: Option<usize>,
    /// Whether scores are lowered (matrix suppression) instead of boxes left out.
    pub matrix: Option<bool>,
    /// Two-stage detectors: surest anchors of each level that are looked at, and most proposals, in evaluation.
    pub proposals: [Option<usize>; 2],
}

/// Scores that matrix suppression lowers below this are gone, where a network has it by choice only.
const POST: f32 = 0.01;
/// Overlap where a network has plain suppression by choice only.
const OVERLAP: f32 = 0.45;

impl HeadSettings {
    /// The network with these numbers; its last convolutions have as many channels as its anchors need.
    ///
    /// # Errors
    /// Anchors for another number of levels, and numbers that make no sense.
    pub fn apply(&self, graph: &Graph) -> Result<Graph, GraphError> {
        let mut graph = graph.clone();
        let Some(mut head) = graph.head.take() else {
            return Err(wrong(&graph, "it is no detector".into()));
        };
        self.check(&graph)?;
        match &mut head {
            Head::Yolo(yolo) => {
                self.suppress(&mut yolo.suppression);
                if let Some(anchors) = &self.anchors {
                    if anchors.len() != yolo.levels.len() {
                        let (theirs, ours) = (anchors.len(), yolo.levels.len());
                        let what = format!("it has {ours} levels, there are anchors for {theirs}");
                        return Err(wrong(&graph, what));
                    }
                    let values = 5 + yolo.classes + usize::from(yolo.iou_aware.is_some());
                    for (i, (level, own)) in yolo.levels.iter_mut().zip(anchors).enumerate() {
                        level.anchors.clone_from(own);
                        widen(&mut graph, &format!("yolo{i}"), own.len() * values)?;
                    }
                }
            }
            Head::Pico(pico) => self.suppress(&mut pico.suppression),
            Head::TwoStage(rcnn) => {
                self.suppress(&mut rcnn.suppression);
                let [before, after] = self.proposals;
                rcnn.test.before = before.unwrap_or(rcnn.test.before);
                rcnn.test.after = after.unwrap_or(rcnn.test.after);
                if let Some(sizes) = &self.anchor_sizes {
                    let ours = rcnn.levels.len();
                    if sizes.len() < ours {
                        let theirs = sizes.len();
                        let what = format!("it has {ours} levels, there are anchors for {theirs}");
                        return Err(wrong(&graph, what));
                    }
                    let levels = rcnn.levels.iter_mut().zip(sizes);
                    levels.for_each(|(level, own)| level.sizes.clone_from(own));
                }
                for level in &mut rcnn.levels {
                    if let Some(ratios) = &self.aspect_ratios {
                        level.ratios.clone_from(ratios);
                    }
                }
                let counts = rcnn.levels.iter().map(|l| l.sizes.len() * l.ratios.len());
                let counts: Vec<usize> = counts.collect();
                if counts.iter().any(|n| *n != counts[0]) {
                    let what = "its levels share their layers and need equally many anchors";
                    return Err(wrong(&graph, what.into()));
                }
                for (i, count) in counts.into_iter().enumerate() {
                    widen(&mut graph, &format!("rpn_score{i}"), count)?;
                    widen(&mut graph, &format!("rpn_delta{i}"), 4 * count)?;
                }
            }
        }
        graph.head = Some(head);
        graph.validate()?;
        Ok(graph)
    }

    fn check(&self, graph: &Graph) -> Result<(), GraphError> {
        let side = |v: &f32| v.is_finite() && *v > 0.0;
        let share = |v: &f32| (0.0..=1.0).contains(v);
        let anchors = self.anchors.iter().flatten();
        let sizes = self.anchor_sizes.iter().flatten();
        let ratios = self.aspect_ratios.iter();
        let good = [
            (
                "anchors",
                anchors
                    .clone()
                    .all(|l| !l.is_empty() && l.iter().flatten().all(side)),
            ),
            (
                "anchor_sizes",
                sizes.clone().all(|l| !l.is_empty() && l.iter().all(side)),
            ),
            (
                "aspect_ratios",
                ratios.clone().all(|l| !l.is_empty() && l.iter().all(side)),
            ),
            (
                "the thresholds",
                self.score.iter().chain(&self.overlap).all(share),
            ),
            (
                "the numbers of boxes",
                self.detections != Some(0) && !self.proposals.contains(&Some(0)),
            ),
        ];
        match good.iter().find(|(_, good)| !good) {
            Some((what, _)) => Err(wrong(graph, format!("{what} make no sense"))),
            None => Ok(()),
        }
    }

    fn suppress(&self, suppression: &mut Suppression) {
        let (overlap, post) = match *suppression {
            Suppression::Nms { overlap, .. } => (overlap, None),
            Suppression::Matrix { post, sigma, .. } => (OVERLAP, Some((post, sigma))),
        };
        let score = self.score.unwrap_or(suppression.score());
        let candidates = self.candidates.unwrap_or(suppression.candidates());
        let detections = self.detections.unwrap_or(suppression.detections());
        *suppression = if self.matrix.unwrap_or(post.is_some()) {
            let (post, sigma) = post.unwrap_or((POST, None));
            Suppression::Matrix {
                score,
                post,
                sigma,
                candidates,
                detections,
            }
        } else {
            Suppression::Nms {
                score,
                overlap: self.overlap.unwrap_or(overlap),
                candidates,
                detections,
            }
        };
    }
}

fn wrong(graph: &Graph, reason: String) -> GraphError {
    GraphError::Graph {
        graph: graph.name.clone(),
        reason,
    }
}

/// Gives the convolution that makes an output so many channels.
fn widen(graph: &mut Graph, output: &str, channels: usize) -> Result<(), GraphError> {
    let found = graph.outputs.iter().find(|o| o.name == output);
    let node: NodeId = found
        .ok_or_else(|| wrong(graph, format!("it has no output `{output}`")))?
        .node;
    match &mut graph.nodes[node].op {
        Op::Conv2d { out_channels, .. } => *out_channels = channels,
        _ => {
            return Err(wrong(
                graph,
                format!("`{output}` is made by no convolution"),
            ));
        }
    }
    Ok(())
}
