/** What the routes may ask of the domain. Every method throws `OarlockError` for refusals. */
import type { QuantMethod, SourceFormat } from '../compute/jobs.gen.js';
import type { ProjectType } from './enums.js';
import type { TrainParams } from './params/index.js';
import type {
  CurvePoint,
  DatasetRecord,
  ExportedRecord,
  MetricValues,
  PretrainedRecord,
  ProjectRecord,
  SideJob,
  SideJobRecord,
  TaskRecord,
  TrainingRecord,
} from './records.js';

export interface WorkspaceApi {
  /** Absolute path of the workspace folder, without trailing slash. */
  readonly dirname: string;
  attributes(struct: string, id: string, names: readonly string[]): Record<string, unknown>;
  /** One transaction for the whole dict; `did` of a project binds a dataset. */
  setAttributes(struct: string, id: string, values: Readonly<Record<string, unknown>>): Promise<void>;
}

export interface NewDataset {
  name: string;
  desc: string;
  type: ProjectType;
  remote?: boolean;
}

export interface ImportOptions {
  /** Part of a demo. */
  demo?: boolean;
  /** What the folder holds; left out: recognised. */
  format?: SourceFormat;
}

/** How labels are drawn into a picture. */
export interface PreviewOptions {
  /** Names of the classes at the right (segmentation). */
  legend: boolean;
  /** Channels shown as red, green and blue (remote sensing); null: the first three. */
  channels: readonly number[] | null;
}

/** Progress of an import that is copying. */
export interface CopyProgress {
  pid: number;
  percent: number;
}

export interface DatasetsApi {
  get(did: string): DatasetRecord;
  list(): readonly DatasetRecord[];
  /** The text, or while copying an object. */
  message(record: DatasetRecord): string | CopyProgress;
  /** Changes with what `message` answers for running imports. */
  progressRevision(): string;
  /** Ids of projects bound to it. */
  projectsOf(did: string): string[];
  create(dataset: NewDataset): Promise<DatasetRecord>;
  /** Checks the folder, marks XCHECKING and starts the import; `done` settles when it has ended. */
  import(did: string, path: string, options?: ImportOptions): Promise<{ done: Promise<void> }>;
  /** Ends a running import; it becomes XCHECKFAIL or XCOPYFAIL with `reason`. */
  cancelImport(did: string, reason: string): Promise<void>;
  split(did: string, val: number, test: number, seed?: number): Promise<void>;
  /** The whole `details` object (api.md 5); null unless imported. Large: prefer `detailsJson` for answers. */
  details(did: string): Promise<DatasetDetails | null>;
  /** The same as UTF-8 JSON, safe for the PaddleX page; cached per content. */
  detailsJson(did: string): Promise<Buffer | null>;
  /** A PNG of one of its pictures with the labels drawn in; `path` as in `file_info`, or the picture's name. */
  preview(did: string, path: string, options: PreviewOptions): Promise<Buffer>;
  /** JSON of an instance segmentation annotation: sizes, classes, boxes, polygons. */
  annotation(path: string): Promise<string>;
  /** Refused while projects are bound; `force` also cancels a running import. */
  delete(did: string, options?: { force?: boolean }): Promise<void>;
}

export interface DatasetDetails {
  fields: string[];
  labels: string[];
  file_info: Record<string, string>;
  label_info: Record<string, string[]>;
  train_files: string[];
  val_files: string[];
  test_files: string[];
  class_train_file_list: Record<string, string[]>;
  class_val_file_list: Record<string, string[]>;
  class_test_file_list: Record<string, string[]>;
}

export interface NewProject {
  name: string;
  desc: string;
  type: ProjectType;
  remote?: boolean;
}

export interface ProjectsApi {
  get(pid: string): ProjectRecord;
  list(): readonly ProjectRecord[];
  tasksOf(pid: string): readonly TaskRecord[];
  create(project: NewProject): Promise<ProjectRecord>;
  /** Refused while a task works; `force` stops it first. */
  delete(pid: string, options?: { force?: boolean }): Promise<void>;
}

