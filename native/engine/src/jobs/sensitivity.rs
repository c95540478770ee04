//! The sensitivity job: how much of each layer can go at what loss.

use std::fs;
use std::path::{Path, PathBuf};

use oarlock_datasets::{Sample, SegmentSample};
use oarlock_files as files;
use oarlock_graph::{Criterion, Sensitivities, channel_groups, tolerance_curve};
use oarlock_jobs::{
    DeviceSpec, ErrorCode, JobEvent, Precision, SensitivityResult, SensitivitySpec, TaskType,
};

use super::model::{self, Model};
use crate::prune::analysis::{Progress, Watcher, analyse, memory_budget};
use crate::prune::classifier::{self, ClassifierSet};
use crate::prune::detector::{self, DetectorSet};
use crate::prune::evaluation::Evaluation;
use crate::prune::images::{self, Opening, Reading};
use crate::prune::segmenter::{self, SegmenterSet};
use crate::prune::subject::Subject;
use crate::prune::table::{self, Fingerprint, Table};
use crate::prune::{brute, chart, criterion};
use crate::records::OutLog;
use crate::runtime::heartbeat::Heart;
use crate::runtime::{self, Placement};
use crate::train::data::{self, DataSplit};
use crate::train::detector::data::{self as boxes, BoxData};
use crate::{EngineError, JobContext, Result};

/// Runs the job. A stop ends it with what is measured so far; a later run in the same folder goes on from there, also
/// after a crash.
///
/// # Errors
/// `Unsupported` for two-stage detectors and networks without prunable layers; what opening the checkpoint and reading the
/// dataset says; `InvalidData` when they do not belong together; memory or disk run out. The reason stands in `err.log`.
pub fn run(spec: &SensitivitySpec, context: JobContext) -> Result<SensitivityResult> {
    let out = Path::new(&spec.out_dir);
    let opened = fs::create_dir_all(out).and_then(|()| OutLog::open(out, true));
    let log = opened.map_err(|e| EngineError::from(e).with("path", spec.out_dir.clone()))?;
    let mut job = Job {
        spec,
        context,
        log,
        path: out.join(table::FILE_NAME),
    };
    let result = Heart::default().beat_during(context.sink, |heart| job.run(heart));
    result.map_err(|error| {
        let hint = error.0.hint.as_ref();
        let hint = hint.map(|h| format!(" ({h})")).unwrap_or_default();
        // The error itself is returned; a log that cannot take it must not hide it.
        let _ = job.log.error(&format!(
            "Sensitivity analysis stop with error! {error}{hint}"
        ));
        error
    })
}

struct Job<'a> {
    spec: &'a SensitivitySpec,
    context: JobContext<'a>,
    log: OutLog,
    path: PathBuf,
}

impl Job<'_> {
    fn run(&mut self, heart: &Heart) -> Result<SensitivityResult> {
        heart.stage("loading");
        let placement = runtime::place(&exact(&self.spec.device))?;
        let model = model::open(&self.spec.source)?;
        model::of_type(&model.yml, self.spec.task_type)?;
        if detects(self.spec.task_type) {
            detector::one_stage(model.graph.head.as_ref())?;
        }
        self.context.sink.emit(JobEvent::Started {
            device: placement.device_name(),
            precision: placement.precision_name().to_owned(),
            notes: Vec::new(),
        });
        let criterion = criterion(self.spec.task_type);
        let subject = Subject::new(&model.graph, &model.weights, criterion, placement)?;
        let tick = || {
            heart.tick();
            self.context.cancel.check()
        };
        let samples = Samples::read(self.spec)?;
        let mut table = Table::new(
            &model.graph.name,
            samples.metric(),
            criterion,
            samples.fingerprint(&model, self.spec, criterion)?,
            subject.groups(),
        );
        self.resume(&mut table)?;
        let evaluation = validation(&model, samples, self.spec, placement, Reading::Once, &tick);
        let mut evaluation = match evaluation {
            Err(error) if error.code() == ErrorCode::Cancelled => {
                return self.finish(&model, &table);
            }
            other => other?,
        };
        for skipped in evaluation.set().skipped() {
            let message = format!("{skipped} was left out");
            self.context.warn(&message);
            self.log.warning(&message)?;
        }
        heart.stage("analysing");
        let (context, path) = (self.context, self.path.clone());
        let mut watcher = Reporter {
            context,
            heart,
            log: &mut self.log,
        };
        let budget = memory_budget(placement);
        let done = analyse(
            &subject,
            &mut *evaluation,
            &mut table,
            &path,
            budget,
            &mut watcher,
        );
        match done {
            Err(error) if error.code() == ErrorCode::Cancelled => {}
            other => other?,
        }
        self.finish(&model, &table)
    }

    /// Takes over what an earlier run measured of the very same.
    fn resume(&mut self, table: &mut Table) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        match Table::read(&self.path) {
            Ok(old) if old.fingerprint == table.fingerprint && old.metric == table.metric => {
                let done = old.sensitivities.len();
                self.log.info(&format!(
                    "{done} of {} layers were measured before and are kept.",
                    old.groups
                ))?;
                *table = old;
            }
            Ok(_) => self.log.info(
                "The model or the validation images changed since the last analysis: all layers are measured anew.",
            )?,
            Err(error) => self.log.warning(&format!("{error}; all layers are measured anew"))?,
        }
        Ok(())
    }

    /// The result, and the picture of a complete table.
    fn finish(&mut self, model: &Model, table: &Table) -> Result<SensitivityResult> {
        let mut result = SensitivityResult {
            stopped: !table.complete(),
            path: self.path.display().to_string(),
            metric: table.metric.clone(),
            base: table.base,
            layers: u32::try_from(table.sensitivities.len()).unwrap_or(u32::MAX),
            curve: Vec::new(),
        };
        if result.stopped {
            self.log.info(&format!(
                "The analysis was stopped after {} of {} layers; it can be continued.",
                result.layers, table.groups
            ))?;
            return Ok(result);
        }
        if table.base <= 0.0 {
            let message = format!(
                "{} of the unpruned model is 0 on the validation images: no layer can lose anything, all losses are 0",
                table.metric
            );
            self.context.warn(&message);
            self.log.warning(&message)?;
        }
        let groups =
            channel_groups(&model.graph).map_err(|e| EngineError::internal(e.to_string()))?;
        result.curve = tolerance_curve(&model.graph, &groups, &table.sensitivities)
            .map_err(|e| EngineError::internal(e.to_string()))?;
        let picture = self.path.with_file_name(chart::FILE_NAME);
        files::write_bytes(&picture, &chart::picture(table)?)?;
        self.log
            .info(&format!("Sensitivities saved in {}.", self.path.display()))?;
        Ok(result)
    }
}

