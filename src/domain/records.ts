/** What the store holds. Records are immutable: a change puts a new object. */
import type { Measured, PruneSummary, SourceFormat } from '../compute/jobs.gen.js';
import type { DatasetStatus, PretrainedModelStatus, ProjectType, TaskStatus } from './enums.js';
import type { TrainParams } from './params/index.js';

/** Counts that defaults and training need without reading the whole statistics file. */
export interface DatasetCounts {
  labels: number;
  train: number;
  val: number;
  test: number;
}

export interface DatasetRecord {
  readonly id: string;
  readonly name: string;
  readonly desc: string;
  readonly type: ProjectType;
  /** Remote sensing: a segmentation set of multi-channel pictures. */
  readonly remote?: boolean;
  /** `<ws>/datasets/D0001`, absolute. */
  readonly path: string;
  /** Local time, `YYYY-MM-DD HH:MM:SS`. */
  readonly create_time: string;
  readonly status: DatasetStatus;
  /** Status text; after a failure its reason. */
  readonly message: string;
  /** Folder of the running or last import. */
  readonly source: string | null;
  /** What that folder was said to hold; left out: recognised. */
  readonly format?: SourceFormat;
  /** The import belongs to a demo, so that stopping the demo cancels it. */
  readonly demo: boolean;
  /** Known once imported. */
  readonly counts: DatasetCounts | null;
  /** Changes with every new content (import, split). */
  readonly content: number;
}

export interface ProjectRecord {
  readonly id: string;
  readonly name: string;
  readonly desc: string;
  readonly type: ProjectType;
  readonly remote?: boolean;
  /** Bound dataset or `""`. */
  readonly did: string;
  readonly path: string;
  readonly create_time: string;
}

export interface TaskRecord {
  readonly id: string;
  /** Always `""` unless set by `PUT /workspace`. */
  readonly name: string;
  readonly desc: string;
  readonly pid: string;
  /** `<ws>/projects/P0001/T0001`, absolute. */
  readonly path: string;
  readonly create_time: string;
  /** Set for a pruning task. */
  readonly parent_id: string;
  readonly status: TaskStatus;
  readonly message: string;
  /** State to return to when an export or a pruning analysis ends without success. */
  readonly settled: TaskStatus;
  readonly params: TrainParams;
}

/** Values in the order they are shown; null = not finite. */
export type MetricValues = Record<string, number | null>;

/** Progress of a task's training, newest values; kept beside the task because it changes every second. */
export interface TrainingRecord {
  /** Task id. */
  readonly id: string;
  /** How the running training was started, for a restart of the server. */
  readonly mode: 'fresh' | 'resume';
  readonly resumed_epoch: number | null;
  /** Waiting for a device. */
  readonly queued: boolean;
  readonly device: string | null;
  readonly precision: string | null;
  readonly num_epochs: number;
  /** `Epoch`, `Step`, then the metrics of the last logged step. */
  readonly train_metrics: MetricValues | null;
  readonly eval_metrics: MetricValues | null;
  /** Seconds left at the last step. */
  readonly eta: number | null;
  readonly steps: number | null;
  readonly images_per_second: number | null;
  readonly data_wait_seconds: number | null;
  readonly download_status: 'Done' | 'Failed' | null;
  readonly train_error: string | null;
  readonly train_stage: 'Train Complete' | 'Train Error' | null;
  /** Seconds of training in finished runs plus the running one up to the last report. */
  readonly running_seconds: number | null;
  /** Metrics of every saved epoch, primary metric first. */
  readonly epochs: Record<string, MetricValues>;
  readonly best_epoch: number | null;
  readonly best_metrics: MetricValues | null;
  /** What was removed before a pruned training; absent in records of older versions. */
  readonly pruning?: PruneSummary | null;
  /** Remarks: replaced values, skipped weights, warnings; newest last, bounded. */
  readonly notes: readonly string[];
}

export const SIDE_JOBS = ['evaluate', 'predict', 'export', 'prune'] as const;
export type SideJob = (typeof SIDE_JOBS)[number];

/** State of a task's evaluation, prediction, export or pruning analysis. Id: `T0001/evaluate`. */
export interface SideJobRecord {
  readonly id: string;
  readonly tid: string;
  readonly job: SideJob;
  /** In the job's own enumeration (api.md 1.6). */
  readonly status: number;
  readonly message: string;
  readonly started: string;
  /** Units done and in all, e.g. pictures of a prediction. */
  readonly done: number;
  readonly total: number;
  /** What it does, or did last. */
  readonly stage?: string;
  /** Arguments as used: epoch, top-k, folders … */
  readonly args: Record<string, unknown>;
  /** Evaluation: the report. Prediction: machine-readable list. Export: sizes. Pruning analysis: `PruneResult`. */
  readonly result: unknown;
}

interface ModelBase {
  readonly id: string;
  readonly name: string;
  /** Model name [`-` backbone]. */
  readonly model: string;
  readonly type: ProjectType;
  readonly pid: string;
  readonly tid: string;
  readonly create_time: string;
  readonly path: string;
  readonly dataset_attr: Record<string, unknown>;
  readonly task_params: Record<string, unknown>;
  readonly eval_result: unknown;
}

export interface PretrainedRecord extends ModelBase {
  readonly status: PretrainedModelStatus;
  readonly message: string;
  /** Checkpoint folder it is copied from. */
  readonly source: string;
}

export interface ExportedRecord extends ModelBase {
  readonly exported_type: number;
  /** What ONNX Runtime measured of it. */
  readonly measured?: Measured;
}

/** Whatever the demo service keeps per project type. */
export interface DemoRecord {
  readonly id: string;
  readonly [key: string]: unknown;
}

/** A folder of ours that is on its way out: moved to the trash and purged after the commit, also after a crash. */
export interface TrashRecord {
  readonly id: string;
  readonly path: string;
}

export interface Kinds {
  dataset: DatasetRecord;
  project: ProjectRecord;
  task: TaskRecord;
  training: TrainingRecord;
  sidejob: SideJobRecord;
  pretrained: PretrainedRecord;
  exported: ExportedRecord;
  demo: DemoRecord;
  trash: TrashRecord;
}
export type Kind = keyof Kinds;
export const KINDS: readonly Kind[] = [
  'dataset',
  'project',
  'task',
  'training',
  'sidejob',
  'pretrained',
  'exported',
  'demo',
  'trash',
];

/** Kinds whose ids come from a counter, with the prefix of the ids. */
export const ID_PREFIX = { dataset: 'D', project: 'P', task: 'T', pretrained: 'PM', exported: 'EM' } as const;
export type NumberedKind = keyof typeof ID_PREFIX;

/** One point of a task's curves. `train` points are at global steps, `eval` points at epochs. */
export interface CurvePoint {
  readonly series: 'train' | 'eval';
  /** Global step from 1, or epoch from 1. */
  readonly x: number;
  readonly values: MetricValues;
  /** Milliseconds since 1970. */
  readonly at: number;
}
