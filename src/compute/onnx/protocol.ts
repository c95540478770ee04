/** What a compute host asks of the process that runs ONNX Runtime, and what comes back: one task a process. */
import type { LiteResult, LiteSpec, Measured, MeasureSpec } from '../jobs.gen.js';

export type OnnxTask = { task: 'measure'; spec: MeasureSpec } | { task: 'convert'; spec: LiteSpec };

export type OnnxReply =
  | { t: 'progress'; done: number; total: number }
  | { t: 'measured'; result: Measured }
  | { t: 'converted'; result: LiteResult }
  | { t: 'failed'; message: string };

/** Reports how far the work is. */
export type OnProgress = (done: number, total: number) => void;
