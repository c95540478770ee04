/** The addon without libtorch in a few threads of the API process: previews, checks of single files, imports. */
import { fileURLToPath } from 'node:url';
import { Piscina } from 'piscina';
import { type ErrorCode, OarlockError } from '../domain/errors.js';
import type { ComputeConfig } from './config.js';
import { EventCoalescer, eventsDelivered } from './event-coalescer.js';
import type { NativeCall } from './host/worker.js';
import { failed } from './host-end.js';
import type { Job } from './job.js';
import type { JobError, JobEvent, JobOutcome } from './jobs.gen.js';
import type { Logger } from './logger.js';
import { loadAddon, type NativeAddon } from './native-addon.js';

const WORKER = fileURLToPath(new URL('./host/worker.js', import.meta.url));

/** Exports of the addon that may be called by name; its job functions are reserved for `run`. */
const RESERVED = new Set(['subscribe', 'runJob', 'control']);

/** Threads of imports yield to the thread that answers requests. */
const NICENESS = 5;
/**
 * Threads only pass answers on, so a small nursery keeps the process small. The old generation stays unlimited: a large answer in
 * a limited heap would end the whole process.
 */
const NURSERY_MB = 4;
const STOP_RETRY_MS = 50;

const CODES: Readonly<Partial<Record<JobError['code'], ErrorCode>>> = {
  invalid_argument: 'invalid_argument',
  invalid_data: 'invalid_argument',
  not_found: 'not_found',
  not_ready: 'not_ready',
  unsupported: 'unsupported',
  forbidden_path: 'forbidden_path',
  resource_exhausted: 'resource_exhausted',
};

/** The error class of the API process for a failure of native code, whose message is a `JobError` as JSON. */
export function fromNative(error: unknown): OarlockError {
  const text = error instanceof Error ? error.message : String(error);
  if (text.startsWith('{')) {
    try {
      const native = JSON.parse(text) as Partial<JobError>;
      if (typeof native.code === 'string' && typeof native.message === 'string') {
        return new OarlockError(CODES[native.code] ?? 'internal', native.message, {
          context: native.context ?? {},
          ...(typeof native.hint === 'string' ? { hint: native.hint } : {}),
          retryable: native.retryable === true,
          cause: error,
        });
      }
    } catch {}
  }
  return new OarlockError('internal', text, { cause: error });
}

export class LightPool {
  #pool: Piscina<NativeCall, unknown> | undefined;
  #addon: Promise<NativeAddon> | undefined;
  #calls = 0;
  #closing = false;
  readonly #jobs = new Map<string, Job>();
  readonly #events = new EventCoalescer((id, event) => this.#jobs.get(id)?.event(event));

  constructor(
    private readonly config: ComputeConfig,
    private readonly logger: Logger,
  ) {}

