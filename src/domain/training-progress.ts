/** Live progress of one training: newest values in memory, stored at most once a second, evaluations and checkpoints at once. */
import type { JobEvent } from '../compute/jobs.gen.js';
import type { DomainContext } from './context.js';
import { pruningView } from './pruned-training.js';
import type { CurvePoint, MetricValues, TaskRecord, TrainingRecord } from './records.js';

const STORE_MS = 1000;
/** Between two published steps. */
const PUBLISH_MS = 250;
const MAX_NOTES = 100;
/** Curve points held between two writes; more are thinned. */
const MAX_PENDING = 4000;

type Step = Extract<JobEvent, { type: 'step' }>;

export const freshRecord = (
  id: string,
  numEpochs: number,
  mode: TrainingRecord['mode'],
  before?: TrainingRecord,
): TrainingRecord => ({
  id,
  mode,
  resumed_epoch: null,
  queued: true,
  device: null,
  precision: null,
  num_epochs: numEpochs,
  train_metrics: null,
  eval_metrics: null,
  eta: null,
  steps: null,
  images_per_second: null,
  data_wait_seconds: null,
  download_status: null,
  train_error: null,
  train_stage: null,
  running_seconds: null,
  epochs: {},
  best_epoch: null,
  best_metrics: null,
  pruning: null,
  notes: [],
  ...(before === undefined
    ? {}
    : {
        train_metrics: before.train_metrics,
        eval_metrics: before.eval_metrics,
        running_seconds: before.running_seconds,
        epochs: before.epochs,
        best_epoch: before.best_epoch,
        best_metrics: before.best_metrics,
        pruning: before.pruning ?? null,
        notes: before.notes,
      }),
});

export class TrainingProgress {
  readonly #context: DomainContext;
  readonly #task: TaskRecord;
  #record: TrainingRecord;
  readonly #earlierSeconds: number;
  #startedAt: number | undefined;
  #points: CurvePoint[] = [];
  /** Where this run's curves begin, once known and until stored: older points from there on are of an earlier run. */
  #cut: { train: number; eval: number } | undefined;
  #begun = false;
  #dirty = false;
  #timer: NodeJS.Timeout | undefined;
  #storing: Promise<void> = Promise.resolve();
  #publishedAt = 0;

  constructor(context: DomainContext, task: TaskRecord, record: TrainingRecord) {
    this.#context = context;
    this.#task = task;
    this.#record = record;
    this.#earlierSeconds = record.running_seconds ?? 0;
  }

  get record(): TrainingRecord {
    const { running_seconds } = this.#record;
    return this.#startedAt === undefined
      ? this.#record
      : { ...this.#record, running_seconds: this.#seconds() ?? running_seconds };
  }

  update(change: Partial<TrainingRecord>): void {
    this.#record = { ...this.#record, ...change };
    this.#touch();
  }

  note(...lines: string[]): void {
    const fresh = lines.filter((line) => line !== '' && this.#record.notes.at(-1) !== line);
    if (fresh.length > 0) this.update({ notes: [...this.#record.notes, ...fresh].slice(-MAX_NOTES) });
  }

  onEvent(event: JobEvent): void {
    switch (event.type) {
      case 'started':
        this.#startedAt ??= performance.now();
        this.update({ queued: false, device: event.device, precision: event.precision });
        this.note(...event.notes);
        return;
      case 'step':
        this.#startedAt ??= performance.now();
        this.#step(event);
        return;
      case 'eval':
        this.#eval(event.epoch, event.metrics);
        return;
      case 'saved':
        this.#saved(event.epoch, event.best);
        return;
      case 'pruned':
        this.#pruned(event);
        return;
      case 'warning':
        this.note(event.message);
        return;
      default:
        return;
    }
  }

  /** Stops the clock; the last values are stored by the caller together with the task's state. */
  async end(change: Partial<TrainingRecord>): Promise<{ record: TrainingRecord; points: CurvePoint[] }> {
    await this.#store();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#record = { ...this.#record, queued: false, eta: null, running_seconds: this.#seconds(), ...change };
    this.#startedAt = undefined;
    const points = this.#points;
    this.#points = [];
    return { record: this.#record, points };
  }

  #step(event: Step): void {
    const { epoch, step, steps, metrics } = event;
    this.#record = {
      ...this.#record,
      queued: false,
      num_epochs: event.num_epochs,
      train_metrics: { Epoch: epoch, Step: step, ...metrics },
      eta: event.eta,
      steps,
      images_per_second: event.images_per_second,
      data_wait_seconds: event.data_wait_seconds,
    };
    if (!this.#begun) {
      this.#begun = true;
      this.#cut = { train: (epoch - 1) * steps + step, eval: epoch };
    }
    if (this.#points.length < MAX_PENDING) {
      this.#points.push({ series: 'train', x: (epoch - 1) * steps + step, values: metrics, at: Date.now() });
    }
    this.#touch();
    const now = performance.now();
    if (now - this.#publishedAt < PUBLISH_MS && step !== steps) return;
    this.#publishedAt = now;
    const { eta, num_epochs, images_per_second, step_seconds, data_wait_seconds, cache_hit_rate = null } = event;
    const pace = { images_per_second, step_seconds, data_wait_seconds, cache_hit_rate };
    this.#context.events.publish('progress', {
      ...{ id: this.#task.id, epoch, num_epochs, step, steps, eta, metrics },
      ...pace,
    });
  }

  #eval(epoch: number, metrics: MetricValues): void {
    this.#points.push({ series: 'eval', x: epoch, values: metrics, at: Date.now() });
    this.update({ eval_metrics: { Epoch: epoch, ...metrics } });
    this.#context.events.publish('eval', { id: this.#task.id, epoch, metrics });
    void this.#store();
  }

  #saved(epoch: number, best: boolean): void {
    const { Epoch, ...metrics } = this.#record.eval_metrics ?? {};
    const known = Epoch === epoch ? metrics : {};
    this.update({
      epochs: { ...this.#record.epochs, [epoch]: known },
      ...(best ? { best_epoch: epoch, best_metrics: known } : {}),
    });
    void this.#store();
  }

  #pruned({ type: _, ...pruning }: Extract<JobEvent, { type: 'pruned' }>): void {
    this.update({ pruning });
    const { ratios, tolerance, ...sizes } = pruningView(pruning);
    this.#context.events.publish('pruned', { id: this.#task.id, ...sizes });
    void this.#store();
  }

  #seconds(): number | null {
    if (this.#startedAt === undefined) return this.#record.running_seconds;
    return this.#earlierSeconds + (performance.now() - this.#startedAt) / 1000;
  }

  #touch(): void {
    this.#dirty = true;
    this.#timer ??= setTimeout(() => void this.#store(), STORE_MS).unref();
  }

  #store(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#storing = this.#storing.then(async () => {
      if (!this.#dirty && this.#points.length === 0) return;
      this.#dirty = false;
      const points = this.#points;
      const cut = this.#cut;
      this.#points = [];
      this.#cut = undefined;
      const record = { ...this.#record, running_seconds: this.#seconds() };
      try {
        await this.#context.store.change((tx) => {
          // A task deleted meanwhile must not leave a record behind.
          if (tx.get('task', record.id) === undefined) return;
          tx.put('training', record);
          if (cut !== undefined) tx.cutCurve(record.id, cut);
          tx.addCurve(record.id, points);
        });
      } catch (error) {
        this.#context.log.warn({ err: error, tid: record.id }, 'training progress could not be stored');
      }
    });
    return this.#storing;
  }
}
