/** One submitted job: its state, its listeners and its single outcome. */
import { failed } from './host-end.js';
import type { JobEvent, JobOutcome } from './jobs.gen.js';
import type { Logger } from './logger.js';
import type { JobHandle, JobRequest, JobState } from './ports.js';

export class Job implements JobHandle {
  readonly outcome: Promise<JobOutcome>;
  #state: JobState = 'queued';
  #lastDetail = '';
  #resolve!: (outcome: JobOutcome) => void;
  #ended = false;
  #stopRequested = false;
  /** What `stop` does at this stage of the job's life; set by whoever holds the job. */
  onStop: () => void = () => {};

  /** Milliseconds since the native side was last heard of; counted by the host's monitor. */
  silentMs = 0;
  /** Processor time of the host when the silence began, clock ticks. */
  cpuTicksAtSilence = 0;
  /** Longest training step seen, milliseconds: what is silent for such a job depends on it. */
  longestStepMs = 0;

  constructor(
    readonly request: JobRequest,
    private readonly logger: Logger,
    private readonly onEnd: (job: Job) => void,
  ) {
    this.outcome = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  get id(): string {
    return this.request.id;
  }

  get state(): JobState {
    return this.#state;
  }

  get ended(): boolean {
    return this.#ended;
  }

  get stopRequested(): boolean {
    return this.#stopRequested;
  }

  async stop(): Promise<void> {
    if (!this.#ended && !this.#stopRequested) {
      this.#stopRequested = true;
      this.onStop();
    }
    await this.outcome;
  }

  /** Tells the listener unless nothing changed. */
  setState(state: JobState, detail: { queuePosition?: number; message?: string } = {}): void {
    if (this.#ended) return;
    const text = JSON.stringify(detail);
    if (state === this.#state && text === this.#lastDetail) return;
    this.#state = state;
    this.#lastDetail = text;
    this.#call('onState', () => this.request.onState?.(state, detail));
  }

  event(event: JobEvent): void {
    if (this.#ended) return;
    this.silentMs = 0;
    if (event.type === 'step') this.longestStepMs = Math.max(this.longestStepMs, event.step_seconds * 1000);
    this.#call('onEvent', () => this.request.onEvent?.(event));
  }

  /** The first outcome counts. */
  finish(outcome: JobOutcome): void {
    if (this.#ended) return;
    this.#ended = true;
    this.onEnd(this);
    this.#resolve(outcome);
  }

  cancelled(message = 'The job was stopped before it began.'): void {
    this.finish(failed('cancelled', message, { context: { reason: 'stopped' } }));
  }

  #call(what: string, listener: () => void): void {
    try {
      listener();
    } catch (error) {
      this.logger.error({ err: error, job: this.id }, `the job's ${what} listener failed`);
    }
  }
}