export interface NewTask {
  pid: string;
  /** Client's parameters, completed by the project's defaults. */
  train?: Readonly<Record<string, unknown>>;
  desc?: string;
  parent_id?: string;
}

export interface TasksApi {
  get(tid: string): TaskRecord;
  /** In order of id; the same array until a task changes. */
  list(pid?: string): readonly TaskRecord[];
  /** The project's type. */
  typeOf(task: TaskRecord): ProjectType;
  create(task: NewTask): Promise<TaskRecord>;
  /** Refused while it works; `force` stops it first. */
  delete(tid: string, options?: { force?: boolean }): Promise<void>;
  /** Stored parameters, complete for the type. */
  params(tid: string): TrainParams;
  /** Merges; only in XINIT. */
  setParams(tid: string, train: Readonly<Record<string, unknown>>): Promise<void>;
  /** Suggested parameters for a new task of that project. */
  suggest(pid: string, options?: { model?: string; gpus?: readonly number[] }): Promise<TrainParams>;
  /** Completely saved epochs, ascending. */
  savedEpochs(tid: string): Promise<number[]>;
  /** Folder of the best model or of a saved epoch. Throws `not_ready` when it is not there. */
  checkpoint(tid: string, epoch: number | null): Promise<string>;
  /** The whole stored record as `GET /model?mid` shows it: `pid`, `task_type`, `dataset_path`, `train` … */
  storedParams(tid: string): Record<string, unknown>;
}

/** A pruning as clients read it. FLOPs are multiply-accumulates of one image, as PaddleX counts them. */
export interface PruningView {
  flops_before: number;
  flops_after: number;
  /** Share removed. */
  pruned_flops: number;
  parameters_before: number;
  parameters_after: number;
  /** Metric loss that each layer was allowed. */
  tolerance: number;
  /** Share of channels removed, by group of layers. */
  ratios: Record<string, number>;
}

export interface TrainLog {
  log_file: string;
  eta: number | null;
  train_metrics: Record<string, number | string> | null;
  eval_metrics: Record<string, number | string> | null;
  /** The same under the name that PaddleX documents. */
  eval_metircs: Record<string, number | string> | null;
  /** During a download: KB/s as text, MB done and in all. */
  download_status: 'Done' | 'Failed' | { speed: string; download: number; total: number } | null;
  eval_done: boolean;
  train_error: string | null;
  train_stage: string | null;
  running_duration: string | null;
  /** What was removed before a pruned training. */
  pruning: PruningView | null;
  [extra: string]: unknown;
}

/** How much of a pruning task's model to remove; neither: the default loss. */
export interface PruneRequest {
  /** Relative metric loss that each layer may cause. */
  eval_metric_loss?: number;
  /** Share of the FLOPs to remove; wins over the other. */
  pruned_flops?: number;
}

export interface TrainingApi {
  /** From epoch 1, logs truncated. */
  start(tid: string, prune?: PruneRequest): Promise<void>;
  /** From a saved epoch; default the highest, or a state in mid-epoch beyond it. */
  resume(tid: string, epoch?: number): Promise<void>;
  /** Checkpoints and ends; resolves when it has ended. */
  stop(tid: string): Promise<void>;
  /** Whether a training job of that task is queued or running in this process. */
  isLive(tid: string): boolean;
  record(tid: string): TrainingRecord | undefined;
  /** What the task is doing or why it ended, for people. */
  message(task: TaskRecord): string;
  log(tid: string): TrainLog;
  /** Primary metric of the best model. */
  bestMetric(tid: string): Promise<MetricValues>;
  allEpochs(tid: string): Promise<{
    key: string | null;
    epoch_result_dict: Record<string, number | null>;
    best_epoch: number;
    best_result: number;
  }>;
  curves(tid: string): CurvePoint[];
}

