//! The export job: a folder with the ONNX model and all that is needed to run it elsewhere.
//!
//! | file | does |
//! |---|---|
//! | [`folder`] | writes the folder, whole or not at all |
//! | [`quant`] | calibrates and quantizes |
//! | [`images`] | pictures of the dataset as the network's input |
//! | [`probe`] | a few images with the engine's scores, for the comparison with another runtime |
//! | [`stages`] | progress, to the server and in `out.log` |

mod folder;
mod images;
mod probe;
mod quant;
mod stages;

use std::fs;
use std::path::{Path, PathBuf};

use oarlock_files as files;
use oarlock_graph::{Graph, Head, WeightMap, cost, fold_batch_norm};
use oarlock_jobs::{DeviceSpec, ErrorCode, ExportResult, ExportSpec, MeasureSpec, Precision};

use super::model::{self, Model};
use crate::records::Preprocessing;
use crate::runtime::Placement;
use crate::runtime::heartbeat::Heart;
use crate::{EngineError, JobContext, Result, runtime};
use folder::Contents;
use images::Images;
use quant::Calibrated;
use stages::Stages;

/// Name of the folder inside `save_dir`.
const FOLDER: &str = "inference_model";
/// In the log folder, while the job runs: the network before it was quantized.
const FP32: &str = "fp32.onnx";
/// In the log folder, while the job runs: what is in the pictures that a detector is measured on.
const TRUTH: &str = "truth.json";
/// k of top-k accuracy beside top-1, as in training.
const TOP_K: usize = 5;

/// Runs the job.
///
/// # Errors
/// What opening the checkpoint says; a folder that cannot be written; `NotReady` or `InvalidData` when images are
/// to calibrate and there are none of the model's classes; `Cancelled`. An older export in
/// the same place stays as it was until the new one is complete.
pub fn run(spec: &ExportSpec, context: JobContext) -> Result<ExportResult> {
    Heart::default().beat_during(context.sink, |heart| {
        heart.stage("exporting");
        let log_dir = spec.log_dir.as_deref().map(Path::new);
        let mut stages = Stages::begin(log_dir, context, heart)
            .map_err(|e| e.with("path", spec.log_dir.clone().unwrap_or_default()))?;
        let result = export(spec, &mut stages);
        if let Err(error) = &result {
            stages.failed(error);
            // Best effort: the error that matters is already in hand.
            for name in [FP32, TRUTH, probe::FILE] {
                let _ = log_dir.map(|dir| fs::remove_file(dir.join(name)));
            }
        }
        result
    })
}

fn export(spec: &ExportSpec, stages: &mut Stages) -> Result<ExportResult> {
    stages.exporting(0)?;
    let placement = runtime::place(&DeviceSpec {
        cuda: Vec::new(),
        threads: spec.threads,
        precision: Precision::Fp32,
    })?;
    let model = model::open(&spec.source)?;
    model::of_type(&model.yml, spec.task_type)?;
    stages.exporting(1)?;
    let (graph, weights) = fold_batch_norm(&model.graph, &model.weights).map_err(invalid)?;
    let size = model.yml.preprocessing.size().map(|s| s as usize);
    let cost = cost(&graph, size).map_err(invalid)?;
    let data = images(spec, &model)?;
    let network = Folded {
        graph: &graph,
        weights: &weights,
        how: &model.yml.preprocessing,
        placement,
        threads: spec.threads as usize,
    };
    let calibrated = match &spec.quant {
        None => None,
        Some(quant) => {
            let data = data.as_ref().ok_or_else(|| {
                EngineError::new(ErrorCode::NotReady, "quantization needs training images")
                    .hint("bind a dataset to the project and split it")
            })?;
            Some(quant::calibrate(&network, quant, data, stages)?)
        }
    };
    let measure = match &spec.log_dir {
        None => None,
        Some(dir) => Some(prepare_measure(
            spec,
            &model,
            &network,
            data.as_ref(),
            Path::new(dir),
        )?),
    };
    stages.exporting(2)?;
    let path = write(spec, &model, &network, calibrated.as_ref(), stages)?;
    stages.exported(&path)?;
    Ok(ExportResult {
        path: path.display().to_string(),
        parameters: cost.total.params,
        macs: cost.total.macs,
        calibrated: calibrated.as_ref().map(|c| c.images),
        notes: calibrated.map(|c| c.notes).unwrap_or_default(),
        measure,
        measured: None,
    })
}

