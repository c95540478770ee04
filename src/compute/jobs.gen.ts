// Generated from native/jobs by `UPDATE_GENERATED=1 cargo test --release -p oarlock-jobs`. Do not edit.

export type Metrics = { [key in string]?: number | null };

export type ErrorCode = "invalid_argument" | "not_found" | "not_ready" | "unsupported" | "invalid_data" | "forbidden_path" | "resource_exhausted" | "non_finite" | "device_fault" | "cancelled" | "internal";

export type JobError = { 
/**
 * Stable reason.
 */
code: ErrorCode, 
/**
 * One human sentence naming what is wrong.
 */
message: string, 
/**
 * Names and numbers belonging to the message (field, path, state, bytes …).
 */
context: Record<string, unknown>, 
/**
 * Whether the same call can succeed later without a change.
 */
retryable: boolean, 
/**
 * What to do about it.
 */
hint: string | null, };

export type TaskType = "classification" | "detection" | "segmentation" | "instance_segmentation";

export type DatasetFormat = "image_folder" | "segmentation_pairs" | "voc" | "coco";

export type DatasetRef = { 
/**
 * Format of the folder.
 */
format: DatasetFormat, 
/**
 * Absolute folder that holds `labels.txt`, `train_list.txt`, `val_list.txt`, maybe `test_list.txt`.
 */
root: string, };

export type Precision = "auto" | "fp32" | "bf16";

export type DeviceSpec = { 
/**
 * CUDA ordinals; empty means CPU.
 */
cuda: Array<number>, 
/**
 * Intra-operation threads; 0 = all cores.
 */
threads: number, 
/**
 * Number format of the compute.
 */
precision: Precision, };

export type Resume = { "from": "fresh" } | { "from": "epoch", 
/**
 * The saved epoch.
 */
epoch: number, } | { "from": "latest" };

export type LrPolicy = "Piecewise" | "Linear" | "Cosine" | "Polynomial";

export type CommonParams = { model: string, batch_size: number, num_epochs: number, learning_rate: number, lr_policy: LrPolicy, lr_decay_epochs: Array<number>, warmup_steps: number, warmup_start_lr: number, save_interval_epochs: number, 
/**
 * `SGD` (momentum 0.9) or `Adam`.
 */
optimizer: string, weight_decay: number, 
/**
 * [h, w] of the network's input.
 */
image_shape: [number, number], 
/**
 * Stop after this many evaluations without a better primary metric; 0 = never.
 */
early_stop_patience: number, seed: number, };

export type AugmentParams = { horizontal_flip: boolean, horizontal_flip_prob: number, vertical_flip: boolean, vertical_flip_prob: number, brightness: boolean, brightness_range: number, brightness_prob: number, contrast: boolean, contrast_range: number, contrast_prob: number, saturation: boolean, saturation_range: number, saturation_prob: number, hue: boolean, 
/**
 * Degrees.
 */
hue_range: number, hue_prob: number, rotate: boolean, rotate_prob: number, 
/**
 * Degrees.
 */
rotate_range: number, };

export type ClassificationParams = { label_smoothing: number, image_mean: [number, number, number], image_std: [number, number, number], 
/**
 * Oversample rare classes so that each class is drawn equally often.
 */
class_balance: boolean, model: string, batch_size: number, num_epochs: number, learning_rate: number, lr_policy: LrPolicy, lr_decay_epochs: Array<number>, warmup_steps: number, warmup_start_lr: number, save_interval_epochs: number, 
/**
 * `SGD` (momentum 0.9) or `Adam`.
 */
optimizer: string, weight_decay: number, 
/**
 * [h, w] of the network's input.
 */
image_shape: [number, number], 
/**
 * Stop after this many evaluations without a better primary metric; 0 = never.
 */
early_stop_patience: number, seed: number, horizontal_flip: boolean, horizontal_flip_prob: number, vertical_flip: boolean, vertical_flip_prob: number, brightness: boolean, brightness_range: number, brightness_prob: number, contrast: boolean, contrast_range: number, contrast_prob: number, saturation: boolean, saturation_range: number, saturation_prob: number, hue: boolean, 
/**
 * Degrees.
 */
hue_range: number, hue_prob: number, rotate: boolean, rotate_prob: number, 
/**
 * Degrees.
 */
rotate_range: number, };

