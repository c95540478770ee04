//! What an export is doing: events for the server, lines of `logs/export/out.log`, and the flag that stops it.

use std::fmt;
use std::fs;
use std::path::Path;

use oarlock_jobs::{ErrorCode, JobEvent};

use crate::records::OutLog;
use crate::runtime::heartbeat::Heart;
use crate::{EngineError, JobContext, Result};

/// Parts of a quantization, in their order. Names are those of the wire contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Activations of calibration images.
    Batch,
    /// Weights of layers.
    Weight,
    /// Ranges of activations.
    Activation,
}

/// Reports of one export.
pub(super) struct Stages<'a> {
    log: Option<OutLog>,
    context: JobContext<'a>,
    heart: &'a Heart,
}

impl<'a> Stages<'a> {
    /// Opens the logs in `log_dir`, which is created; without it only events are sent.
    pub fn begin(
        log_dir: Option<&Path>,
        context: JobContext<'a>,
        heart: &'a Heart,
    ) -> Result<Self> {
        let open = |dir: &Path| {
            fs::create_dir_all(dir)?;
            OutLog::open(dir, false)
        };
        Ok(Self {
            log: log_dir.map(open).transpose()?,
            context,
            heart,
        })
    }

    /// An error when a stop was asked for.
    pub fn check(&self) -> Result<()> {
        self.context.cancel.check()
    }

    /// `done` of the three steps of every export.
    pub fn exporting(&mut self, done: u64) -> Result<()> {
        self.emit("exporting", done, 3);
        self.check()
    }

    /// One unit of a quantization's stage; `more` follows in the log.
    pub fn done(
        &mut self,
        stage: Stage,
        done: usize,
        total: usize,
        more: fmt::Arguments,
    ) -> Result<()> {
        let (name, what) = match stage {
            Stage::Batch => ("Batch", "[Run batch data] Batch="),
            Stage::Weight => ("Weight", "[Calculate weight] Weight_id="),
            Stage::Activation => ("Activation", "[Calculate activation] Activation_id="),
        };
        self.emit(name, done as u64, total as u64);
        self.info(&format!("{what}{done}/{total}, {more}"))?;
        self.check()
    }

    /// The quantization is whole.
    pub fn quantized(&mut self) -> Result<()> {
        self.emit("Finish", 1, 1);
        self.info("Finish quant!")
    }

    /// The folder is in its place.
    pub fn exported(&mut self, path: &Path) -> Result<()> {
        self.info(&format!("Model saved in {}.", path.display()))
    }

    /// Something to know that ends nothing.
    pub fn note(&mut self, message: &str) -> Result<()> {
        if let Some(log) = &mut self.log {
            log.warning(message)?;
        }
        Ok(())
    }

    /// The last line of an export that failed.
    pub fn failed(&mut self, error: &EngineError) {
        if let Some(log) = &mut self.log {
            // Best effort: the error that matters is already in hand.
            let _ = if error.code() == ErrorCode::Cancelled {
                log.info("The export was stopped.")
            } else {
                log.error(&error.to_string())
            };
        }
    }

    fn info(&mut self, message: &str) -> Result<()> {
        if let Some(log) = &mut self.log {
            log.info(message)?;
        }
        Ok(())
    }

    fn emit(&self, stage: &str, done: u64, total: u64) {
        self.heart.tick();
        self.context.sink.emit(JobEvent::Progress {
            done,
            total,
            stage: stage.to_owned(),
            eta: None,
        });
    }
}
