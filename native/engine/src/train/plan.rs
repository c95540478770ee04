//! What a training will do, decided before its first step.

use std::path::Path;
use std::sync::Arc;

use oarlock_datasets::ImageCache;
use oarlock_graph::{Graph, WeightMap};
use oarlock_jobs::{CommonParams, ErrorCode, TrainParams, TrainSpec};
use oarlock_zoo::Origin;

use super::classifier::Classifier;
use super::detector::Detector;
use super::family::{Family, Supply};
use super::optimizer::Rule;
use super::schedule::Schedule;
use super::segmenter::Segmenter;
use crate::runtime::{Placement, memory};
use crate::{EngineError, Result};

/// A checked training.
#[derive(Debug)]
pub struct Plan {
    /// Parameters as they are used (batch size reduced).
    pub params: TrainParams,
    /// Network, data, loss and validation.
    pub family: Box<dyn Family>,
    /// Optimizer.
    pub rule: Rule,
    /// Steps of one epoch.
    pub steps: u32,
    /// Learning rate.
    pub schedule: Schedule,
    /// What the loaders of this training share.
    pub supply: Supply,
    /// What was changed, for the user.
    pub notes: Vec<String>,
}

/// One damaged file in ten is a matter for a warning, more for the user.
const MAX_CORRUPT: f64 = 0.1;

impl Plan {
    /// Reads the lists and settles the parameters.
    ///
    /// # Errors
    /// `InvalidArgument` naming the parameter, or what the family says of its data.
    pub fn new(spec: &TrainSpec, placement: Placement) -> Result<Self> {
        let mut params = spec.params.clone();
        let mut notes = Vec::new();
        check(&params)?;
        let family: Box<dyn Family> = match &params {
            TrainParams::Classification(p) => {
                Box::new(Classifier::new(p, &spec.dataset, &mut notes)?)
            }
            TrainParams::Segmentation(p) => Box::new(Segmenter::new(p, &spec.dataset, &mut notes)?),
            TrainParams::Detection(p) => {
                Box::new(Detector::new(p, false, &spec.dataset, &mut notes)?)
            }
            TrainParams::InstanceSegmentation(p) => {
                Box::new(Detector::new(p, true, &spec.dataset, &mut notes)?)
            }
        };
        let images = u32::try_from(family.images()).unwrap_or(u32::MAX);
        if params.batch_size > images {
            notes.push(format!(
                "batch_size was reduced from {} to {images}, the number of training images",
                params.batch_size
            ));
            params.batch_size = images;
        }
        let steps = images / params.batch_size;
        let rule = Rule::from_name(&params.optimizer)?;
        let schedule = Schedule::new(&params, u64::from(steps));
        // A quarter of what is free now: the network's own memory is still to come.
        let cache = memory::available().map(|free| Arc::new(ImageCache::new((free / 4) as usize)));
        let supply = Supply {
            batch_size: params.batch_size,
            seed: params.seed,
            cache,
            max_corrupt_fraction: MAX_CORRUPT,
            placement,
        };
        Ok(Self {
            params,
            family,
            rule,
            steps,
            schedule,
            supply,
            notes,
        })
    }

    /// Decay of the average of the weights; 0 = none.
    pub fn ema_decay(&self) -> f64 {
        match &self.params {
            TrainParams::Detection(p) | TrainParams::InstanceSegmentation(p) => p.ema_decay,
            TrainParams::Classification(_) | TrainParams::Segmentation(_) => 0.0,
        }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.family.labels().len()
    }

    /// The network with fresh or given weights; tells in `notes` what became of the given ones.
    ///
    /// # Errors
    /// An unknown model; weights that cannot be read or have nothing in common with it.
    pub fn start_weights(&mut self, weights: Option<&str>) -> Result<(Graph, WeightMap)> {
        let paddle = weights.is_some_and(is_paddle);
        let origin = if paddle {
            Origin::Paddle
        } else {
            Origin::Torch
        };
        let (graph, paddle_names) = self.family.network(origin)?;
        let mut initial = oarlock_graph::init_weights(&graph, self.params.seed);
        let Some(path) = weights else {
            return Ok((graph, initial));
        };
        let stored = oarlock_weights::load(Path::new(path))
            .map_err(|e| EngineError::from(oarlock_jobs::JobError::from(e)))?;
        let of_backbone = self.family.backbone_names(origin)?;
        let rename = |name: &str| {
            let whole = match origin {
                Origin::Paddle => paddle_names
                    .iter()
                    .find(|p| p.paddle_name == name)
                    .map(|p| p.name.clone()),
                Origin::Torch => oarlock_zoo::rename_torch(name),
            };
            whole.or_else(|| of_backbone.get(name).cloned())
        };
        let fitted = oarlock_weights::fit(&graph, stored, Some(&rename));
        if fitted.report.matched == 0 {
            return Err(EngineError::new(
                ErrorCode::InvalidData,
                format!(
                    "the weights `{path}` have nothing in common with {}",
                    self.params.model
                ),
            )
            .hint("choose weights of the same model"));
        }
        self.notes.extend(fitted.report.notes());
        for (name, mut tensor) in fitted.weights {
            if let Some(p) = paddle_names
                .iter()
                .find(|p| paddle && p.name == name && p.scale != 1.0)
            {
                tensor.data.iter_mut().for_each(|v| *v *= p.scale);
            }
            initial.insert(name, tensor);
        }
        Ok((graph, initial))
    }
}

/// Whether a weights path holds Paddle's parameters.
fn is_paddle(path: &str) -> bool {
    let path = Path::new(path);
    path.extension().is_some_and(|x| x == "pdparams")
        || (path.is_dir()
            && !path.join("model.safetensors").exists()
            && path.join("model.pdparams").exists())
}

/// `InvalidArgument` about a parameter.
pub(super) fn wrong(field: &str, what: &str) -> EngineError {
    EngineError::new(ErrorCode::InvalidArgument, format!("{field} {what}")).with("field", field)
}

fn check(p: &CommonParams) -> Result<()> {
    let positive = |value: u32, field: &str| {
        if value == 0 {
            Err(wrong(field, "must be at least 1"))
        } else {
            Ok(())
        }
    };
    positive(p.batch_size, "batch_size")?;
    positive(p.num_epochs, "num_epochs")?;
    positive(p.save_interval_epochs, "save_interval_epochs")?;
    if p.image_shape.iter().any(|&s| !(8..=4096).contains(&s)) {
        return Err(wrong("image_shape", "must lie between 8 and 4096"));
    }
    for (value, field) in [
        (p.learning_rate, "learning_rate"),
        (p.warmup_start_lr, "warmup_start_lr"),
        (p.weight_decay, "weight_decay"),
    ] {
        if !value.is_finite() || value < 0.0 {
            return Err(wrong(field, "must be a number of at least 0"));
        }
    }
    Ok(())
}

/// Mean and deviation of the channels must be usable.
pub(super) fn check_normalisation(mean: &[f32], std: &[f32]) -> Result<()> {
    if std.iter().any(|s| !s.is_finite() || *s <= 0.0) || mean.iter().any(|m| !m.is_finite()) {
        return Err(wrong(
            "image_std",
            "and image_mean must be numbers, the deviation above 0",
        ));
    }
    Ok(())
}
