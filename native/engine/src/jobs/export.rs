//! The export job: a folder with the ONNX model and all that is needed to run it elsewhere.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use indexmap::IndexMap;
use oarlock_files as files;
use oarlock_graph::onnx::OnnxOptions;
use oarlock_graph::{Graph, WeightMap, cost, fold_batch_norm, onnx};
use oarlock_jobs::{ErrorCode, ExportResult, ExportSpec, JobEvent, TaskType};
use serde_json::{Value, json};

use super::model::{self, Model};
use crate::records::ModelYml;
use crate::runtime::heartbeat::Heart;
use crate::{EngineError, JobContext, Result};

/// Name of the folder inside `save_dir`.
const FOLDER: &str = "inference_model";
/// Name of the model's input: N×3×H×W, fp32, RGB, normalised.
const INPUT: &str = "image";
/// Name of its output: N×classes, fp32, softmax.
const OUTPUT: &str = "probabilities";

/// Runs the job.
///
/// # Errors
/// What opening the checkpoint says; a folder that cannot be written; `Cancelled`. An older export in
/// the same place stays as it was until the new one is complete.
pub fn run(spec: &ExportSpec, context: JobContext) -> Result<ExportResult> {
    if spec.task_type != TaskType::Classification {
        return Err(EngineError::new(
            ErrorCode::Unsupported,
            "export of this task type is not available yet",
        ));
    }
    if spec.quant.is_some() {
        return Err(EngineError::new(
            ErrorCode::Unsupported,
            "quantization is not available yet",
        ));
    }
    Heart::default().beat_during(context.sink, |heart| {
        heart.stage("exporting");
        let progress = |done: u64| {
            let stage = "exporting".to_owned();
            context.sink.emit(JobEvent::Progress {
                done,
                total: 3,
                stage,
                eta: None,
            });
        };
        progress(0);
        let model = model::open(&spec.source)?;
        context.cancel.check()?;
        progress(1);
        let folded = fold_batch_norm(&model.graph, &model.weights).map_err(invalid)?;
        let target = Path::new(&spec.save_dir).join(FOLDER);
        let temp = files::temp_folder(&target)
            .map_err(|e| EngineError::from(e).with("path", spec.save_dir.clone()))?;
        let result = fill(&temp, &model, &folded).and_then(|result| {
            progress(2);
            context.cancel.check()?;
            replace(&temp, &target)?;
            Ok(result)
        });
        if result.is_err() {
            // Best effort: the error that matters is already in hand.
            let _ = fs::remove_dir_all(&temp);
        }
        let (parameters, macs) =
            result.map_err(|e| e.with("path", target.display().to_string()))?;
        progress(3);
        Ok(ExportResult {
            path: target.display().to_string(),
            parameters,
            macs,
        })
    })
}

fn invalid(error: oarlock_graph::GraphError) -> EngineError {
    EngineError::new(
        ErrorCode::InvalidData,
        format!("the model cannot be exported: {error}"),
    )
}

/// Writes everything; returns parameters and multiply–accumulates.
fn fill(dir: &Path, model: &Model, (graph, weights): &(Graph, WeightMap)) -> Result<(u64, u64)> {
    let p = &model.yml.preprocessing;
    let side = p.crop as usize;
    let cost = cost(graph, [side, side]).map_err(invalid)?;
    let options = OnnxOptions {
        input_name: INPUT.to_owned(),
        image_size: Some([side, side]),
        batch: None,
        softmax: true,
        metadata: metadata(&model.yml),
    };
    let mut failure = None;
    files::write(&dir.join("model.onnx"), |file| -> io::Result<()> {
        onnx::write(graph, weights, &options, file).map_err(|e| {
            let text = e.to_string();
            failure = Some(invalid(e));
            io::Error::other(text)
        })
    })
    .map_err(|e| failure.take().unwrap_or_else(|| e.into()))?;
    files::write_bytes(
        &dir.join("model.yml"),
        describe(&model.yml).to_yaml()?.as_bytes(),
    )?;
    files::write(&dir.join("labels.txt"), |file| -> io::Result<()> {
        model
            .yml
            .labels
            .iter()
            .try_for_each(|label| writeln!(file, "{label}"))
    })?;
    files::write_bytes(&dir.join("pipeline.yml"), pipeline()?.as_bytes())?;
    files::write_bytes(&dir.join(".success"), b"")?;
    Ok((cost.total.params, cost.total.macs))
}

/// The checkpoint's description with what a program needs to feed the model.
fn describe(yml: &ModelYml) -> ModelYml {
    let side = yml.preprocessing.crop;
    let classes = yml.labels.len();
    let extra = [
        ("Format", json!("onnx")),
        (
            "Inputs",
            json!([{
                "name": INPUT,
                "shape": ["batch", 3, side, side],
                "dtype": "float32",
                "layout": "NCHW",
                "channels": "RGB",
                "values": "(pixel / 255 - mean) / std",
            }]),
        ),
        (
            "Outputs",
            json!([{ "name": OUTPUT, "shape": ["batch", classes], "dtype": "float32", "values": "softmax" }]),
        ),
    ];
    ModelYml {
        status: "Infer".to_owned(),
        fixed_input_shape: Some([side, side]),
        extra: extra
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect::<IndexMap<_, _>>(),
        ..yml.clone()
    }
}

/// The same inside the ONNX file, for those who have only that.
fn metadata(yml: &ModelYml) -> Vec<(String, String)> {
    let p = &yml.preprocessing;
    let list = |v: [f32; 3]| v.map(|x| x.to_string()).join(",");
    [
        ("model", yml.model.clone()),
        ("labels", json!(yml.labels).to_string()),
        ("resize_short", p.resize_short.to_string()),
        ("crop", p.crop.to_string()),
        ("channels", "RGB".to_owned()),
        ("mean", list(p.mean)),
        ("std", list(p.std)),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect()
}

/// PaddleX's deployment pipeline: read, decode, predict, collect.
fn pipeline() -> Result<String> {
    let node = |kind: &str, next: Option<&str>, init: Value| {
        let mut node = json!({ "type": kind });
        if let Some(map) = node.as_object_mut() {
            if !init.is_null() {
                map.insert("init_params".into(), init);
            }
            map.extend(next.map(|n| ("next".to_owned(), json!(n))));
        }
        node
    };
    let predict = json!({ "model_dir": ".", "use_gpu": true, "gpu_id": 0 });
    let text = serde_yaml_ng::to_string(&json!({
        "pipeline_name": "classifier",
        "pipeline_nodes": [
            { "src0": node("Source", Some("decode0"), Value::Null) },
            { "decode0": node("Decode", Some("predict0"), Value::Null) },
            { "predict0": node("Predict", Some("sink0"), predict) },
            { "sink0": node("Sink", None, Value::Null) },
        ],
        "version": "1.0.0",
    }));
    text.map_err(|e| EngineError::internal(format!("pipeline.yml: {e}")))
}

/// Moves the complete folder `temp` to `target`; what was there is removed afterwards.
fn replace(temp: &Path, target: &Path) -> Result<()> {
    if target.is_dir() && !looks_exported(target)? {
        return Err(EngineError::new(
            ErrorCode::InvalidArgument,
            format!(
                "'{}' holds other files; choose another folder",
                target.display()
            ),
        ));
    }
    Ok(files::replace_folder(temp, target)?)
}

/// Whether a folder is empty or an export (ours or PaddleX's), and thus may be replaced.
fn looks_exported(dir: &Path) -> Result<bool> {
    Ok(dir.join("model.yml").exists() || fs::read_dir(dir)?.next().is_none())
}
