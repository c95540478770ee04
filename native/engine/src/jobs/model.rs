//! A checkpoint as a model: opened for export, or placed on a device and kept warm for predictions.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oarlock_graph::{Graph, WeightMap};
use oarlock_jobs::{ErrorCode, JobError, ModelSource, TaskType};
use oarlock_zoo::Origin;

use crate::exec::Network;
use crate::records::{ModelYml, Resize, head_settings};
use crate::runtime::Placement;
use crate::train::checkpoint;
use crate::{EngineError, Result};

/// Networks kept between jobs; two, so that comparing two tasks stays warm.
const WARM: usize = 2;

/// A checkpoint in memory.
#[derive(Debug)]
pub(crate) struct Model {
    /// The network.
    pub graph: Graph,
    /// Its weights.
    pub weights: WeightMap,
    /// What it is.
    pub yml: ModelYml,
}

/// Opens a checkpoint folder: one of ours (checked against its manifest), or one that PaddleX wrote
/// (`model.yml` and `model.pdparams`), whose network is rebuilt from its name.
///
/// # Errors
/// `NotFound` when there is no such folder; `InvalidData` when it is damaged or its weights are not
/// those of its network; `Unsupported` when it is none of ours.
pub(crate) fn open(source: &ModelSource) -> Result<Model> {
    let dir = Path::new(&source.checkpoint);
    checkpoint::verify(dir)?;
    let yml = describe(dir)?;
    let (graph, weights) = if dir.join(checkpoint::GRAPH).exists() {
        checkpoint::load_model(dir)?
    } else {
        rebuild(dir, &yml)?
    };
    Ok(Model {
        graph,
        weights,
        yml,
    })
}

/// Reads `model.yml` of a checkpoint.
///
/// # Errors
/// `NotFound` when there is none, `InvalidData` or `Unsupported` when it describes none of ours.
pub(super) fn describe(dir: &Path) -> Result<ModelYml> {
    let yml = ModelYml::read(&dir.join(checkpoint::MODEL_YML))?;
    let fits = match yml.preprocessing.resize {
        Resize::ShortCrop { .. } => yml.model_type == "classifier",
        Resize::Exact { .. } => yml.model_type == "segmenter",
        Resize::Cubic { .. } | Resize::Capped { .. } => yml.model_type == "detector",
    };
    if !fits {
        let what = format!(
            "a {} cannot be used, only classifiers, detectors and segmenters can",
            yml.model_type
        );
        return Err(EngineError::new(ErrorCode::Unsupported, what));
    }
    if yml.labels.is_empty() {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            "the checkpoint names no classes",
        ));
    }
    let p = &yml.preprocessing;
    let [height, width] = p.size();
    let short = match p.resize {
        Resize::ShortCrop { short, .. } | Resize::Capped { short, .. } => short,
        Resize::Exact { .. } | Resize::Cubic { .. } => height,
    };
    let sides = [height, width, short];
    let channels = p.mean.len();
    if sides.iter().any(|s| !(1..=8192).contains(s))
        || p.std.iter().any(|s| *s <= 0.0)
        || channels == 0
        || channels != p.std.len()
        || !(p.range.is_empty() || p.range.len() == channels)
    {
        let what = format!("the checkpoint's transforms make no sense: {p:?}");
        return Err(EngineError::new(ErrorCode::InvalidData, what));
    }
    Ok(yml)
}

/// Checks that a model is of the task's type.
///
/// # Errors
/// `InvalidData` when it is of another.
pub(super) fn of_type(yml: &ModelYml, task_type: TaskType) -> Result<()> {
    let wanted = match task_type {
        TaskType::Classification => "classifier",
        TaskType::Segmentation => "segmenter",
        TaskType::Detection | TaskType::InstanceSegmentation => "detector",
    };
    if yml.model_type != wanted {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            format!("the checkpoint is a {}, not a {wanted}", yml.model_type),
        ));
    }
    let masks = yml.model.eq_ignore_ascii_case(oarlock_zoo::MASK_DETECTOR);
    if wanted == "detector" && masks != (task_type == TaskType::InstanceSegmentation) {
        let what = format!(
            "the checkpoint is a {}, which is of another task",
            yml.model
        );
        return Err(EngineError::new(ErrorCode::InvalidData, what));
    }
    Ok(())
}

