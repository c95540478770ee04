//! What a job is told to do. Paths are absolute; the API process has checked them.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::TrainParams;

/// A unit of work for native code.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobSpec {
    /// Train a model (compute host).
    Train(Box<TrainSpec>),
    /// Report on stored validation predictions of a checkpoint (compute host).
    Evaluate(EvaluateSpec),
    /// Run a checkpoint on images and draw the results (compute host).
    Predict(PredictSpec),
    /// Write an inference model (compute host).
    Export(ExportSpec),
    /// Convert an exported model (compute host, without the engine).
    Lite(LiteSpec),
    /// Measure how much each layer can be pruned (compute host).
    Sensitivity(SensitivitySpec),
    /// Check and copy a dataset (light addon).
    Import(ImportSpec),
}

/// The four task families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum TaskType {
    /// One label per image.
    Classification,
    /// Boxes.
    Detection,
    /// One label per pixel.
    Segmentation,
    /// Boxes and masks.
    InstanceSegmentation,
}

/// On-disk dataset format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum DatasetFormat {
    /// A folder of pictures per class (`datasets.md` 2).
    ImageFolder,
    /// Pictures with label maps of the same size (`datasets.md` 4).
    SegmentationPairs,
    /// Pascal VOC: a picture and an XML file each.
    Voc,
    /// MSCOCO: one JSON file for all pictures.
    Coco,
}

/// An imported and split dataset.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct DatasetRef {
    /// Format of the folder.
    pub format: DatasetFormat,
    /// Absolute folder that holds `labels.txt`, `train_list.txt`, `val_list.txt`, maybe `test_list.txt`.
    pub root: String,
}

/// Where to run.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct DeviceSpec {
    /// CUDA ordinals; empty means CPU.
    pub cuda: Vec<u32>,
    /// Intra-operation threads; 0 = all cores.
    pub threads: u32,
    /// Number format of the compute.
    pub precision: Precision,
}

/// Number format of the compute; weights stay fp32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS, Default)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// bf16 where the processor or GPU is fast at it, else fp32.
    #[default]
    Auto,
    /// fp32 everywhere.
    Fp32,
    /// bf16 activations and gradients.
    Bf16,
}

/// Where a training begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Resume {
    /// Epoch 1, logs truncated.
    Fresh,
    /// `output/epoch_N`, logs appended.
    Epoch {
        /// The saved epoch.
        epoch: u32,
    },
    /// The newest state on disk, mid-epoch states included; a fresh start if there is none.
    Latest,
}

/// A training job.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct TrainSpec {
    /// Task id, for logs.
    pub task_id: String,
    /// `<ws>/projects/P…/T…`: gets `out.log`, `err.log`, `output/`.
    pub task_dir: String,
    /// Training and validation data.
    pub dataset: DatasetRef,
    /// Task family and its parameters.
    pub params: TrainParams,
    /// Start weights (safetensors, `.pth`, `.pdparams` or a checkpoint folder); ignored on resume.
    pub weights: Option<String>,
    /// Where to begin.
    pub resume: Resume,
    /// Prunes the network of `weights` before it is trained; ignored on resume.
    #[serde(default)]
    #[ts(optional)]
    pub prune: Option<PruneSpec>,
    /// Where to run.
    pub device: DeviceSpec,
}

/// Which weights of a task to use.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct ModelSource {
    /// Checkpoint folder: `output/best_model` or `output/epoch_N`.
    pub checkpoint: String,
    /// The epoch asked for; `None` = best.
    pub epoch: Option<u32>,
}

/// A report on a checkpoint's stored validation predictions (`eval_details.json`).
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct EvaluateSpec {
    /// Task family.
    pub task_type: TaskType,
    /// What to report on.
    pub source: ModelSource,
    /// k of top-k accuracy, before capping at the number of classes.
    pub topk: u32,
    /// Detectors: less sure boxes count in average precision alone, 0–1; absent: 0.5.
    #[serde(default)]
    #[ts(optional)]
    pub score_thresh: Option<f64>,
    /// Detectors: overlap from which a box or mask is right, 0–1; absent: 0.5 of boxes, 0.3 of masks.
    #[serde(default)]
    #[ts(optional)]
    pub overlap_thresh: Option<f64>,
}

/// An image to predict.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum PredictImage {
    /// A file; the picture goes to `<out_dir>/<output>`.
    File {
        /// Absolute path.
        path: String,
        /// File name of the picture, `.png`.
        output: String,
        /// Its annotation in the dataset (label map, VOC file, instances), drawn beside the prediction.
        #[serde(default)]
        #[ts(optional)]
        truth: Option<String>,
    },
}