/// The same measurements without the analysis' shortcuts: base metric and losses, to compare with.
///
/// # Errors
/// As [`run`].
pub fn brute_force(spec: &SensitivitySpec) -> Result<(f64, Sensitivities)> {
    let placement = runtime::place(&exact(&spec.device))?;
    let model = model::open(&spec.source)?;
    let samples = Samples::read(spec)?;
    let reading = Reading::EachTime;
    let mut evaluation = validation(&model, samples, spec, placement, reading, &|| Ok(()))?;
    brute::brute_force(
        &model.graph,
        &model.weights,
        criterion(spec.task_type),
        placement,
        &mut *evaluation,
    )
}

/// Losses of a thousandth are measured: no 16-bit numbers.
fn exact(device: &DeviceSpec) -> DeviceSpec {
    DeviceSpec {
        precision: Precision::Fp32,
        ..device.clone()
    }
}

fn detects(task_type: TaskType) -> bool {
    matches!(
        task_type,
        TaskType::Detection | TaskType::InstanceSegmentation
    )
}

/// The images of a dataset, by what is known of them.
enum Samples {
    Classes(DataSplit<Sample>),
    Pixels(DataSplit<SegmentSample>),
    Boxes(BoxData),
}

impl Samples {
    fn read(spec: &SensitivitySpec) -> Result<Self> {
        Ok(match spec.task_type {
            TaskType::Segmentation => Self::Pixels(data::read_pairs(&spec.dataset)?),
            TaskType::Classification => Self::Classes(data::read(&spec.dataset)?),
            TaskType::Detection | TaskType::InstanceSegmentation => {
                Self::Boxes(boxes::read(&spec.dataset, false, &mut Vec::new())?)
            }
        })
    }

    /// What is measured.
    fn metric(&self) -> &'static str {
        match self {
            Self::Classes(_) => classifier::METRIC,
            Self::Pixels(_) => segmenter::METRIC,
            Self::Boxes(data) => detector::metric(data.measure),
        }
    }

    fn labels(&self) -> &[String] {
        match self {
            Self::Classes(data) => &data.labels,
            Self::Pixels(data) => &data.labels,
            Self::Boxes(data) => &data.split.labels,
        }
    }

    fn fingerprint(
        &self,
        model: &Model,
        spec: &SensitivitySpec,
        criterion: Criterion,
    ) -> Result<Fingerprint> {
        let root = Path::new(&spec.dataset.root);
        let (graph, weights, how) = (&model.graph, &model.weights, &model.yml.preprocessing);
        match self {
            Self::Classes(data) => {
                Fingerprint::new(graph, weights, &data.val, root, how, criterion)
            }
            Self::Pixels(data) => Fingerprint::new(graph, weights, &data.val, root, how, criterion),
            Self::Boxes(data) => {
                Fingerprint::new(graph, weights, &data.split.val, root, how, criterion)
            }
        }
    }
}

/// The validation images of `spec` for `model`.
fn validation(
    model: &Model,
    samples: Samples,
    spec: &SensitivitySpec,
    placement: Placement,
    reading: Reading,
    tick: &dyn Fn() -> Result<()>,
) -> Result<Box<dyn Evaluation>> {
    let labels = &model.yml.labels;
    if labels != samples.labels() {
        return Err(EngineError::new(
            ErrorCode::InvalidData,
            format!(
                "the model knows the classes {labels:?}, the dataset has {:?}",
                samples.labels()
            ),
        )
        .hint("choose the dataset that the model was trained on"));
    }
    let opening = Opening {
        batch_size: spec.batch_size as usize,
        preprocessing: &model.yml.preprocessing,
        placement,
        reading,
        budget: images::memory_budget(),
        tick,
    };
    Ok(match samples {
        Samples::Classes(data) => Box::new(ClassifierSet::open(data.val, labels.len(), &opening)?),
        Samples::Pixels(data) => Box::new(SegmenterSet::open(data.val, labels.len(), &opening)?),
        Samples::Boxes(data) => {
            let head = model.graph.head.as_ref();
            Box::new(DetectorSet::open(data, head, &opening)?)
        }
    })
}

struct Reporter<'a> {
    context: JobContext<'a>,
    heart: &'a Heart,
    log: &'a mut OutLog,
}

impl Watcher for Reporter<'_> {
    fn tick(&self) -> Result<()> {
        self.heart.tick();
        self.context.cancel.check()
    }

    fn progress(&mut self, progress: Progress) {
        // A log that cannot be written is no reason to lose an analysis.
        let _ = self
            .log
            .prune_progress(progress.done, progress.total, progress.eta);
        self.context.sink.emit(JobEvent::Progress {
            done: progress.done,
            total: progress.total,
            stage: "analysing".to_owned(),
            eta: progress.eta,
        });
    }
}