  get #busy(): boolean {
    return this.#calls > 0 || this.#jobs.size > 0;
  }

  get #threads(): Piscina<NativeCall, unknown> {
    this.#pool ??= new Piscina<NativeCall, unknown>({
      filename: WORKER,
      minThreads: 0,
      maxThreads: this.config.lightThreads + 1,
      idleTimeout: this.config.lightIdleMs,
      maxQueue: Number.POSITIVE_INFINITY, // bounded here, where the message can say so
      niceIncrement: NICENESS,
      recordTiming: false,
      resourceLimits: { maxYoungGenerationSizeMb: NURSERY_MB },
      workerData: { addon: this.config.imagingAddon },
    });
    return this.#pool;
  }

  /** One export, by name, in a pool thread. */
  async call<T>(fn: string, args: unknown[]): Promise<T> {
    if (RESERVED.has(fn)) throw new OarlockError('internal', `${fn} is no function for single calls.`);
    const { lightQueue, lightTimeoutMs } = this.config;
    if (this.#closing) throw new OarlockError('resource_exhausted', 'The server is stopping.');
    if (this.#calls >= lightQueue) {
      throw new OarlockError('resource_exhausted', `Too many images and files are being worked on (${this.#calls}).`, {
        context: { reason: 'queue_full', queued: this.#calls },
        hint: 'Try again in a moment.',
      });
    }
    this.#calls++;
    const task = this.#threads.run({ fn, args, deadline: Date.now() + lightTimeoutMs }).finally(() => {
      this.#calls--;
    });
    try {
      return (await this.#limited(task, fn)) as T;
    } catch (error) {
      throw error instanceof OarlockError ? error : fromNative(error);
    }
  }

  /** A native call cannot be broken off: its caller gets an answer in time, its thread stays taken (and counted) until it returns. */
  #limited(task: Promise<unknown>, fn: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.logger.warn({ fn, ms: this.config.lightTimeoutMs }, 'a call into the imaging addon takes too long');
        const seconds = this.config.lightTimeoutMs / 1000;
        reject(
          new OarlockError('resource_exhausted', `The work was not done within ${seconds} s.`, {
            context: { reason: 'timeout' },
          }),
        );
      }, this.config.lightTimeoutMs);
      task.then(resolve, reject).finally(() => clearTimeout(timer));
    });
  }

  /** A job of the light lane (a dataset import), with events and a way to stop it. */
  run(job: Job): void {
    void this.#run(job).then((outcome) => {
      this.#events.finish(job.id);
      this.#jobs.delete(job.id);
      job.finish(outcome);
    });
  }

  async #run(job: Job): Promise<JobOutcome> {
    this.#jobs.set(job.id, job);
    job.onStop = () => job.setState('stopping');
    job.setState('starting');
    let watch: NodeJS.Timeout | undefined;
    try {
      // Events need one event loop to arrive at: the only reason why this thread loads the addon too.
      this.#addon ??= this.#subscribe();
      const addon = await this.#addon;
      if (job.stopRequested)
        return failed('cancelled', 'The job was stopped before it began.', { context: { reason: 'stopped' } });
      job.setState('running');
      job.onStop = () => {
        job.setState('stopping');
        addon.control(job.id, 'stop');
      };
      watch = this.#watch(job, addon);
      const json = await this.#threads.run({ fn: 'runJob', args: [job.id, JSON.stringify(job.request.spec)] });
      await eventsDelivered();
      return JSON.parse(String(json)) as JobOutcome;
    } catch (error) {
      this.logger.error({ err: error, job: job.id }, 'a job of the imaging addon failed unexpectedly');
      const { message, hint } = fromNative(error);
      return failed('internal', message, { context: { reason: 'native' }, hint: hint ?? null });
    } finally {
      clearInterval(watch);
    }
  }

  /** Repeats a stop that came before the native side knew the job, and tells when it stays silent. */
  #watch(job: Job, addon: NativeAddon): NodeJS.Timeout {
    let last = performance.now();
    return setInterval(() => {
      const now = performance.now();
      job.silentMs += Math.min(now - last, 1_000);
      last = now;
      if (job.stopRequested) addon.control(job.id, 'stop');
      else if (job.silentMs > this.config.stallMs) {
        job.setState('stalled', { message: `No sign of life for ${Math.round(this.config.stallMs / 1000)} s.` });
      } else if (job.state === 'stalled') job.setState('running');
    }, STOP_RETRY_MS);
  }

  async #subscribe(): Promise<NativeAddon> {
    const addon = await loadAddon(this.config.imagingAddon);
    addon.subscribe((id, json) => this.#events.push(id, JSON.parse(json) as JobEvent));
    return addon;
  }

  /** Waits for calls under way, at most so long. */
  async close(graceMs: number): Promise<void> {
    this.#closing = true;
    const pool = this.#pool;
    if (pool === undefined) return;
    const until = Date.now() + graceMs;
    while (this.#busy && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 20));
    if (!this.#busy) {
      await pool.destroy();
      return;
    }
    this.logger.warn({ calls: this.#calls, jobs: [...this.#jobs.keys()] }, 'native work did not end in time');
    // An orderly exit would wait for threads inside native code, perhaps for ever.
    process.once('exit', () => this.#busy && process.kill(process.pid, 'SIGKILL'));
  }
}
