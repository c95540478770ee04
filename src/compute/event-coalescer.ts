/**
 * Thins out the events of a job on their way to the API process: steps, progress and heartbeats at most ten times a second and only
 * the newest; everything else (evaluation, checkpoint …) always and in order.
 */
import type { JobEvent } from './jobs.gen.js';

type Thinned = 'step' | 'progress' | 'heartbeat';
const THINNED: ReadonlySet<string> = new Set<Thinned>(['step', 'progress', 'heartbeat']);

/** A data set full of damaged files must not fill the server's memory with remarks. */
const MAX_WARNINGS = 1_000;

interface Pending {
  newest: Map<string, JobEvent>;
  lastSent: number;
  warnings: number;
  timer: NodeJS.Timeout | undefined;
}

export class EventCoalescer {
  readonly #jobs = new Map<string, Pending>();

  constructor(
    private readonly send: (id: string, event: JobEvent) => void,
    /** True while the receiver does not keep up: thinned events wait then. */
    private readonly congested: () => boolean = () => false,
    private readonly intervalMs = 100,
  ) {}

  push(id: string, event: JobEvent): void {
    const job = this.#job(id);
    if (!THINNED.has(event.type)) {
      if (event.type === 'warning' && !this.#allowWarning(id, job)) return;
      this.#flush(id, job);
      this.send(id, event);
      return;
    }
    // Re-inserted, so that the order of the newest ones is kept.
    job.newest.delete(event.type);
    job.newest.set(event.type, event);
    const wait = job.lastSent + this.intervalMs - performance.now();
    if (wait <= 0 && !this.congested()) this.#flush(id, job);
    else this.#schedule(id, job, wait);
  }

  /** The job has ended: sends what is held back and forgets it. */
  finish(id: string): void {
    const job = this.#jobs.get(id);
    if (job === undefined) return;
    this.#flush(id, job);
    this.#jobs.delete(id);
  }

  #job(id: string): Pending {
    let job = this.#jobs.get(id);
    if (job === undefined) {
      job = { newest: new Map(), lastSent: Number.NEGATIVE_INFINITY, warnings: 0, timer: undefined };
      this.#jobs.set(id, job);
    }
    return job;
  }

  #allowWarning(id: string, job: Pending): boolean {
    job.warnings++;
    if (job.warnings === MAX_WARNINGS) {
      this.#flush(id, job);
      this.send(id, { type: 'warning', message: 'There are more warnings; they are not shown.' });
    }
    return job.warnings < MAX_WARNINGS;
  }

  #flush(id: string, job: Pending): void {
    clearTimeout(job.timer);
    job.timer = undefined;
    if (job.newest.size === 0) return;
    for (const event of job.newest.values()) this.send(id, event);
    job.newest.clear();
    job.lastSent = performance.now();
  }

  #schedule(id: string, job: Pending, wait: number): void {
    job.timer ??= setTimeout(
      () => {
        job.timer = undefined;
        if (this.congested()) this.#schedule(id, job, this.intervalMs);
        else this.#flush(id, job);
      },
      Math.max(1, wait),
    );
  }
}

/** Events sent before a job returned are already queued for this event loop; they are handled within its next two turns. */
export async function eventsDelivered(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}
