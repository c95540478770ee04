//! What a finished job returns.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use ts_rs::TS;

use crate::{JobError, Metrics};

/// How a job ended; every native job returns this as one JSON text, never an exception.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum JobOutcome {
    /// Training ended, completely or by a stop.
    Train(TrainResult),
    /// Evaluation report ready.
    Evaluate(EvaluateResult),
    /// Pictures drawn.
    Predict(PredictResult),
    /// Model exported.
    Export(Box<ExportResult>),
    /// Model converted.
    Lite(LiteResult),
    /// Sensitivities measured, completely or until a stop.
    Sensitivity(SensitivityResult),
    /// Dataset checked and copied.
    Import(ImportResult),
    /// The job failed.
    Failed(JobError),
}

/// End of a training.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct TrainResult {
    /// True when it was stopped before its last epoch.
    pub stopped: bool,
    /// Epochs done completely.
    pub completed_epochs: u32,
    /// Epoch of the best model, if one was saved.
    pub best_epoch: Option<u32>,
    /// Metrics of the best model.
    pub best_metrics: Metrics,
}

/// What pruning did to a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct PruneSummary {
    /// Multiply-accumulates of one image before.
    #[ts(type = "number")]
    pub macs_before: u64,
    /// And after.
    #[ts(type = "number")]
    pub macs_after: u64,
    /// Parameters before.
    #[ts(type = "number")]
    pub parameters_before: u64,
    /// And after.
    #[ts(type = "number")]
    pub parameters_after: u64,
    /// Relative metric loss that each layer was allowed.
    pub tolerance: f64,
    /// Share of channels removed, by group of layers.
    #[ts(type = "Record<string, number>")]
    pub ratios: indexmap::IndexMap<String, f64>,
}

/// End of a sensitivity analysis.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct SensitivityResult {
    /// True when it was stopped before its last layer; the layers done are kept.
    pub stopped: bool,
    /// Absolute `sensitivities.json`.
    pub path: String,
    /// Name of the metric.
    pub metric: String,
    /// The metric of the unpruned model.
    pub base: f64,
    /// Layers measured.
    pub layers: u32,
    /// (share of the parameters removed, allowed loss) for losses 0.05, 0.10 … 0.95; empty after a stop.
    pub curve: Vec<(f64, f64)>,
}

/// The evaluation report, in the shape of the wire contract (`/project/task/evaluate`).
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct EvaluateResult {
    /// Contract object: `label_list`, `epoch`, `Confusion_Matrix` …
    #[ts(type = "Record<string, unknown>")]
    pub report: Value,
}

/// One predicted image.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct PredictItem {
    /// Source file as given, or `image_data`.
    pub source: String,
    /// Picture written, absolute; absent when the image could not be read.
    pub picture: Option<String>,
    /// Machine-readable result (classification: list of `{category, category_id, score}`).
    #[ts(type = "unknown")]
    pub result: Value,
    /// Why this image failed.
    pub error: Option<String>,
}

/// End of a prediction.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct PredictResult {
    /// One entry an image, in order.
    pub items: Vec<PredictItem>,
}

/// End of an export.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct ExportResult {
    /// Absolute folder `<save_dir>/inference_model`.
    pub path: String,
    /// Parameters of the exported network.
    #[ts(type = "number")]
    pub parameters: u64,
    /// Multiply-accumulates for one input of the exported shape.
    #[ts(type = "number")]
    pub macs: u64,
    /// Images that calibrated, when it is quantized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub calibrated: Option<u32>,
    /// What the user should know, one sentence each.
    #[serde(default)]
    #[ts(optional, as = "Option<Vec<String>>")]
    pub notes: Vec<String>,
    /// What the compute host is to measure; it puts `measured` in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub measure: Option<MeasureSpec>,
    /// What another runtime measured; absent when it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub measured: Option<Measured>,
}

/// A measurement of an exported model, by another runtime than the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct MeasureSpec {
    /// The exported ONNX file.
    pub model: String,
    /// Of a quantized export the same network in fp32; removed afterwards.
    pub fp32: Option<String>,
    /// Folder of the dataset whose validation images measure the accuracy; absent: no accuracy.
    pub dataset: Option<String>,
    /// Height and width of the network's input, in pixels.
    pub size: [u32; 2],
    /// Mean of each channel, of values brought to 0–1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, of values brought to 0–1.
    pub std: Vec<f32>,
    /// Number of classes.
    pub classes: u32,
    /// How pictures become that input, and what is measured on them.
    pub task: MeasureTask,
    /// What the engine computes for a few images.
    pub probe: Probe,
    /// Intra-operation threads; 0 = all cores.
    pub threads: u32,
}