/// A prediction job.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct PredictSpec {
    /// Task family.
    pub task_type: TaskType,
    /// Weights.
    pub source: ModelSource,
    /// Images in order.
    pub images: Vec<PredictImage>,
    /// Folder for the pictures; exists and is empty.
    pub out_dir: String,
    /// Boxes below are not drawn.
    pub score_threshold: f32,
    /// Where to run.
    pub device: DeviceSpec,
}

/// An export job.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct ExportSpec {
    /// Task family.
    pub task_type: TaskType,
    /// Weights.
    pub source: ModelSource,
    /// Folder that gets `inference_model/`.
    pub save_dir: String,
    /// 8-bit integers instead of fp32.
    #[serde(default)]
    #[ts(optional)]
    pub quant: Option<QuantSpec>,
    /// `<task>/logs/export`: gets `out.log`, `err.log`, and while the job runs what the measurement needs.
    /// Without it the export is neither logged nor measured.
    #[serde(default)]
    #[ts(optional)]
    pub log_dir: Option<String>,
    /// Its training set calibrates, its validation set measures before and after. Needed for `quant`; an
    /// fp32 export takes a few validation images from it.
    #[serde(default)]
    #[ts(optional)]
    pub dataset: Option<DatasetRef>,
    /// Intra-operation threads; 0 = all cores.
    #[serde(default)]
    #[ts(optional, as = "Option<u32>")]
    pub threads: u32,
}

/// Post-training quantization: int8 weights per channel, uint8 activations.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct QuantSpec {
    /// How ranges of activations are chosen.
    pub method: QuantMethod,
    /// Training images to calibrate with; fewer are used, and said, when the set is smaller.
    pub images: u32,
}

/// A conversion of an exported model to ONNX Runtime's own format, for phones and small machines.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct LiteSpec {
    /// Folder of an exported model: `model.onnx`, `model.yml`.
    pub model: String,
    /// Folder that gets `lite_model/`.
    pub save_dir: String,
    /// Intra-operation threads; 0 = all cores.
    pub threads: u32,
}

/// How ranges of activations are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS, Default)]
#[serde(rename_all = "snake_case")]
pub enum QuantMethod {
    /// Smallest and largest value.
    MinMax,
    /// All but the outermost values.
    #[default]
    Percentile,
    /// Least Kullback-Leibler divergence.
    Entropy,
}

/// What a pruned training removes before its first step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct PruneSpec {
    /// Sensitivities of the parent task, as its analysis wrote them.
    pub sensitivities: String,
    /// How much to remove.
    pub target: PruneTarget,
}

/// How much pruning removes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum PruneTarget {
    /// Every layer as far as a relative loss of the metric allows.
    Loss {
        /// At least 0.
        value: f64,
    },
    /// The tolerance whose ratios remove about this share of the multiply-accumulates.
    Flops {
        /// Between 0 and 1, both excluded.
        value: f64,
    },
}

/// A sensitivity analysis.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct SensitivitySpec {
    /// Task family.
    pub task_type: TaskType,
    /// The model that is analysed.
    pub source: ModelSource,
    /// Its validation set measures the loss.
    pub dataset: DatasetRef,
    /// `<task>/prune`: gets `out.log`, `err.log`, `sensitivities.json`, `sensitivities.png`. Layers that a
    /// table of the same model in there has are not measured again.
    pub out_dir: String,
    /// Images of one batch.
    pub batch_size: u32,
    /// Where to run.
    pub device: DeviceSpec,
}

/// A dataset import.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
pub struct ImportSpec {
    /// Task family, decides the format.
    pub task_type: TaskType,
    /// Source folder, absolute, symlinks resolved.
    pub source: String,
    /// Final dataset folder `<ws>/datasets/D…`; replaced as a whole.
    pub dest: String,
    /// Threads for checking; 0 = all cores but one.
    pub threads: u32,
    /// Segmentation only: pictures of any number of channels (`.npy`, TIFF) are allowed.
    #[serde(default)]
    #[ts(as = "Option<bool>", optional)]
    pub remote: bool,
    /// Annotations of another tool, to be converted; none = recognised by the folder's content.
    #[serde(default)]
    #[ts(optional)]
    pub format: Option<SourceFormat>,
}

/// What a source folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum SourceFormat {
    /// The format of the dataset's own type (`datasets.md` 2-5); nothing is converted.
    Native,
    /// One labelme JSON a picture.
    Labelme,
    /// One EasyData JSON a picture.
    Easydata,
    /// One JSON of Jingling's labelling tool a picture.
    Jingling,
    /// MSCOCO: one JSON for all pictures.
    Coco,
    /// YOLO: a text file of class ids and relative boxes or polygons a picture.
    Yolo,
}
