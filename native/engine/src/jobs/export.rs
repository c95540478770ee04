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
use crate::records::{ModelYml, Resize};
use crate::runtime::heartbeat::Heart;
use crate::{EngineError, JobContext, Result};

/// Name of the folder inside `save_dir`.
const FOLDER: &str = "inference_model";
/// Name of the model's input: N×channels×H×W, fp32, normalised.
const INPUT: &str = "image";
/// Output of a classifier: N×classes, fp32, softmax.
const PROBABILITIES: &str = "probabilities";
/// Output of a segmenter: N×H×W, int64, class ids.
const LABEL_MAP: &str = "label_map";
/// Output of a segmenter: N×classes×H×W, fp32, softmax over the classes.
const SCORE_MAP: &str = "score_map";

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
    let size = model.yml.preprocessing.size().map(|s| s as usize);
    let cost = cost(graph, size).map_err(invalid)?;
    let options = OnnxOptions {
        input_name: INPUT.to_owned(),
        image_size: Some(size),
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
    files::write_bytes(&dir.join("pipeline.yml"), pipeline(&model.yml)?.as_bytes())?;
    files::write_bytes(&dir.join(".success"), b"")?;
    Ok((cost.total.params, cost.total.macs))
}

/// The checkpoint's description with what a program needs to feed the model.
fn describe(yml: &ModelYml) -> ModelYml {
    let p = &yml.preprocessing;
    let [height, width] = p.size();
    let classes = yml.labels.len();
    let output = |name: &str, shape: Value, dtype: &str, values: &str| json!({ "name": name, "shape": shape, "dtype": dtype, "values": values });
    let outputs = match p.resize {
        Resize::ShortCrop { .. } => {
            json!([output(
                PROBABILITIES,
                json!(["batch", classes]),
                "float32",
                "softmax"
            )])
        }
        Resize::Exact { .. } => json!([
            output(
                LABEL_MAP,
                json!(["batch", height, width]),
                "int64",
                "class id, the argmax of score_map"
            ),
            output(
                SCORE_MAP,
                json!(["batch", classes, height, width]),
                "float32",
                "softmax over the classes"
            ),
        ]),
    };
    let values = if p.range.is_empty() {
        "(pixel / 255 - mean) / std"
    } else {
        "((clip(value, min_val, max_val) - min_val) / (max_val - min_val) - mean) / std"
    };
    let extra = [
        ("Format", json!("onnx")),
        (
            "Inputs",
            json!([{
                "name": INPUT,
                "shape": ["batch", p.mean.len(), height, width],
                "dtype": "float32",
                "layout": "NCHW",
                "channels": channels(yml),
                "values": values,
            }]),
        ),
        ("Outputs", outputs),
    ];
    ModelYml {
        status: "Infer".to_owned(),
        fixed_input_shape: Some([width, height]),
        extra: extra
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect::<IndexMap<_, _>>(),
        ..yml.clone()
    }
}

/// Order of the channels.
fn channels(yml: &ModelYml) -> &'static str {
    match yml.preprocessing.mean.len() {
        3 => "RGB",
        _ => "as stored",
    }
}

/// The same inside the ONNX file, for those who have only that.
fn metadata(yml: &ModelYml) -> Vec<(String, String)> {
    let p = &yml.preprocessing;
    let list = |v: &[f32]| {
        let texts: Vec<String> = v.iter().map(f32::to_string).collect();
        texts.join(",")
    };
    let mut pairs = vec![
        ("model", yml.model.clone()),
        ("labels", json!(yml.labels).to_string()),
    ];
    match p.resize {
        Resize::ShortCrop { short, crop } => pairs.extend([
            ("resize_short", short.to_string()),
            ("crop", crop.to_string()),
        ]),
        Resize::Exact { height, width } => pairs.push(("resize", format!("{height},{width}"))),
    }
    pairs.extend([
        ("channels", channels(yml).to_owned()),
        ("mean", list(&p.mean)),
        ("std", list(&p.std)),
    ]);
    if !p.range.is_empty() {
        let (min, max): (Vec<f32>, Vec<f32>) = p.range.iter().copied().unzip();
        pairs.extend([("min_val", list(&min)), ("max_val", list(&max))]);
    }
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

/// PaddleX's deployment pipeline: read, decode, predict, collect.
fn pipeline(yml: &ModelYml) -> Result<String> {
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
        "pipeline_name": yml.model_type,
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