export interface EvaluateArgs {
  epoch?: number | null;
  topk?: number | null;
  score_thresh?: number | null;
  overlap_thresh?: number | null;
}

export interface PredictArgs {
  image_data?: string;
  img_list?: readonly string[];
  score_thresh?: number;
  epoch?: number | null;
}

export interface ExportArgs {
  save_dir: string;
  epoch?: number | null;
  quant?: boolean;
  /** How ranges of activations are chosen. */
  quant_method?: QuantMethod;
  /** Training images to calibrate with. */
  quant_images?: number;
}

export interface LiteArgs {
  save_dir: string;
  /** Folder of an exported model, or the folder that it was exported to. */
  model_path: string;
}

export interface JobsApi {
  /** State of a side job; undefined when never started. */
  get(tid: string, job: SideJob): SideJobRecord | undefined;
  evaluate(tid: string, args: EvaluateArgs): Promise<void>;
  /** Path of the single result picture, or null for many. */
  predict(tid: string, args: PredictArgs): Promise<{ path: string | null }>;
  export(tid: string, args: ExportArgs): Promise<{ save_dir: string }>;
  /** Converts an exported model; resolves when it is done. */
  lite(tid: string, args: LiteArgs): Promise<{ message: string }>;
  stop(tid: string, job: SideJob): Promise<void>;
  /** Whether it runs in this process. */
  isLive(tid: string, job: SideJob): boolean;
  /** The stored evaluation report and whether its file is still there. */
  report(tid: string): Promise<{ path: string; report: Record<string, unknown> | null }>;
}

/** Progress of a pruning analysis, all texts; null until it is known. */
export interface PruneLog {
  log_file: string;
  /** `H:M:S` left. */
  eta: string | null;
  /** Evaluations in all. */
  iters: string | null;
  current: string | null;
  /** Percent, `5.56%`. */
  progress: string | null;
}

export interface PruningApi {
  /** Starts the analysis of the best model; a stopped or failed one goes on from the layers that are measured. */
  analyse(tid: string): Promise<void>;
  /** Null when never started. */
  log(tid: string): PruneLog | null;
  /** Share of the parameters removed → metric loss. Throws `not_ready` without a finished analysis. */
  sensitivities(tid: string): Record<string, number>;
}

export interface NewModel {
  pid: string;
  tid: string;
  name: string;
  source_path?: string;
  path?: string;
  exported_type?: number;
  eval_results?: Record<string, unknown>;
}

export interface ModelsApi {
  pretrained(): readonly PretrainedRecord[];
  /** Only those whose export is done, or whose task is gone. */
  exported(): readonly ExportedRecord[];
  get(mid: string): PretrainedRecord | ExportedRecord;
  addPretrained(model: NewModel): Promise<PretrainedRecord>;
  addExported(model: NewModel): Promise<ExportedRecord>;
  deletePretrained(pmid: string): Promise<void>;
  deleteExported(emid: string): Promise<void>;
}

/** Where weights are looked for (implemented by `weights.ts`). */
export interface WeightsApi {
  /** Whether weights of that key (`ResNet50_IMAGENET`) are on this machine; answered from memory. */
  has(key: string): boolean;
  /** Absolute path of the file or folder. */
  find(key: string): Promise<string | undefined>;
  /** The file for a name or path that a task asks for, fetched from a mirror if one is configured. Throws `not_found` with the place to put it. */
  resolve(
    request: { type: ProjectType; model: string; backbone?: string | undefined; wanted: string },
    hooks?: {
      signal?: AbortSignal;
      onProgress?: (progress: { downloaded: number; total: number; bytesPerSecond: number }) => void;
    },
  ): Promise<string>;
}

export interface Health {
  ok: boolean;
  /** What the user should know: a restored backup, a full disk … */
  notices: string[];
  free_bytes: number | null;
  /** Datasets, projects, tasks, models. */
  records: Record<string, number>;
  compute: unknown;
}
