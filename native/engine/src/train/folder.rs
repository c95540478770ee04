//! The `output` folder of a task: which checkpoints there are, and writing them.

use std::fs;
use std::path::{Path, PathBuf};

use oarlock_jobs::{ErrorCode, Metrics};

use super::checkpoint::{self, Content, Loaded};
use super::family::Validation;
use super::learner::Learner;
use super::plan::Plan;
use super::state::TrainState;
use crate::records::{Details, ModelYml};
use crate::{EngineError, Result};

/// Mid-epoch states that are kept: should the newest be damaged, there is another.
const KEPT_STATES: usize = 2;

/// `output` of a task.
#[derive(Debug, Clone)]
pub struct OutputFolder {
    output: PathBuf,
}

impl OutputFolder {
    /// The folder of the task in `task_dir`; made if it is not there, and tidied after a crash.
    ///
    /// # Errors
    /// I/O failures.
    pub fn open(task_dir: &Path) -> Result<Self> {
        let output = task_dir.join("output");
        fs::create_dir_all(&output)?;
        checkpoint::recover(&output)?;
        let folder = Self { output };
        if folder.resume().exists() {
            checkpoint::recover(&folder.resume())?;
        }
        Ok(folder)
    }

    /// Curves for TensorBoard.
    pub fn curves(&self) -> PathBuf {
        self.output.join("vdl_log")
    }

    fn resume(&self) -> PathBuf {
        self.output.join("resume")
    }

    fn epoch(&self, epoch: u32) -> PathBuf {
        self.output.join(format!("epoch_{epoch}"))
    }

    /// Removes what an earlier training left.
    ///
    /// # Errors
    /// I/O failures.
    pub fn clear(&self) -> Result<()> {
        for (dir, _) in self.checkpoints()? {
            fs::remove_dir_all(dir)?;
        }
        for name in ["best_model", "vdl_log", "resume"] {
            remove(&self.output.join(name))?;
        }
        Ok(())
    }

    /// Removes mid-epoch states.
    ///
    /// # Errors
    /// I/O failures.
    pub fn clear_resume(&self) -> Result<()> {
        remove(&self.resume())
    }

    /// Saved epochs and mid-epoch states with the states of their trainings, newest first. Unreadable ones come
    /// last, without a state.
    fn checkpoints(&self) -> Result<Vec<(PathBuf, Option<TrainState>)>> {
        let mut found = Vec::new();
        for (folder, prefix) in [(self.output.clone(), "epoch_"), (self.resume(), "step_")] {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e.into()),
            };
            for entry in entries {
                let path = entry?.path();
                let named = path
                    .file_name()
                    .and_then(|n| n.to_str()?.strip_prefix(prefix))
                    .is_some_and(|n| n.parse::<u64>().is_ok());
                if named && path.is_dir() {
                    let state = checkpoint::read_state(&path).ok();
                    found.push((path, state));
                }
            }
        }
        found.sort_by_key(|(path, state)| {
            std::cmp::Reverse((state.as_ref().map(|s| (s.run, s.global_step)), path.clone()))
        });
        Ok(found)
    }

    /// Number for a start that is no continuation of any run in this folder.
    ///
    /// # Errors
    /// I/O failures.
    pub fn next_run(&self) -> Result<u64> {
        let newest = self
            .checkpoints()?
            .into_iter()
            .filter_map(|(_, s)| s)
            .map(|s| s.run)
            .max();
        Ok(newest.unwrap_or(0) + 1)
    }

    /// The newest whole checkpoint; damaged ones are passed over and told in `warnings`.
    ///
    /// # Errors
    /// I/O failures.
    pub fn load_latest(&self, warnings: &mut Vec<String>) -> Result<Option<Loaded>> {
        for (path, _) in self.checkpoints()? {
            match checkpoint::load(&path) {
                Ok(loaded) => return Ok(Some(loaded)),
                Err(error) => warnings.push(format!("{error}; an older checkpoint is used")),
            }
        }
        Ok(None)
    }

    /// The checkpoint of an epoch.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidData` when it is damaged.
    pub fn load_epoch(&self, epoch: u32) -> Result<Loaded> {
        let dir = self.epoch(epoch);
        if !dir.exists() {
            return Err(EngineError::new(
                ErrorCode::NotFound,
                format!("epoch {epoch} was never saved"),
            )
            .with("path", dir.display().to_string()));
        }
        checkpoint::load(&dir)
    }

    /// Saves an evaluated epoch, and `best_model` if it is the best.
    ///
    /// # Errors
    /// I/O failures, a full disk.
    pub fn save_epoch(
        &self,
        learner: &Learner,
        state: &TrainState,
        plan: &Plan,
        validation: &Validation,
        best: bool,
    ) -> Result<PathBuf> {
        let dir = self.epoch(state.epoch);
        self.save(
            &dir,
            learner,
            state,
            plan,
            &validation.metrics,
            Some(&validation.details),
        )?;
        if best {
            checkpoint::duplicate(&dir, &self.output.join("best_model"))?;
        }
        // The epoch is newer than all of them.
        self.clear_resume()?;
        Ok(dir)
    }

    /// Saves where a training stands.
    ///
    /// # Errors
    /// I/O failures, a full disk.
    pub fn save_resume(&self, learner: &Learner, state: &TrainState, plan: &Plan) -> Result<()> {
        let dir = self.resume().join(format!("step_{:08}", state.global_step));
        let metrics = state
            .best
            .as_ref()
            .map(|b| b.metrics.clone())
            .unwrap_or_default();
        self.save(&dir, learner, state, plan, &metrics, None)?;
        let mut kept = 0;
        for (path, _) in self.checkpoints()? {
            if path.starts_with(self.resume()) {
                kept += 1;
                if kept > KEPT_STATES {
                    fs::remove_dir_all(path)?;
                }
            }
        }
        Ok(())
    }

    fn save(
        &self,
        dir: &Path,
        learner: &Learner,
        state: &TrainState,
        plan: &Plan,
        metrics: &Metrics,
        eval: Option<&Details>,
    ) -> Result<()> {
        let network = &learner.network;
        checkpoint::save(
            dir,
            &Content {
                graph: network.graph(),
                weights: &learner.weights()?,
                optimizer: &learner.optimizer.to_state(network)?,
                state,
                yml: &description(network.graph(), state, plan, metrics),
                eval,
            },
        )
    }
}

fn description(
    graph: &oarlock_graph::Graph,
    state: &TrainState,
    plan: &Plan,
    metrics: &Metrics,
) -> ModelYml {
    ModelYml {
        model: plan.family.model(graph),
        backbone: plan.family.backbone(),
        model_type: plan.family.model_type().to_owned(),
        labels: plan.family.labels().to_vec(),
        eval_metrics: metrics.clone(),
        best_accuracy: state.best.as_ref().map(super::state::Best::value),
        best_model_epoch: state.best.as_ref().map(|b| b.epoch),
        completed_epochs: state.epoch,
        fixed_input_shape: None,
        preprocessing: plan.family.preprocessing(),
        status: "Normal".to_owned(),
        init_params: plan.family.init_params(graph),
        extra: pruning(state),
    }
}

/// FLOPs (multiply-accumulates) and parameters before and after pruning.
fn pruning(state: &TrainState) -> indexmap::IndexMap<String, serde_json::Value> {
    let entry = state.pruned.as_ref().map(|p| {
        let value = serde_json::json!({
            "macs": { "before": p.macs_before, "after": p.macs_after },
            "parameters": { "before": p.parameters_before, "after": p.parameters_after },
        });
        ("Pruning".to_owned(), value)
    });
    entry.into_iter().collect()
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}