export type LossKind = "cross_entropy" | "dice" | "lovasz" | "bce";

export type LossTerm = { 
/**
 * Which.
 */
kind: LossKind, 
/**
 * Its factor, above 0.
 */
weight: number, };

export type SegmentationParams = { 
/**
 * Backbone of DeepLabV3P; `None` for networks without a choice.
 */
backbone: string | null, 
/**
 * Losses that are added. `loss_type` [false, false] is cross-entropy alone; [dice, ce] adds those that are true.
 */
losses: Array<LossTerm>, 
/**
 * Weight of each class in cross-entropy, in id order; empty = all 1.
 */
class_weights: Array<number>, 
/**
 * Mean of each channel after the values were brought to 0–1 by `min_val` and `max_val`. Its length is the number of
 * channels.
 */
image_mean: Array<number>, 
/**
 * Standard deviation of each channel, likewise.
 */
image_std: Array<number>, 
/**
 * Value of each channel that becomes 0; lower ones are clipped. Empty = 0.
 */
min_val: Array<number>, 
/**
 * Value of each channel that becomes 1; higher ones are clipped. Empty = 255.
 */
max_val: Array<number>, blur: boolean, blur_prob: number, scale_aspect: boolean, min_ratio: number, aspect_ratio: number, model: string, batch_size: number, num_epochs: number, learning_rate: number, lr_policy: LrPolicy, lr_decay_epochs: Array<number>, warmup_steps: number, warmup_start_lr: number, save_interval_epochs: number, 
/**
 * `SGD` (momentum 0.9) or `Adam`.
 */
optimizer: string, weight_decay: number, 
/**
 * [h, w] of the network's input.
 */
image_shape: [number, number], 
/**
 * Stop after this many evaluations without a better primary metric; 0 = never.
 */
early_stop_patience: number, seed: number, horizontal_flip: boolean, horizontal_flip_prob: number, vertical_flip: boolean, vertical_flip_prob: number, brightness: boolean, brightness_range: number, brightness_prob: number, contrast: boolean, contrast_range: number, contrast_prob: number, saturation: boolean, saturation_range: number, saturation_prob: number, hue: boolean, 
/**
 * Degrees.
 */
hue_range: number, hue_prob: number, rotate: boolean, rotate_prob: number, 
/**
 * Degrees.
 */
rotate_range: number, };

export type DetectionParams = { backbone: string | null, 
/**
 * Two-stage detectors: a feature pyramid.
 */
with_fpn: boolean, use_mixup: boolean, mixup_alpha: number, mixup_beta: number, expand_image: boolean, expand_prob: number, crop_image: boolean, 
/**
 * Another square input size for each batch, one of `random_shape_sizes`.
 */
random_shape: boolean, random_shape_sizes: Array<number>, image_mean: [number, number, number], image_std: [number, number, number], 
/**
 * Decay of an exponential moving average of the weights, which is what is evaluated and saved; 0 = none.
 */
ema_decay: number, model: string, batch_size: number, num_epochs: number, learning_rate: number, lr_policy: LrPolicy, lr_decay_epochs: Array<number>, warmup_steps: number, warmup_start_lr: number, save_interval_epochs: number, 
/**
 * `SGD` (momentum 0.9) or `Adam`.
 */
optimizer: string, weight_decay: number, 
/**
 * [h, w] of the network's input.
 */
image_shape: [number, number], 
/**
 * Stop after this many evaluations without a better primary metric; 0 = never.
 */
early_stop_patience: number, seed: number, horizontal_flip: boolean, horizontal_flip_prob: number, vertical_flip: boolean, vertical_flip_prob: number, brightness: boolean, brightness_range: number, brightness_prob: number, contrast: boolean, contrast_range: number, contrast_prob: number, saturation: boolean, saturation_range: number, saturation_prob: number, hue: boolean, 
/**
 * Degrees.
 */
hue_range: number, hue_prob: number, rotate: boolean, rotate_prob: number, 
/**
 * Degrees.
 */
rotate_range: number, };

