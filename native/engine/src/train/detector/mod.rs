//! Training of detectors: boxes, with masks or without.
//!
//! | file | does |
//! |---|---|
//! | [`data`] | the pictures and objects of a dataset |
//! | [`params`] | checks parameters, and what they mean for network inputs |
//! | [`feed`] | training batches |
//! | [`score`] | evaluation |

pub mod data;
mod feed;
pub mod params;
pub mod score;

use std::cell::OnceCell;
use std::collections::HashMap;

use indexmap::IndexMap;
use oarlock_datasets::{DetectFamily, DetectPipeline, DetectionParams as Inputs};
use oarlock_graph::{Graph, Head, Suppression};
use oarlock_jobs::{DatasetRef, DetectionParams, ErrorCode};
use oarlock_zoo::{Origin, PaddleWeight};
use serde_json::{Value, json};
use tch::Kind;

use super::family::{EpochPart, Family, Fed, Feed, Supply, Validation, Watch};
use super::learner::Learned;
use super::objective::{Objective, objective};
use crate::exec::Network;
use crate::records::Preprocessing;
use crate::{EngineError, Result};
use data::BoxData;

/// A checked training of a detector.
#[derive(Debug)]
pub struct Detector {
    params: DetectionParams,
    /// The network's listed name.
    model: &'static str,
    inputs: Inputs,
    data: BoxData,
    preprocessing: Preprocessing,
    /// Made from the network's head at the first step.
    objective: OnceCell<Box<dyn Objective>>,
}

impl Detector {
    /// Reads the dataset and checks the parameters; what is changed is told in `notes`. With `masks` the network also
    /// predicts masks.
    ///
    /// # Errors
    /// `InvalidArgument` naming the parameter; what [`data::read`] says.
    pub fn new(
        params: &DetectionParams,
        masks: bool,
        dataset: &DatasetRef,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let params = params.clone();
        let (model, family) = params::model(&params, masks)?;
        params::check(&params, family)?;
        let data = data::read(dataset, masks, notes)?;
        let inputs = params::inputs(&params, family, notes);
        Ok(Self {
            preprocessing: params::preprocessing(&params, family),
            params,
            model,
            inputs,
            data,
            objective: OnceCell::new(),
        })
    }

    fn two_stage(&self) -> bool {
        self.inputs.family == DetectFamily::Rcnn
    }

    fn objective(&self, network: &Network) -> Result<&dyn Objective> {
        if let Some(made) = self.objective.get() {
            return Ok(made.as_ref());
        }
        let head = network.graph().head.as_ref();
        let head = head.ok_or_else(|| EngineError::internal("the network is no detector"))?;
        let made = objective(self.model, head)?;
        Ok(self.objective.get_or_init(|| made).as_ref())
    }
}

