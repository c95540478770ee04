/** What the domain asks of the compute layer; implemented by scheduler, supervisor and light pool. */
import type { JobEvent, JobOutcome, JobSpec } from './jobs.gen.js';

/** `train` jobs queue for devices; `interactive` ones (evaluate, predict, export) run beside a training; `light` ones run on the addon without libtorch inside the API process. */
export type Lane = 'train' | 'interactive' | 'light';

export type JobState = 'queued' | 'starting' | 'running' | 'stalled' | 'stopping';

export interface JobRequest {
  /** Unique among live jobs, e.g. `T0001/train`. A second submit of a live id is refused. */
  id: string;
  lane: Lane;
  /** CUDA ordinals it needs; empty = CPU. Ignored for `light`. */
  devices: readonly number[];
  spec: JobSpec;
  /** File that gets the stderr of the compute host while this job runs (the task's err.log). */
  errLog?: string;
  onState?(state: JobState, detail: { queuePosition?: number; message?: string }): void;
  onEvent?(event: JobEvent): void;
}

export interface JobHandle {
  /** Never rejects: a dead host, a stall or a refused job is a `failed` outcome with its true reason (signal, out of memory …). */
  readonly outcome: Promise<JobOutcome>;
  /** Asks the job to end at its next step; escalates to SIGTERM and SIGKILL of the host's group. Resolves when it has ended. */
  stop(): Promise<void>;
  readonly state: JobState;
}

export interface DeviceInfo {
  kind: 'cpu' | 'cuda';
  /** CUDA ordinal; 0 for the CPU. */
  index: number;
  name: string;
  memoryTotalMb: number;
  memoryFreeMb: number;
}

export interface Compute {
  submit(request: JobRequest): JobHandle;
  /** The live job of that id, if any. */
  find(id: string): JobHandle | undefined;
  /** GPUs first found at start; never touches CUDA in this process. `reason` says why there is none. */
  devices(): Promise<{ gpus: DeviceInfo[]; reason: string | null }>;
  /** One call into the light addon in a pool thread (`readPickle`, `inspectImage` …). */
  light<T>(fn: string, ...args: unknown[]): Promise<T>;
  /** Numbers for /healthz and /metrics. */
  stats(): { queued: number; running: number; hosts: { pid: number; lane: Lane; jobs: string[] }[]; restarts: number };
  /** No new jobs; running trainings checkpoint and end within `graceMs`, then hosts are killed. */
  close(graceMs: number): Promise<void>;
}
