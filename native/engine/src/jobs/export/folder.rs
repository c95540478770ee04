//! The exported folder.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use indexmap::IndexMap;
use oarlock_files as files;
use oarlock_graph::onnx::{self, OnnxOptions};
use oarlock_jobs::{ErrorCode, QuantSpec};
use serde_json::{Value, json};

use super::quant::Calibrated;
use super::{Folded, invalid, mask_side};
use crate::records::{ModelYml, Resize};
use crate::{EngineError, Result};

/// Name of the model's file.
pub(super) const MODEL: &str = "model.onnx";
/// Name of the model's input: N×channels×H×W, fp32, normalised.
const INPUT: &str = "image";
/// Output of a classifier: N×classes, fp32, softmax.
const PROBABILITIES: &str = "probabilities";
/// Output of a segmenter: N×H×W, int64, class ids.
const LABEL_MAP: &str = "label_map";
/// Output of a segmenter: N×classes×H×W, fp32, softmax over the classes.
const SCORE_MAP: &str = "score_map";

/// What an exported folder is made of.
pub(super) struct Contents<'a> {
    /// The checkpoint's description.
    pub yml: &'a ModelYml,
    /// The network.
    pub network: &'a Folded<'a>,
    /// How it is quantized, if it is.
    pub quant: Option<(&'a QuantSpec, &'a Calibrated)>,
}

/// Writes everything.
pub(super) fn fill(dir: &Path, contents: &Contents) -> Result<()> {
    let yml = contents.yml;
    write_onnx(
        &dir.join(MODEL),
        contents.network,
        yml,
        contents.quant.map(|(_, c)| c),
    )?;
    files::write_bytes(
        &dir.join("model.yml"),
        describe(yml, contents.quant, mask_side(contents.network.graph))
            .to_yaml()?
            .as_bytes(),
    )?;
    files::write(&dir.join("labels.txt"), |file| -> io::Result<()> {
        yml.labels
            .iter()
            .try_for_each(|label| writeln!(file, "{label}"))
    })?;
    files::write_bytes(&dir.join("pipeline.yml"), pipeline(yml)?.as_bytes())?;
    files::write_bytes(&dir.join(".success"), b"")?;
    Ok(())
}

/// Writes the network as it is, or with integers.
pub(super) fn write_onnx(
    path: &Path,
    network: &Folded,
    yml: &ModelYml,
    calibrated: Option<&Calibrated>,
) -> Result<()> {
    let size = yml.preprocessing.size().map(|s| s as usize);
    let options = OnnxOptions {
        input_name: INPUT.to_owned(),
        image_size: Some(size),
        batch: network.graph.head.as_ref().map(|_| 1),
        softmax: true,
        detections: network.graph.head.is_some(),
        metadata: metadata(yml),
    };
    let mut failure = None;
    files::write(path, |file| -> io::Result<()> {
        let (graph, weights) = (network.graph, network.weights);
        match calibrated {
            None => onnx::write(graph, weights, &options, file),
            Some(c) => onnx::write_quantized(graph, &c.weights, &c.quantization, &options, file),
        }
        .map_err(|e| {
            let text = e.to_string();
            failure = Some(invalid(e));
            io::Error::other(text)
        })
    })
    .map_err(|e| failure.take().unwrap_or_else(|| e.into()))
}

/// The checkpoint's description with what a program needs to feed the model.
fn describe(
    yml: &ModelYml,
    quant: Option<(&QuantSpec, &Calibrated)>,
    mask_side: Option<usize>,
) -> ModelYml {
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
        Resize::Cubic { .. } | Resize::Capped { .. } => {
            let mut outputs = vec![
                output(
                    onnx::detection::BOXES,
                    json!(["detections", 4]),
                    "float32",
                    "left, top, right, bottom in pixels of the stored picture",
                ),
                output(
                    onnx::detection::SCORES,
                    json!(["detections"]),
                    "float32",
                    "falling",
                ),
                output(
                    onnx::detection::LABELS,
                    json!(["detections"]),
                    "int64",
                    "class id",
                ),
            ];
            if let Some(side) = mask_side {
                outputs.push(output(
                    onnx::detection::MASKS,
                    json!(["detections", side, side]),
                    "float32",
                    "probabilities, spread evenly over the box",
                ));
            }
            json!(outputs)
        }
    };
    let values = if p.range.is_empty() {
        "(pixel / 255 - mean) / std"
    } else {
        "((clip(value, min_val, max_val) - min_val) / (max_val - min_val) - mean) / std"
    };
    let detects = matches!(p.resize, Resize::Cubic { .. } | Resize::Capped { .. });
    let batch = if detects { json!(1) } else { json!("batch") };
    let mut inputs = vec![json!({
        "name": INPUT,
        "shape": [batch, p.mean.len(), height, width],
        "dtype": "float32",
        "layout": "NCHW",
        "channels": channels(yml),
        "values": values,
    })];
    if detects {
        inputs.push(json!({
            "name": onnx::detection::SIZE,
            "shape": [4],
            "dtype": "float32",
            "values": "height and width of the stored picture, then of its image within the input, which lies at the \
                       top left; the rest is 0",
        }));
    }
    let mut extra = vec![
        ("Format", json!("onnx")),
        ("Inputs", json!(inputs)),
        ("Outputs", outputs),
    ];
    if let Some((spec, calibrated)) = quant {
        let what = json!({
            "method": spec.method,
            "calibration_images": calibrated.images,
            "weights": "int8, per channel, symmetric",
            "activations": "uint8",
        });
        extra.push(("Quantization", what));
    }
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
        Resize::Cubic { height, width } => pairs.extend([
            ("resize", format!("{height},{width}")),
            ("interpolation", "cubic".to_owned()),
        ]),
        Resize::Capped {
            short,
            long,
            multiple,
        } => pairs.extend([
            ("resize_short", short.to_string()),
            ("resize_long", long.to_string()),
            ("pad_multiple", multiple.to_string()),
        ]),
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
pub(super) fn replace(temp: &Path, target: &Path) -> Result<()> {
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