export type TrainParams = { "task_type": "classification" } & ClassificationParams | { "task_type": "segmentation" } & SegmentationParams | { "task_type": "detection" } & DetectionParams | { "task_type": "instance_segmentation" } & DetectionParams;

export type PruneTarget = { "by": "loss", 
/**
 * At least 0.
 */
value: number, } | { "by": "flops", 
/**
 * Between 0 and 1, both excluded.
 */
value: number, };

export type PruneSpec = { 
/**
 * Sensitivities of the parent task, as its analysis wrote them.
 */
sensitivities: string, 
/**
 * How much to remove.
 */
target: PruneTarget, };

export type TrainSpec = { 
/**
 * Task id, for logs.
 */
task_id: string, 
/**
 * `<ws>/projects/P…/T…`: gets `out.log`, `err.log`, `output/`.
 */
task_dir: string, 
/**
 * Training and validation data.
 */
dataset: DatasetRef, 
/**
 * Task family and its parameters.
 */
params: TrainParams, 
/**
 * Start weights (safetensors, `.pth`, `.pdparams` or a checkpoint folder); ignored on resume.
 */
weights: string | null, 
/**
 * Where to begin.
 */
resume: Resume, 
/**
 * Prunes the network of `weights` before it is trained; ignored on resume.
 */
prune?: PruneSpec, 
/**
 * Where to run.
 */
device: DeviceSpec, };

export type ModelSource = { 
/**
 * Checkpoint folder: `output/best_model` or `output/epoch_N`.
 */
checkpoint: string, 
/**
 * The epoch asked for; `None` = best.
 */
epoch: number | null, };

export type EvaluateSpec = { 
/**
 * Task family.
 */
task_type: TaskType, 
/**
 * What to report on.
 */
source: ModelSource, 
/**
 * k of top-k accuracy, before capping at the number of classes.
 */
topk: number, 
/**
 * Detectors: less sure boxes count in average precision alone, 0–1; absent: 0.5.
 */
score_thresh?: number, 
/**
 * Detectors: overlap from which a box or mask is right, 0–1; absent: 0.5 of boxes, 0.3 of masks.
 */
overlap_thresh?: number, };

export type PredictImage = { "from": "file", 
/**
 * Absolute path.
 */
path: string, 
/**
 * File name of the picture, `.png`.
 */
output: string, 
/**
 * Its annotation in the dataset (label map, VOC file, instances), drawn beside the prediction.
 */
truth?: string, };

export type PredictSpec = { 
/**
 * Task family.
 */
task_type: TaskType, 
/**
 * Weights.
 */
source: ModelSource, 
/**
 * Images in order.
 */
images: Array<PredictImage>, 
/**
 * Folder for the pictures; exists and is empty.
 */
out_dir: string, 
/**
 * Boxes below are not drawn.
 */
score_threshold: number, 
/**
 * Where to run.
 */
device: DeviceSpec, };

export type QuantMethod = "min_max" | "percentile" | "entropy";

export type QuantSpec = { 
/**
 * How ranges of activations are chosen.
 */
method: QuantMethod, 
/**
 * Training images to calibrate with; fewer are used, and said, when the set is smaller.
 */
images: number, };