/// How pictures become the input of an exported network, and what is measured on them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MeasureTask {
    /// A classifier's accuracy, on the centre square of an 8-bit RGB picture.
    Classes {
        /// The short side of a picture is resized to this before the square is cut out, in pixels.
        resize_short: u32,
        /// k of top-k accuracy beside top-1, at most the number of classes.
        topk: u32,
    },
    /// A segmenter's mean IoU at the label maps' own sizes, on whole pictures resized.
    Pixels {
        /// Kind of the stored values; absent for 8-bit RGB.
        raster: Option<SampleKind>,
        /// What values of each channel are cut to and become 0 and 1; none: 0 and 255.
        range: Vec<(f32, f32)>,
    },
    /// A detector's average precision in the pictures' own pixels, on 8-bit RGB pictures one by one: each resized, then
    /// padded with zeros, right and below, to the size of the input.
    Boxes {
        /// The short side of a picture and the most its long one may have, in pixels, while it fits into the input; absent:
        /// it is resized to the input's size.
        resize: Option<[u32; 2]>,
        /// COCO's average precision over overlaps; else VOC's at one half.
        coco: bool,
        /// Whether the network predicts masks.
        masks: bool,
        /// The pictures with what is in them (a `TruthSet` of the datasets); removed afterwards. Absent: no accuracy.
        truth: Option<String>,
    },
}

/// Kind of a raster's stored values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum SampleKind {
    /// 8 bits.
    Uint8,
    /// 16 bits.
    Uint16,
    /// 32-bit floats.
    Float32,
}

/// Images and the engine's fp32 scores for them: a file of little-endian fp32 values, first the network's input
/// (images×channels×height×width), then the probabilities (images×classes, of a segmenter images×classes×height×width; of
/// a detector for each image height and width of the picture, those of its image in the input, the number of
/// detections and their scores, the surest first). Removed after the measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct Probe {
    /// Absolute file.
    pub path: String,
    /// Number of images.
    pub images: u32,
}

/// What ONNX Runtime measured of an export.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct Measured {
    /// `onnxruntime` and its version.
    pub runtime: String,
    /// Threads of the latency.
    pub threads: u32,
    /// Validation images of the metrics; 0 without.
    pub images: u32,
    /// The exported model.
    pub model: ModelMeasure,
    /// Of a quantized export the same network in fp32.
    pub fp32: Option<ModelMeasure>,
    /// Largest difference of a probability in fp32 between the engine and the runtime; of detectors between scores of the
    /// same rank, where one that is missing counts with what it is above 0.05.
    pub difference: f64,
}

/// Figures of one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct ModelMeasure {
    /// `acc1` and `acc{k}`, `miou`, or the average precisions on the validation images; empty when not measured.
    pub metrics: Metrics,
    /// Size of the file.
    #[ts(type = "number")]
    pub bytes: u64,
    /// Median milliseconds for one image.
    pub latency_ms: f64,
}

/// End of a conversion.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct LiteResult {
    /// Absolute folder `<save_dir>/lite_model`.
    pub path: String,
    /// `ort`: ONNX Runtime's own format; `onnx`: optimized ONNX, where the runtime could not write its own.
    pub format: String,
    /// Why the format is not `ort`.
    pub note: Option<String>,
    /// `onnxruntime` and its version.
    pub runtime: String,
    /// Largest difference of a probability to the model that was converted.
    pub difference: f64,
    /// Size of the file.
    #[ts(type = "number")]
    pub bytes: u64,
    /// Median milliseconds for one image.
    pub latency_ms: f64,
}

/// End of a dataset import.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct ImportResult {
    /// The `details` object of the wire contract, as written to `statis.json`. An addon passes on only its
    /// `labels`, and the number of files in place of `train_files`, `val_files` and `test_files`.
    #[ts(type = "Record<string, unknown>")]
    pub details: Value,
    /// Whether the source came with split lists.
    pub split: bool,
    /// Files placed into the dataset folder.
    #[ts(type = "number")]
    pub files: u64,
    /// Remarks that do not fail the import (ignored files …).
    pub warnings: Vec<String>,
}
