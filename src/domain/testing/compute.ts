/** A compute layer whose jobs end when the test says so: for the rules of the domain, which start jobs and live with their ends. */
import type { JobEvent, JobOutcome, JobSpec } from '../../compute/jobs.gen.js';
import type { Compute, DeviceInfo, JobHandle, JobRequest, JobState } from '../../compute/ports.js';
import { OarlockError } from '../errors.js';

export const failedOutcome = (code: 'cancelled' | 'internal' | 'invalid_data', message: string): JobOutcome => ({
  type: 'failed',
  code,
  message,
  context: {},
  retryable: false,
  hint: null,
});

export class ScriptedJob implements JobHandle {
  state: JobState = 'running';
  readonly outcome: Promise<JobOutcome>;
  #resolve: (outcome: JobOutcome) => void = () => {};
  stops = 0;

  constructor(
    readonly request: JobRequest,
    private readonly onEnd: () => void,
  ) {
    this.outcome = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  get spec(): JobSpec {
    return this.request.spec;
  }

  event(event: JobEvent): void {
    this.request.onEvent?.(event);
  }

  end(outcome: JobOutcome): void {
    this.onEnd();
    this.#resolve(outcome);
  }

  async stop(): Promise<void> {
    this.stops++;
    const stopped: JobOutcome =
      this.spec.kind === 'train'
        ? { type: 'train', stopped: true, completed_epochs: 1, best_epoch: null, best_metrics: {} }
        : this.spec.kind === 'sensitivity'
          ? { type: 'sensitivity', stopped: true, path: '', metric: 'acc1', base: 0.5, layers: 1, curve: [] }
          : failedOutcome('cancelled', 'The job was stopped.');
    this.end(stopped);
    await this.outcome;
  }
}

export class ScriptedCompute implements Compute {
  readonly jobs = new Map<string, ScriptedJob>();
  readonly submitted: JobSpec[] = [];
  gpus: DeviceInfo[] = [];
  /** Functions of the light addon. */
  readonly calls: Record<string, (...args: never[]) => unknown> = {};

  submit(request: JobRequest): JobHandle {
    if (this.jobs.has(request.id)) throw new OarlockError('conflict', `Job ${request.id} is already running.`);
    const job = new ScriptedJob(request, () => this.jobs.delete(request.id));
    this.jobs.set(request.id, job);
    this.submitted.push(request.spec);
    return job;
  }

  find(id: string): JobHandle | undefined {
    return this.jobs.get(id);
  }

  /** The live job of that id; fails the test when there is none. */
  job(id: string): ScriptedJob {
    const job = this.jobs.get(id);
    if (job === undefined) throw new Error(`no job ${id}; there are: ${[...this.jobs.keys()].join(', ')}`);
    return job;
  }

  async devices(): Promise<{ gpus: DeviceInfo[]; reason: string | null }> {
    return { gpus: this.gpus, reason: this.gpus.length === 0 ? 'none' : null };
  }

  async light<T>(fn: string, ...args: unknown[]): Promise<T> {
    const call = this.calls[fn];
    if (call === undefined) throw new Error(`the test has no ${fn}`);
    return call(...(args as never[])) as T;
  }

  stats(): ReturnType<Compute['stats']> {
    return { queued: 0, running: this.jobs.size, hosts: [], restarts: 0 };
  }

  async close(): Promise<void> {
    await Promise.all([...this.jobs.values()].map((job) => job.stop()));
  }
}
