//! What differs between the task families in a training.
//!
//! A family knows its network, its data, its loss and its validation; [`super::session`] and everything else in a
//! training knows none of them. How to add one: implement [`Family`] and name it in [`super::plan::Plan::new`].

use std::collections::HashMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;
use oarlock_datasets::{DetectTarget, ImageCache, LoaderConfig, LoaderStats, Pipeline};
use oarlock_graph::Graph;
use oarlock_jobs::Metrics;
use oarlock_zoo::{Origin, PaddleWeight};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::learner::{Learned, StepResult};
use crate::exec::Network;
use crate::records::{Details, Preprocessing};
use crate::runtime::Placement;
use crate::runtime::heartbeat::Heart;
use crate::{CancelToken, Result};

/// What a training of one task family is made of.
pub trait Family: Debug {
    /// `classifier`, `segmenter` …: `model_type` in `model.yml`.
    fn model_type(&self) -> &'static str;

    /// Name of the network, `Model` in `model.yml`.
    fn model(&self, graph: &Graph) -> String {
        graph.name.clone()
    }

    /// Name of its backbone, where there is a choice.
    fn backbone(&self) -> Option<String> {
        None
    }

    /// What else the network was built with, by the names of PaddleX's constructors.
    fn init_params(&self, _: &Graph) -> IndexMap<String, Value> {
        IndexMap::new()
    }

    /// Class names in the order of their ids.
    fn labels(&self) -> &[String];

    /// Number of training images, repeated ones counted.
    fn images(&self) -> usize;

    /// Hash over the training list, to notice a new split on resume.
    fn fingerprint(&self) -> &str;

    /// The network, with the names that its parameters have in Paddle.
    ///
    /// # Errors
    /// An unknown model.
    fn network(&self, origin: Origin) -> Result<(Graph, Vec<PaddleWeight>)>;

    /// What parameters are called in a file of the network's backbone alone: stored name → name in the network.
    ///
    /// # Errors
    /// As [`Self::network`].
    fn backbone_names(&self, _: Origin) -> Result<HashMap<String, String>> {
        Ok(HashMap::new())
    }

    /// The training batches of one epoch.
    ///
    /// # Errors
    /// Data that cannot be read.
    fn feed(&self, part: EpochPart, supply: &Supply) -> Result<Box<dyn Feed>>;

    /// Forward pass in training on a batch, and its loss.
    ///
    /// # Errors
    /// Out of memory, device failures.
    fn learn(&self, network: &Network, batch: &Fed, seed: u64) -> Result<Learned>;

    /// What is logged of a step beside its loss; scalars on the device, not waited for.
    ///
    /// # Errors
    /// Device failures.
    fn metrics(&self, step: &StepResult, _targets: &[Tensor]) -> Result<Vec<(String, Tensor)>> {
        step.parts
            .iter()
            .map(|(name, value)| Ok((name.clone(), value.f_detach()?)))
            .collect()
    }

    /// Number format in which validation runs the network; that of the training, unless its scores are compared with
    /// those of other runtimes digit by digit.
    fn validation_kind(&self, training: Kind) -> Kind {
        training
    }

    /// Runs `network` (an inference network) on the validation images; `None` when a stop was asked for.
    ///
    /// # Errors
    /// `NonFinite` when the network gives NaN; unreadable data; out of memory.
    fn validate(
        &self,
        network: &Network,
        supply: &Supply,
        watch: Watch,
    ) -> Result<Option<Validation>>;

    /// How an image becomes the network's input.
    fn preprocessing(&self) -> Preprocessing;
}

/// Which batches of a training are wanted.
#[derive(Debug, Clone, Copy)]
pub struct EpochPart {
    /// Epoch, from 1.
    pub epoch: u32,
    /// Batches of it that are done.
    pub start_batch: u32,
}

/// What loaders of all epochs share.
#[derive(Debug, Clone)]
pub struct Supply {
    /// Images of a step.
    pub batch_size: u32,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Decoded images.
    pub cache: Option<Arc<ImageCache>>,
    /// Share of unreadable images that is skipped with a warning.
    pub max_corrupt_fraction: f64,
    /// Where batches go.
    pub placement: Placement,
}

impl Supply {
    /// A loader's configuration for a part of an epoch: as `config` says, shuffled, whole batches only, read further ahead.
    pub fn shuffled<P: Pipeline>(
        &self,
        part: EpochPart,
        config: LoaderConfig<P>,
    ) -> LoaderConfig<P> {
        LoaderConfig {
            shuffle_seed: Some(self.seed),
            epoch: u64::from(part.epoch),
            start_batch: part.start_batch as usize,
            drop_last: true,
            prefetch: 3,
            ..config
        }
    }
}

/// Batches in order.
pub trait Feed {
    /// The next one; `None` at the end of the epoch.
    ///
    /// # Errors
    /// Too many unreadable images; out of memory.
    fn next(&mut self) -> Result<Option<Fed>>;

    /// What was read and waited for so far.
    fn stats(&self) -> LoaderStats;

    /// What the log should say of the way the images were read.
    fn remark(&self) -> Option<String> {
        None
    }
}

/// A batch on the device.
#[derive(Debug)]
pub struct Fed {
    /// Number within the epoch, from 0.
    pub index: usize,
    /// Images in it.
    pub images: usize,
    /// Files that could not be read, with the reason.
    pub skipped: Vec<(PathBuf, String)>,
    /// Network input.
    pub input: Tensor,
    /// What the family's loss compares with.
    pub targets: Vec<Tensor>,
    /// The things in each image, for detectors; empty else.
    pub objects: Vec<DetectTarget>,
}

/// Who wants to know of the work, and may end it.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// A stop.
    pub cancel: &'a CancelToken,
    /// Sign of life.
    pub heart: &'a Heart,
}

/// Result of an evaluation.
#[derive(Debug)]
pub struct Validation {
    /// Primary metric first.
    pub metrics: Metrics,
    /// One value a class for each name, for the log.
    pub per_class: Vec<(&'static str, Vec<f64>)>,
    /// What reports are made from.
    pub details: Details,
    /// Images that could not be read.
    pub skipped: usize,
    /// What the log should say of the way it was done.
    pub remark: Option<String>,
}
