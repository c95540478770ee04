/** The compute layer: takes jobs, decides where and when they run, and tells how they ended. */
import { OarlockError } from '../domain/errors.js';
import { type ComputeConfig, computeConfig } from './config.js';
import { DeviceList } from './devices.js';
import { failed } from './host-end.js';
import { Job } from './job.js';
import { LightPool } from './light-pool.js';
import type { Logger } from './logger.js';
import type { Compute, DeviceInfo, JobHandle, JobRequest, Lane } from './ports.js';
import { SlotQueue } from './slot-queue.js';
import { type HostKey, Supervisor, within } from './supervisor.js';

const INTERACTIVE: HostKey = { key: 'interactive', lane: 'interactive', cuda: undefined };

/** Resources of a training: its GPUs, or the CPU. */
const trainResources = (devices: readonly number[]): string[] =>
  devices.length === 0 ? ['cpu'] : [...devices].sort((a, b) => a - b).map((ordinal) => `cuda:${ordinal}`);

function waitingMessage(job: Job, position: number, holders: readonly Job[]): string {
  const where = job.request.lane === 'train' ? trainResources(job.request.devices).join(' and ') : 'a free place';
  const ahead = position === 1 ? 'next in line' : `${position - 1} ahead in line`;
  const running = holders.length === 0 ? '' : `; running now: ${holders.map((holder) => holder.id).join(', ')}`;
  return `Waiting for ${where}, ${ahead}${running}.`;
}

class ComputeLayer implements Compute {
  readonly #jobs = new Map<string, Job>();
  readonly #queues: Readonly<Record<Lane, SlotQueue<Job>>>;
  readonly #supervisor: Supervisor;
  readonly #light: LightPool;
  readonly #devices: DeviceList;
  #closed: Promise<void> | undefined;

  constructor(
    config: ComputeConfig,
    private readonly logger: Logger,
  ) {
    this.#supervisor = new Supervisor(config, logger);
    this.#light = new LightPool(config, logger);
    this.#devices = new DeviceList(config, () => this.#supervisor.acquire(INTERACTIVE));
    const queue = (maxQueue: number, capacity: (resource: string) => number, start: (job: Job, slot: number) => void) =>
      new SlotQueue<Job>({
        maxQueue,
        capacity,
        start: (job, slots) => start(job, slots[0] ?? 0),
        waiting: (job, position, holders) =>
          job.setState('queued', { queuePosition: position, message: waitingMessage(job, position, holders) }),
      });
    this.#queues = {
      train: queue(
        config.trainQueue,
        (name) => (name === 'cpu' ? config.cpuSlots : 1),
        (job, slot) => {
          const { devices } = job.request;
          const name = trainResources(devices).join(',');
          void this.#runOnHost(job, {
            key: `train:${name}${slot > 0 ? `#${slot}` : ''}`,
            lane: 'train',
            cuda: devices,
          });
        },
      ),
      interactive: queue(
        config.interactiveQueue,
        () => config.interactiveConcurrency,
        (job) => {
          void this.#runOnHost(job, INTERACTIVE);
        },
      ),
      light: queue(
        config.lightQueue,
        () => 1,
        (job) => this.#light.run(job),
      ),
    };
  }

  submit(request: JobRequest): JobHandle {
    if (this.#jobs.has(request.id)) {
      throw new OarlockError('conflict', `Job ${request.id} is already running or queued.`, {
        context: { id: request.id },
      });
    }
    const queue = this.#queues[request.lane];
    const job = new Job(request, this.logger, (ended) => {
      this.#jobs.delete(ended.id);
      // Not at once: the outcome's own listeners come first, and a queue is never changed from inside its callbacks.
      queueMicrotask(() => queue.release(ended));
    });
    this.#jobs.set(job.id, job);
    job.onStop = () => {
      queue.remove(job);
      job.cancelled();
    };
    // Listeners are never called before the caller has its handle.
    queueMicrotask(() => this.#enqueue(job));
    return job;
  }

  #enqueue(job: Job): void {
    if (job.ended) return;
    if (this.#closed !== undefined) {
      job.finish(
        failed('cancelled', 'The server is stopping and takes no new jobs.', {
          context: { reason: 'shutdown' },
          retryable: true,
        }),
      );
      return;
    }
    const { lane, devices } = job.request;
    const queue = this.#queues[lane];
    if (queue.add(job, lane === 'train' ? trainResources(devices) : [lane])) return;
    job.finish(
      failed('resource_exhausted', `Too many jobs are waiting (${queue.queued}).`, {
        context: { reason: 'queue_full', lane, queued: queue.queued },
        hint: 'Try again when some of them are done.',
      }),
    );
  }

  async #runOnHost(job: Job, key: HostKey): Promise<void> {
    job.onStop = () => job.cancelled();
    job.setState('starting');
    try {
      const host = await this.#supervisor.acquire(key);
      if (job.ended) return;
      if (host === undefined) job.cancelled('The server was stopped before the job began.');
      else host.run(job);
    } catch (error) {
      // The system refuses to start processes at all (memory, descriptors).
      this.logger.error({ err: error, job: job.id }, 'a compute host could not be started');
      const why = error instanceof Error ? error.message : String(error);
      const fields = { context: { reason: 'start_failed' }, retryable: true };
      job.finish(failed('resource_exhausted', `The compute host could not be started: ${why}`, fields));
    }
  }

  find(id: string): JobHandle | undefined {
    return this.#jobs.get(id);
  }

  devices(): Promise<{ gpus: DeviceInfo[]; reason: string | null }> {
    return this.#devices.get();
  }

  light<T>(fn: string, ...args: unknown[]): Promise<T> {
    return this.#light.call<T>(fn, args);
  }

  stats(): ReturnType<Compute['stats']> {
    const queues = Object.values(this.#queues);
    return {
      queued: queues.reduce((sum, queue) => sum + queue.queued, 0),
      running: queues.reduce((sum, queue) => sum + queue.running, 0),
      hosts: this.#supervisor.hosts.map((host) => ({ pid: host.pid, lane: host.lane, jobs: host.jobIds })),
      restarts: this.#supervisor.restarts,
    };
  }

  close(graceMs: number): Promise<void> {
    this.#closed ??= this.#close(graceMs);
    return this.#closed;
  }

  async #close(graceMs: number): Promise<void> {
    this.#supervisor.beginClose();
    for (const queue of Object.values(this.#queues)) {
      for (const job of queue.items()) {
        queue.remove(job);
        job.finish(
          failed('cancelled', 'The server was stopped while the job was waiting.', {
            context: { reason: 'shutdown' },
            retryable: true,
          }),
        );
      }
    }
    const running = [...this.#jobs.values()];
    const stopped = Promise.all(running.map((job) => job.stop()));
    // Most of the time is for checkpoints; the rest for those who need to be forced.
    await within(stopped, graceMs * 0.7);
    await Promise.all([this.#supervisor.close(graceMs * 0.1, graceMs * 0.1), this.#light.close(graceMs * 0.2)]);
    await within(stopped, graceMs * 0.05);
  }
}

/** Starts nothing yet: hosts, pool threads and the question about GPUs come with the first need. */
export function createCompute(
  config: Partial<ComputeConfig> & Pick<ComputeConfig, 'workspace'>,
  logger: Logger,
): Compute {
  return new ComputeLayer(computeConfig(config), logger);
}