export type ExportSpec = { 
/**
 * Task family.
 */
task_type: TaskType, 
/**
 * Weights.
 */
source: ModelSource, 
/**
 * Folder that gets `inference_model/`.
 */
save_dir: string, 
/**
 * 8-bit integers instead of fp32.
 */
quant?: QuantSpec, 
/**
 * `<task>/logs/export`: gets `out.log`, `err.log`, and while the job runs what the measurement needs.
 * Without it the export is neither logged nor measured.
 */
log_dir?: string, 
/**
 * Its training set calibrates, its validation set measures before and after. Needed for `quant`; an
 * fp32 export takes a few validation images from it.
 */
dataset?: DatasetRef, 
/**
 * Intra-operation threads; 0 = all cores.
 */
threads?: number, };

export type LiteSpec = { 
/**
 * Folder of an exported model: `model.onnx`, `model.yml`.
 */
model: string, 
/**
 * Folder that gets `lite_model/`.
 */
save_dir: string, 
/**
 * Intra-operation threads; 0 = all cores.
 */
threads: number, };

export type SensitivitySpec = { 
/**
 * Task family.
 */
task_type: TaskType, 
/**
 * The model that is analysed.
 */
source: ModelSource, 
/**
 * Its validation set measures the loss.
 */
dataset: DatasetRef, 
/**
 * `<task>/prune`: gets `out.log`, `err.log`, `sensitivities.json`, `sensitivities.png`. Layers that a
 * table of the same model in there has are not measured again.
 */
out_dir: string, 
/**
 * Images of one batch.
 */
batch_size: number, 
/**
 * Where to run.
 */
device: DeviceSpec, };

export type SourceFormat = "native" | "labelme" | "easydata" | "jingling" | "coco" | "yolo";

export type ImportSpec = { 
/**
 * Task family, decides the format.
 */
task_type: TaskType, 
/**
 * Source folder, absolute, symlinks resolved.
 */
source: string, 
/**
 * Final dataset folder `<ws>/datasets/D…`; replaced as a whole.
 */
dest: string, 
/**
 * Threads for checking; 0 = all cores but one.
 */
threads: number, 
/**
 * Segmentation only: pictures of any number of channels (`.npy`, TIFF) are allowed.
 */
remote?: boolean, 
/**
 * Annotations of another tool, to be converted; none = recognised by the folder's content.
 */
format?: SourceFormat, };

export type JobSpec = { "kind": "train" } & TrainSpec | { "kind": "evaluate" } & EvaluateSpec | { "kind": "predict" } & PredictSpec | { "kind": "export" } & ExportSpec | { "kind": "lite" } & LiteSpec | { "kind": "sensitivity" } & SensitivitySpec | { "kind": "import" } & ImportSpec;

export type PruneSummary = { 
/**
 * Multiply-accumulates of one image before.
 */
macs_before: number, 
/**
 * And after.
 */
macs_after: number, 
/**
 * Parameters before.
 */
parameters_before: number, 
/**
 * And after.
 */
parameters_after: number, 
/**
 * Relative metric loss that each layer was allowed.
 */
tolerance: number, 
/**
 * Share of channels removed, by group of layers.
 */
ratios: Record<string, number>, };

