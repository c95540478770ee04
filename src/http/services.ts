/** What the edge itself needs of the program behind it; `createServices` (src/services.ts) returns at least this. */
import type { Compute } from '../compute/ports.js';
import type { EventBus } from '../domain/events.js';
import type { PathGuard } from '../domain/paths.js';

/** One curve point: x is the global step (training) or the epoch (evaluation). */
export interface CurvePoint {
  x: number;
  y: number | null;
}

export interface Curves {
  tid: string;
  /** Task state as in `GET /project/task`. */
  task_status: number;
  num_epochs: number | null;
  /** By metric, in ascending x. */
  train: Record<string, CurvePoint[]>;
  eval: Record<string, CurvePoint[]>;
}

export interface EdgeServices {
  readonly events: EventBus;
  readonly paths: PathGuard;
  readonly compute: Compute;
  readonly datasets: {
    /** Type and folder; throws `not_found`. */
    locate(did: string): { type: string; path: string };
  };
  readonly tasks: {
    /** Stored metric history, thinned to at most `maxPoints` a curve; throws `not_found`, and `not_ready` when nothing was logged yet. */
    curves(tid: string, maxPoints?: number): Promise<Curves>;
  };
  /** Stops every job at a checkpoint; the number stopped. */
  stopAllJobs(): Promise<number>;
  /** Checkpoints, ends hosts, closes the store. */
  close(graceMs: number): Promise<void>;
}