impl Family for Detector {
    fn model_type(&self) -> &'static str {
        "detector"
    }

    fn model(&self, _: &Graph) -> String {
        self.model.to_owned()
    }

    fn backbone(&self) -> Option<String> {
        let known = oarlock_zoo::detector_backbones(self.model);
        let asked = self.params.backbone.as_deref().unwrap_or("").trim();
        let listed = known.iter().find(|b| b.eq_ignore_ascii_case(asked));
        listed.or(known.first()).map(|b| (*b).to_owned())
    }

    fn init_params(&self, graph: &Graph) -> IndexMap<String, Value> {
        let mut all = graph.head.as_ref().map_or_else(IndexMap::new, constructor);
        if self.two_stage() {
            all.insert("with_fpn".to_owned(), self.params.with_fpn.into());
        }
        all
    }

    fn labels(&self) -> &[String] {
        &self.data.split.labels
    }

    fn images(&self) -> usize {
        self.data.split.train.len()
    }

    fn fingerprint(&self) -> &str {
        &self.data.split.fingerprint
    }

    fn network(&self, origin: Origin) -> Result<(Graph, Vec<PaddleWeight>)> {
        oarlock_zoo::detector_of(
            self.model,
            self.params.backbone.as_deref(),
            self.params.with_fpn,
            self.data.split.labels.len(),
            origin,
        )
        .map_err(|e| EngineError::new(ErrorCode::InvalidArgument, e.to_string()))
    }

    fn backbone_names(&self, origin: Origin) -> Result<HashMap<String, String>> {
        oarlock_zoo::detector_backbone_names(
            self.model,
            self.params.backbone.as_deref(),
            self.params.with_fpn,
            origin,
        )
        .map_err(|e| EngineError::new(ErrorCode::InvalidArgument, e.to_string()))
    }

    fn feed(&self, part: EpochPart, supply: &Supply) -> Result<Box<dyn Feed>> {
        let (epoch, epochs) = (part.epoch, self.params.common.num_epochs);
        let pipeline = DetectPipeline::train(&self.inputs, epoch.into(), epochs.into());
        let samples = self.data.split.train.clone();
        let normalise = (self.params.image_mean, self.params.image_std);
        feed::open(pipeline, samples, normalise, part, supply)
    }

    fn learn(&self, network: &Network, batch: &Fed, seed: u64) -> Result<Learned> {
        let objective = self.objective(network)?;
        objective.learn(network, &batch.input, &batch.objects, seed)
    }

    /// Boxes move by pixels in 16 bits: scores are those of the exported network, and of predictions.
    fn validation_kind(&self, _: Kind) -> Kind {
        Kind::Float
    }

    fn validate(
        &self,
        network: &Network,
        supply: &Supply,
        watch: Watch,
    ) -> Result<Option<Validation>> {
        let set = score::BoxSet {
            samples: self.data.split.val.clone(),
            truth: &self.data.truth,
            measure: self.data.measure,
            masks: self.data.masks,
            pipeline: params::eval_pipeline(&self.preprocessing)?,
            preprocessing: &self.preprocessing,
        };
        score::validate(network, &set, supply, watch)
    }

    fn preprocessing(&self) -> Preprocessing {
        self.preprocessing.clone()
    }
}

/// What PaddleX's constructors call the numbers of a head.
fn constructor(head: &Head) -> IndexMap<String, Value> {
    let mut all = Vec::new();
    let two_stage = matches!(head, Head::TwoStage(_));
    match *head.suppression() {
        Suppression::Nms {
            score,
            overlap,
            candidates,
            detections,
        } if !two_stage => all.extend([
            ("nms_score_threshold", json!(score)),
            ("nms_iou_threshold", json!(overlap)),
            ("nms_topk", candidates.map_or(json!(-1), |c| json!(c))),
            ("nms_keep_topk", json!(detections)),
        ]),
        Suppression::Nms {
            score,
            overlap,
            detections,
            ..
        } => all.extend([
            ("score_threshold", json!(score)),
            ("nms_threshold", json!(overlap)),
            ("keep_top_k", json!(detections)),
        ]),
        Suppression::Matrix {
            score,
            candidates,
            detections,
            ..
        } => all.extend([
            ("use_matrix_nms", json!(true)),
            ("nms_score_threshold", json!(score)),
            ("nms_topk", candidates.map_or(json!(-1), |c| json!(c))),
            ("nms_keep_topk", json!(detections)),
        ]),
    }
    match head {
        Head::Yolo(yolo) => {
            // PaddleX lists anchors from the finest level on, and for each level their places in that list.
            let fine = yolo.levels.iter().rev();
            let anchors: Vec<[f32; 2]> = fine.flat_map(|l| l.anchors.iter().copied()).collect();
            let mut end = anchors.len();
            let mask = |level: &oarlock_graph::YoloLevel| {
                let start = end - level.anchors.len();
                let places: Vec<usize> = (start..end).collect();
                end = start;
                places
            };
            let masks: Vec<Vec<usize>> = yolo.levels.iter().map(mask).collect();
            all.push(("anchors", json!(anchors)));
            all.push(("anchor_masks", json!(masks)));
        }
        Head::TwoStage(rcnn) => {
            let sizes: Vec<&Vec<f32>> = rcnn.levels.iter().map(|l| &l.sizes).collect();
            let ratios = rcnn.levels.first().map(|l| &l.ratios);
            all.push(("anchor_sizes", json!(sizes)));
            all.push(("aspect_ratios", json!(ratios)));
        }
        Head::Pico(_) => {}
    }
    let own = |(name, value): (&str, Value)| (name.to_owned(), value);
    all.into_iter().map(own).collect()
}