/// The network that `yml` names, with the weights of a PaddleX checkpoint.
fn rebuild(dir: &Path, yml: &ModelYml) -> Result<(Graph, WeightMap)> {
    let classes = yml.labels.len();
    let (graph, names) = match yml.preprocessing.resize {
        Resize::ShortCrop { .. } => oarlock_zoo::classifier_of(&yml.model, classes, Origin::Paddle),
        Resize::Exact { .. } => oarlock_zoo::segmenter_of(
            &yml.model,
            yml.backbone.as_deref(),
            classes,
            yml.preprocessing.mean.len(),
            Origin::Paddle,
        ),
        Resize::Cubic { .. } | Resize::Capped { .. } => oarlock_zoo::detector_of(
            &yml.model,
            yml.backbone.as_deref(),
            yml.init_params
                .get("with_fpn")
                .and_then(serde_json::Value::as_bool)
                != Some(false),
            classes,
            Origin::Paddle,
        ),
    }
    .map_err(|e| EngineError::new(ErrorCode::Unsupported, e.to_string()))?;
    let graph = match graph.head {
        None => graph,
        Some(_) => head_settings(&yml.init_params)?
            .apply(&graph)
            .map_err(|e| EngineError::new(ErrorCode::InvalidData, e.to_string()))?,
    };
    let stored = oarlock_weights::load(dir).map_err(JobError::from)?;
    let rename = |stored: &str| {
        names
            .iter()
            .find(|p| p.paddle_name == stored)
            .map(|p| p.name.clone())
    };
    let mut fitted = oarlock_weights::fit(&graph, stored, Some(&rename));
    if fitted.report.matched < fitted.report.total {
        let notes = fitted.report.notes().join("; ");
        let what = format!(
            "the weights in '{}' are not those of {}",
            dir.display(),
            yml.model
        );
        return Err(EngineError::new(ErrorCode::InvalidData, what).with("report", notes));
    }
    for p in names.iter().filter(|p| p.scale != 1.0) {
        if let Some(tensor) = fitted.weights.get_mut(&p.name) {
            tensor.data.iter_mut().for_each(|v| *v *= p.scale);
        }
    }
    Ok((graph, fitted.weights))
}

/// An inference network on a device, with what is needed to use it.
#[derive(Debug)]
pub(super) struct Ready {
    network: Mutex<Network>,
    /// What it is.
    pub yml: ModelYml,
}

impl Ready {
    /// The network; jobs with the same model take turns.
    pub fn network(&self) -> MutexGuard<'_, Network> {
        // A forward pass leaves nothing half-changed behind.
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What makes two uses of a checkpoint the same. A folder that training replaces has other files.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    dir: PathBuf,
    files: Vec<(u64, u64, i64, i64)>,
    placement: Placement,
}

impl Key {
    fn of(dir: &Path, placement: Placement) -> Result<Self> {
        let dir = dir.canonicalize().map_err(|e| {
            let what = format!("there is no checkpoint `{}`: {e}", dir.display());
            EngineError::new(ErrorCode::NotFound, what)
        })?;
        let names = [checkpoint::WEIGHTS, "model.pdparams", checkpoint::MODEL_YML];
        let files = names
            .iter()
            .filter_map(|name| fs::metadata(dir.join(name)).ok())
            .map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec()))
            .collect();
        Ok(Self {
            dir,
            files,
            placement,
        })
    }
}

/// Most recently used last.
static CACHE: Mutex<Vec<(Key, Arc<Ready>)>> = Mutex::new(Vec::new());

/// The inference network of a checkpoint, batch norms folded; kept for the next job.
///
/// # Errors
/// As [`open`]; out of memory.
pub(super) fn ready(source: &ModelSource, placement: Placement) -> Result<Arc<Ready>> {
    let key = Key::of(Path::new(&source.checkpoint), placement)?;
    let cache = || CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    {
        let mut cache = cache();
        if let Some(at) = cache.iter().position(|(k, _)| *k == key) {
            let hit = cache.remove(at);
            let ready = hit.1.clone();
            cache.push(hit);
            return Ok(ready);
        }
        // An older state of the same checkpoint is of no more use.
        cache.retain(|(k, _)| k.dir != key.dir || k.placement != key.placement);
        while cache.len() >= WARM {
            cache.remove(0);
        }
    }
    let model = open(source)?;
    let network = Network::for_inference(&model.graph, &model.weights, placement)?;
    let ready = Arc::new(Ready {
        network: Mutex::new(network),
        yml: model.yml,
    });
    cache().push((key, ready.clone()));
    Ok(ready)
}