export type JobEvent = { "type": "started", 
/**
 * `cpu` or `cuda:0,1`.
 */
device: string, 
/**
 * `fp32`, `bf16` or `fp16`.
 */
precision: string, 
/**
 * Remarks for the user: replaced values, skipped weights …
 */
notes: Array<string>, } | { "type": "step", 
/**
 * Running epoch, from 1.
 */
epoch: number, 
/**
 * Number of epochs of the whole training.
 */
num_epochs: number, 
/**
 * Step within the epoch, from 1.
 */
step: number, 
/**
 * Steps of one epoch.
 */
steps: number, 
/**
 * Loss first, then the type's own keys, then `lr`.
 */
metrics: { [key in string]: number | null }, 
/**
 * Seconds left, if known.
 */
eta: number | null, 
/**
 * Seconds of the last step.
 */
step_seconds: number, 
/**
 * Seconds of the last step spent waiting for data.
 */
data_wait_seconds: number, 
/**
 * Images per second since the last logged step.
 */
images_per_second: number, 
/**
 * Share of the epoch's pictures found decoded in memory, 0–1; none without such a cache.
 */
cache_hit_rate?: number | null, } | { "type": "eval", 
/**
 * Epoch it belongs to, from 1.
 */
epoch: number, 
/**
 * Primary metric first.
 */
metrics: { [key in string]: number | null }, } | { "type": "saved", 
/**
 * Epoch, from 1.
 */
epoch: number, 
/**
 * Absolute folder.
 */
path: string, 
/**
 * Whether `best_model` was replaced by it.
 */
best: boolean, } | { "type": "progress", 
/**
 * Units done.
 */
done: number, 
/**
 * Units in all.
 */
total: number, 
/**
 * What is being done (`checking`, `copying`, `predicting` …).
 */
stage: string, 
/**
 * Seconds left, where it can be told.
 */
eta?: number, } | { "type": "pruned" } & PruneSummary | { "type": "warning", 
/**
 * One sentence.
 */
message: string, } | { "type": "heartbeat", 
/**
 * What it is doing (`evaluating`, `loading` …).
 */
stage: string, };

export type TrainResult = { 
/**
 * True when it was stopped before its last epoch.
 */
stopped: boolean, 
/**
 * Epochs done completely.
 */
completed_epochs: number, 
/**
 * Epoch of the best model, if one was saved.
 */
best_epoch: number | null, 
/**
 * Metrics of the best model.
 */
best_metrics: { [key in string]: number | null }, };

export type EvaluateResult = { 
/**
 * Contract object: `label_list`, `epoch`, `Confusion_Matrix` …
 */
report: Record<string, unknown>, };

export type PredictItem = { 
/**
 * Source file as given, or `image_data`.
 */
source: string, 
/**
 * Picture written, absolute; absent when the image could not be read.
 */
picture: string | null, 
/**
 * Machine-readable result (classification: list of `{category, category_id, score}`).
 */
result: unknown, 
/**
 * Why this image failed.
 */
error: string | null, };

export type PredictResult = { 
/**
 * One entry an image, in order.
 */
items: Array<PredictItem>, };

export type Probe = { 
/**
 * Absolute file.
 */
path: string, 
/**
 * Number of images.
 */
images: number, };

export type SampleKind = "uint8" | "uint16" | "float32";

export type MeasureTask = { "kind": "classes", 
/**
 * The short side of a picture is resized to this before the square is cut out, in pixels.
 */
resize_short: number, 
/**
 * k of top-k accuracy beside top-1, at most the number of classes.
 */
topk: number, } | { "kind": "pixels", 
/**
 * Kind of the stored values; absent for 8-bit RGB.
 */
raster: SampleKind | null, 
/**
 * What values of each channel are cut to and become 0 and 1; none: 0 and 255.
 */
range: Array<[number, number]>, } | { "kind": "boxes", 
/**
 * The short side of a picture and the most its long one may have, in pixels, while it fits into the input; absent:
 * it is resized to the input's size.
 */
resize: [number, number] | null, 
/**
 * COCO's average precision over overlaps; else VOC's at one half.
 */
coco: boolean, 
/**
 * Whether the network predicts masks.
 */
masks: boolean, 
/**
 * The pictures with what is in them (a `TruthSet` of the datasets); removed afterwards. Absent: no accuracy.
 */
truth: string | null, };

export type MeasureSpec = { 
/**
 * The exported ONNX file.
 */
model: string, 
/**
 * Of a quantized export the same network in fp32; removed afterwards.
 */
fp32: string | null, 
/**
 * Folder of the dataset whose validation images measure the accuracy; absent: no accuracy.
 */
dataset: string | null, 
/**
 * Height and width of the network's input, in pixels.
 */
size: [number, number], 
/**
 * Mean of each channel, of values brought to 0–1.
 */
mean: Array<number>, 
/**
 * Standard deviation of each channel, of values brought to 0–1.
 */
std: Array<number>, 
/**
 * Number of classes.
 */
classes: number, 
/**
 * How pictures become that input, and what is measured on them.
 */
task: MeasureTask, 
/**
 * What the engine computes for a few images.
 */
probe: Probe, 
/**
 * Intra-operation threads; 0 = all cores.
 */
threads: number, };