/// The inference network and where it runs.
struct Folded<'a> {
    graph: &'a Graph,
    weights: &'a WeightMap,
    /// How pictures become its input.
    how: &'a Preprocessing,
    placement: Placement,
    /// Of decoding and counting; 0 = all cores.
    threads: usize,
}

fn invalid(error: oarlock_graph::GraphError) -> EngineError {
    EngineError::new(
        ErrorCode::InvalidData,
        format!("the model cannot be exported: {error}"),
    )
}

/// Side of the masks, where the network predicts them.
fn mask_side(graph: &Graph) -> Option<usize> {
    match &graph.head {
        Some(Head::TwoStage(head)) => head.mask_size,
        _ => None,
    }
}

/// The dataset's lists, if they are those of the model's classes. An fp32 export goes on without.
fn images(spec: &ExportSpec, model: &Model) -> Result<Option<Images>> {
    let Some(dataset) = &spec.dataset else {
        return Ok(None);
    };
    let masks = mask_side(&model.graph).is_some();
    let yml = &model.yml;
    let fits = Images::read(dataset, &yml.labels, &yml.preprocessing, masks);
    match (fits, &spec.quant) {
        (Ok(data), _) => Ok(Some(data)),
        (Err(error), Some(_)) => Err(error),
        (Err(_), None) => Ok(None),
    }
}

/// Writes what another runtime needs to be compared with the engine.
fn prepare_measure(
    spec: &ExportSpec,
    model: &Model,
    network: &Folded,
    data: Option<&Images>,
    dir: &Path,
) -> Result<MeasureSpec> {
    let how = network.how;
    let classes = model.yml.labels.len();
    let fp32 = match &spec.quant {
        None => None,
        Some(_) => {
            let path = dir.join(FP32);
            folder::write_onnx(&path, network, &model.yml, None)?;
            Some(path.display().to_string())
        }
    };
    let measured_set = spec.dataset.as_ref().filter(|_| spec.quant.is_some());
    let truth = match images::truth_set(data).filter(|_| measured_set.is_some()) {
        None => None,
        Some(set) => {
            let path = dir.join(TRUTH);
            let text = serde_json::to_vec(&set)
                .map_err(|e| EngineError::internal(format!("{TRUTH}: {e}")))?;
            files::write_bytes(&path, &text)?;
            Some(path.display().to_string())
        }
    };
    Ok(MeasureSpec {
        model: Path::new(&spec.save_dir)
            .join(FOLDER)
            .join(folder::MODEL)
            .display()
            .to_string(),
        fp32,
        dataset: measured_set.map(|d| d.root.clone()),
        size: how.size(),
        mean: how.mean.clone(),
        std: how.std.clone(),
        classes: u32::try_from(classes).unwrap_or(u32::MAX),
        task: images::measure_task(data, how, TOP_K.min(classes) as u32, truth),
        probe: probe::write(network, data, dir)?,
        threads: spec.threads,
    })
}

/// Fills a hidden folder and moves it into its place.
fn write(
    spec: &ExportSpec,
    model: &Model,
    network: &Folded,
    calibrated: Option<&Calibrated>,
    stages: &Stages,
) -> Result<PathBuf> {
    let target = Path::new(&spec.save_dir).join(FOLDER);
    let temp = files::temp_folder(&target)
        .map_err(|e| EngineError::from(e).with("path", spec.save_dir.clone()))?;
    let contents = Contents {
        yml: &model.yml,
        network,
        quant: spec.quant.as_ref().zip(calibrated),
    };
    let result = folder::fill(&temp, &contents).and_then(|()| {
        stages.check()?;
        folder::replace(&temp, &target)
    });
    if result.is_err() {
        // Best effort: the error that matters is already in hand.
        let _ = fs::remove_dir_all(&temp);
    }
    result.map_err(|e| e.with("path", target.display().to_string()))?;
    Ok(target)
}
