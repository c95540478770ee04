/** Running imports: the job's stages as states of the dataset, and how it ended. */
import type { JobOutcome, SourceFormat } from '../compute/jobs.gen.js';
import { type DomainContext, explain, submitted } from './context.js';
import type { CopyProgress } from './contracts.js';
import { DatasetStatus } from './enums.js';
import { notFound } from './errors.js';
import type { DatasetCounts, DatasetRecord } from './records.js';
import type { Tx } from './repository.js';
import { next } from './states.js';

interface LiveImport {
  stage: string;
  done: number;
  total: number;
  /** Last percent told to listeners. */
  told: number;
  /** Set when somebody ended it. */
  reason: string | undefined;
  /** State changes in order. */
  changes: Promise<unknown>;
  ended: Promise<void>;
}

const jobId = (did: string): string => `${did}/import`;

/** The record inside a transaction. */
export function requireDataset(tx: Tx, did: string): DatasetRecord {
  const record = tx.get('dataset', did);
  if (record === undefined) throw notFound('dataset', did);
  return record;
}

export class DatasetImports {
  readonly #context: DomainContext;
  /** The content of a dataset is about to change, or has changed. */
  readonly #forget: (did: string) => void;
  readonly #live = new Map<string, LiveImport>();

  constructor(context: DomainContext, forget: (did: string) => void) {
    this.#context = context;
    this.#forget = forget;
  }

  message(record: DatasetRecord): string | CopyProgress {
    const live = this.#live.get(record.id);
    if (record.status === DatasetStatus.XCOPYING) {
      const percent = live === undefined || live.stage !== 'copying' ? 0 : fraction(live);
      return { pid: process.pid, percent };
    }
    if (record.status === DatasetStatus.XCHECKING && live !== undefined && live.total > 0) {
      return `Checked ${live.done} of ${live.total} files.`;
    }
    return record.message;
  }

  /** Changes with whatever `message` would answer. */
  progressRevision(): string {
    let sum = '';
    for (const [did, live] of this.#live) sum += `${did}:${live.done};`;
    return sum;
  }

  async cancel(did: string, reason: string): Promise<void> {
    const live = this.#live.get(did);
    if (live === undefined) return;
    live.reason = reason;
    await this.#context.compute.find(jobId(did))?.stop();
    await live.ended;
  }

  /** Ends running imports; they start again with the server. */
  async stopAll(reason: string): Promise<void> {
    await Promise.all([...this.#live.keys()].map((did) => this.cancel(did, reason)));
  }

  /** Marks the dataset XCHECKING; `run` follows the commit. */
  begin(tx: Tx, current: DatasetRecord, source: string, demo: boolean, format?: SourceFormat): DatasetRecord {
    const status = next('dataset', current.id, current.status, 'import') as DatasetRecord['status'];
    const { format: _before, ...rest } = current;
    const record: DatasetRecord = { ...rest, status, message: '', source, demo, ...(format ? { format } : {}) };
    tx.put('dataset', record);
    return record;
  }

  /** Submits the job of a dataset that is XCHECKING. Resolves when it has ended and its end is stored. */
  run(record: DatasetRecord): Promise<void> {
    const { compute, events } = this.#context;
    const { id, type, path, source, remote, format } = record;
    const live: LiveImport = {
      stage: 'checking',
      done: 0,
      total: 0,
      told: -1,
      reason: undefined,
      changes: Promise.resolve(),
      ended: Promise.resolve(),
    };
    this.#live.set(id, live);
    this.#forget(id);
    events.publish('dataset', { id, action: 'changed', status: record.status });
    const handle = submitted(compute, {
      id: jobId(id),
      lane: 'light',
      devices: [],
      spec: {
        kind: 'import',
        task_type: type,
        source: source ?? path,
        dest: path,
        threads: 0,
        ...(remote ? { remote } : {}),
        ...(format ? { format } : {}),
      },
      onEvent: (event) => {
        if (event.type !== 'progress') return;
        const copies = event.stage === 'copying' && live.stage !== 'copying';
        Object.assign(live, { stage: event.stage, done: event.done, total: event.total });
        if (copies) live.changes = live.changes.then(() => this.#checked(id)).catch(() => {});
        const percent = Math.floor(fraction(live) * 100);
        if (percent === live.told) return;
        live.told = percent;
        const status = live.stage === 'copying' ? DatasetStatus.XCOPYING : DatasetStatus.XCHECKING;
        events.publish('dataset', { id, action: 'changed', status, percent });
      },
    });
    live.ended = handle.outcome
      .then(async (outcome) => {
        await live.changes;
        await this.#ended(id, live, outcome);
      })
      .catch((error: unknown) =>
        this.#context.log.error({ err: error, did: id }, 'the end of an import was not stored'),
      )
      .finally(() => this.#live.delete(id));
    return live.ended;
  }

  async #checked(did: string): Promise<void> {
    const { store, events } = this.#context;
    await store.change((tx) => {
      const current = requireDataset(tx, did);
      const status = next('dataset', did, current.status, 'checked') as DatasetRecord['status'];
      tx.put('dataset', { ...current, status });
    });
    events.publish('dataset', { id: did, action: 'changed', status: DatasetStatus.XCOPYING });
  }

  async #ended(did: string, live: LiveImport, outcome: JobOutcome): Promise<void> {
    const { store, events, closing, log } = this.#context;
    const cancelled = outcome.type === 'failed' && outcome.code === 'cancelled';
    // Stays as it is: the next start goes on with it.
    if (cancelled && closing) return;
    // A small set may be done before its first report of copying.
    const copied = outcome.type === 'import' || (outcome.type === 'failed' && outcome.context.stage === 'copying');
    if (copied && store.get('dataset', did)?.status === DatasetStatus.XCHECKING) await this.#checked(did);
    const record = await store.change((tx) => {
      const current = requireDataset(tx, did);
      const changed = outcome.type === 'import' ? imported(current, outcome) : failed(current, outcome, live.reason);
      tx.put('dataset', changed);
      return changed;
    });
    if (outcome.type === 'failed') log.info({ did, code: outcome.code }, 'an import failed');
    this.#forget(did);
    events.publish('dataset', { id: did, action: 'changed', status: record.status });
  }
}

const fraction = ({ done, total }: { done: number; total: number }): number =>
  total > 0 ? Math.min(1, Math.round((done / total) * 10_000) / 10_000) : 0;

function imported(current: DatasetRecord, outcome: Extract<JobOutcome, { type: 'import' }>): DatasetRecord {
  const status = next('dataset', current.id, current.status, outcome.split ? 'copiedSplit' : 'copied');
  return {
    ...current,
    status: status as DatasetRecord['status'],
    message: outcome.warnings.join('\n'),
    counts: countsOf(outcome.details),
    content: current.content + 1,
  };
}

function failed(current: DatasetRecord, outcome: JobOutcome, reason: string | undefined): DatasetRecord {
  const status = next('dataset', current.id, current.status, 'failed') as DatasetRecord['status'];
  if (outcome.type !== 'failed') return { ...current, status, message: 'The import ended without a result.' };
  if (reason !== undefined && outcome.code === 'cancelled') return { ...current, status, message: reason };
  // The message already lists every problem, a line each.
  return { ...current, status, message: explain(outcome) };
}

/** File lists may come as lists or as their lengths. */
function countsOf(details: Readonly<Record<string, unknown>>): DatasetCounts {
  const size = (value: unknown): number => (Array.isArray(value) ? value.length : Number(value ?? 0));
  const { labels, train_files, val_files, test_files } = details;
  return { labels: size(labels), train: size(train_files), val: size(val_files), test: size(test_files) };
}