export type ModelMeasure = { 
/**
 * `acc1` and `acc{k}`, `miou`, or the average precisions on the validation images; empty when not measured.
 */
metrics: { [key in string]: number | null }, 
/**
 * Size of the file.
 */
bytes: number, 
/**
 * Median milliseconds for one image.
 */
latency_ms: number, };

export type Measured = { 
/**
 * `onnxruntime` and its version.
 */
runtime: string, 
/**
 * Threads of the latency.
 */
threads: number, 
/**
 * Validation images of the metrics; 0 without.
 */
images: number, 
/**
 * The exported model.
 */
model: ModelMeasure, 
/**
 * Of a quantized export the same network in fp32.
 */
fp32: ModelMeasure | null, 
/**
 * Largest difference of a probability in fp32 between the engine and the runtime; of detectors between scores of the
 * same rank, where one that is missing counts with what it is above 0.05.
 */
difference: number, };

export type ExportResult = { 
/**
 * Absolute folder `<save_dir>/inference_model`.
 */
path: string, 
/**
 * Parameters of the exported network.
 */
parameters: number, 
/**
 * Multiply-accumulates for one input of the exported shape.
 */
macs: number, 
/**
 * Images that calibrated, when it is quantized.
 */
calibrated?: number, 
/**
 * What the user should know, one sentence each.
 */
notes?: Array<string>, 
/**
 * What the compute host is to measure; it puts `measured` in its place.
 */
measure?: MeasureSpec, 
/**
 * What another runtime measured; absent when it could not.
 */
measured?: Measured, };

export type LiteResult = { 
/**
 * Absolute folder `<save_dir>/lite_model`.
 */
path: string, 
/**
 * `ort`: ONNX Runtime's own format; `onnx`: optimized ONNX, where the runtime could not write its own.
 */
format: string, 
/**
 * Why the format is not `ort`.
 */
note: string | null, 
/**
 * `onnxruntime` and its version.
 */
runtime: string, 
/**
 * Largest difference of a probability to the model that was converted.
 */
difference: number, 
/**
 * Size of the file.
 */
bytes: number, 
/**
 * Median milliseconds for one image.
 */
latency_ms: number, };

export type SensitivityResult = { 
/**
 * True when it was stopped before its last layer; the layers done are kept.
 */
stopped: boolean, 
/**
 * Absolute `sensitivities.json`.
 */
path: string, 
/**
 * Name of the metric.
 */
metric: string, 
/**
 * The metric of the unpruned model.
 */
base: number, 
/**
 * Layers measured.
 */
layers: number, 
/**
 * (share of the parameters removed, allowed loss) for losses 0.05, 0.10 … 0.95; empty after a stop.
 */
curve: Array<[number, number]>, };

export type ImportResult = { 
/**
 * The `details` object of the wire contract, as written to `statis.json`. An addon passes on only its
 * `labels`, and the number of files in place of `train_files`, `val_files` and `test_files`.
 */
details: Record<string, unknown>, 
/**
 * Whether the source came with split lists.
 */
split: boolean, 
/**
 * Files placed into the dataset folder.
 */
files: number, 
/**
 * Remarks that do not fail the import (ignored files …).
 */
warnings: Array<string>, };

export type JobOutcome = { "type": "train" } & TrainResult | { "type": "evaluate" } & EvaluateResult | { "type": "predict" } & PredictResult | { "type": "export" } & ExportResult | { "type": "lite" } & LiteResult | { "type": "sensitivity" } & SensitivityResult | { "type": "import" } & ImportResult | { "type": "failed" } & JobError;

