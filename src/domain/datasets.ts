/** Datasets: creation, import, split, details, deletion. */
import { mkdirSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { JobOutcome } from '../compute/jobs.gen.js';
import { checkText, type DomainContext, explain, Locks, requireClassification, shown, submitted } from './context.js';
import type { CopyProgress, DatasetDetails, DatasetsApi, NewDataset } from './contracts.js';
import { DetailsCache } from './details-cache.js';
import { DatasetStatus } from './enums.js';
import { conflict, invalidArgument, notFound } from './errors.js';
import type { DatasetCounts, DatasetRecord } from './records.js';
import type { Tx } from './repository.js';
import { IN_TRAINING, next, stateName } from './states.js';
import { localTime } from './time.js';
import type { Trash } from './trash.js';

/** What the light addon answers to a split. */
interface SplitCounts {
  labels: number;
  train: number;
  val: number;
  test: number;
}

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
const isImporting = (status: number): boolean =>
  status === DatasetStatus.XCHECKING || status === DatasetStatus.XCOPYING;
const isImported = (status: number): boolean => status === DatasetStatus.XCOPYDONE || status === DatasetStatus.XSPLITED;

export class Datasets implements DatasetsApi {
  readonly #context: DomainContext;
  readonly #trash: Trash;
  readonly #details = new DetailsCache();
  readonly #locks = new Locks();
  readonly #live = new Map<string, LiveImport>();

  constructor(context: DomainContext, trash: Trash) {
    this.#context = context;
    this.#trash = trash;
  }

  get(did: string): DatasetRecord {
    const record = this.#context.store.get('dataset', did);
    if (record === undefined) throw notFound('dataset', did);
    return record;
  }

  list(): readonly DatasetRecord[] {
    return this.#context.store.list('dataset');
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

  projectsOf(did: string): string[] {
    return this.#context.store
      .list('project')
      .filter((project) => project.did === did)
      .map((project) => project.id);
  }

  async create({ name, desc, type, remote }: NewDataset): Promise<DatasetRecord> {
    checkText('name', name);
    checkText('desc', desc);
    const { store, events, config } = this.#context;
    const record = await store.change((tx) => {
      const id = tx.nextId('dataset');
      const path = join(config.workspace, 'datasets', id);
      const created: DatasetRecord = {
        id,
        name,
        desc,
        type,
        ...(remote ? { remote } : {}),
        path,
        create_time: localTime(),
        status: DatasetStatus.XEMPTY,
        message: '',
        source: null,
        demo: false,
        counts: null,
        content: 0,
      };
      tx.put('dataset', created);
      mkdirSync(path, { recursive: true });
      return created;
    });
    events.publish('dataset', { id: record.id, action: 'created', status: record.status });
    return record;
  }

  async import(did: string, path: string, options: { demo?: boolean } = {}): Promise<{ done: Promise<void> }> {
    const { type } = this.get(did);
    requireClassification(type, 'Importing datasets');
    const source = await this.#context.paths.resolveFolder(path, { field: 'path' });
    await this.#context.requireSpace();
    return this.#locks.run(did, async () => {
      const record = await this.#context.store.change((tx) => {
        const current = this.#require(tx, did);
        this.#refuseWhileTraining(tx, did, 'imported again');
        return this.#begin(tx, current, source, options.demo === true);
      });
      return { done: this.#run(record) };
    });
  }

  async cancelImport(did: string, reason: string): Promise<void> {
    const live = this.#live.get(did);
    if (live === undefined) return;
    live.reason = reason;
    await this.#context.compute.find(jobId(did))?.stop();
    await live.ended;
  }

  async split(did: string, val: number, test: number, seed?: number): Promise<void> {
    const given = this.get(did);
    requireClassification(given.type, 'Splitting datasets');
    checkFractions(val, test);
    await this.#locks.run(did, async () => {
      const { store, compute, events } = this.#context;
      const before = this.get(did);
      next('dataset', did, before.status, 'split');
      await store.change((tx) => this.#refuseWhileTraining(tx, did, 'split again'));
      const answer = await compute.light<unknown>('splitDataset', before.path, val, test, seed ?? null);
      const counts = readCounts(answer);
      const record = await store.change((tx) => {
        const current = this.#require(tx, did);
        const status = next('dataset', did, current.status, 'split') as DatasetRecord['status'];
        const changed = { ...current, status, message: '', counts, content: current.content + 1 };
        tx.put('dataset', changed);
        return changed;
      });
      this.#details.forget(did);
      events.publish('dataset', { id: did, action: 'changed', status: record.status });
    });
  }

  async details(did: string): Promise<DatasetDetails | null> {
    const record = this.get(did);
    if (!isImported(record.status)) return null;
    const details = await this.#details.details(record);
    if (details === null) await this.#importAgain(record);
    return details;
  }

  async detailsJson(did: string): Promise<Buffer | null> {
    const record = this.get(did);
    if (!isImported(record.status)) return null;
    const json = await this.#details.json(record);
    if (json === null) await this.#importAgain(record);
    return json;
  }

  /** Class names in order of their ids, from the folder's `labels.txt` or the statistics. */
  async labels(did: string): Promise<string[]> {
    const record = this.get(did);
    const text = await readFile(join(record.path, 'labels.txt'), 'utf8').catch(() => null);
    if (text !== null) return text.split(/\r?\n/).filter((line) => line !== '');
    return (await this.#details.details(record))?.labels ?? [];
  }

  async delete(did: string, options: { force?: boolean } = {}): Promise<void> {
    this.get(did);
    if (options.force === true) await this.cancelImport(did, 'The dataset was deleted.');
    await this.#locks.run(did, async () => {
      const { store, events } = this.#context;
      await store.change((tx) => {
        const record = this.#require(tx, did);
        const bound = tx.list('project').filter((project) => project.did === did);
        if (bound.length > 0) {
          const which = bound.map((project) => project.id).slice(0, 10);
          throw conflict(
            'bound',
            `${did} is used by ${bound.length} project${bound.length === 1 ? '' : 's'} (${which.join(', ')}).`,
            'Delete these projects first.',
          );
        }
        if (isImporting(record.status)) {
          const state = stateName('dataset', record.status);
          throw conflict(state, `${did} is being imported.`, 'Wait until it is done, or send "force": true.');
        }
        tx.remove('dataset', did);
        this.#trash.discard(tx, record.path);
      });
      this.#details.forget(did);
      events.publish('dataset', { id: did, action: 'deleted' });
      await this.#trash.sweep();
    });
  }

  /** After a crash: imports start again from where they came, or fail with a reason. */
  async recover(): Promise<void> {
    for (const record of this.list()) {
      if (!isImporting(record.status)) continue;
      const { id, source } = record;
      const there =
        source !== null &&
        (await stat(source).then(
          (stats) => stats.isDirectory(),
          () => false,
        ));
      const restarted = await this.#context.store.change((tx) => {
        const current = this.#require(tx, id);
        const failed: DatasetRecord = {
          ...current,
          status: next('dataset', id, current.status, 'failed') as DatasetRecord['status'],
          message:
            'The server ended during the import, and the source folder is no longer there. Import the dataset again.',
        };
        if (there) return this.#begin(tx, failed, source, current.demo);
        tx.put('dataset', failed);
        return undefined;
      });
      if (restarted !== undefined) void this.#run(restarted);
    }
  }

  /** Ends running imports; they start again with the server. */
  async stopAll(reason: string): Promise<void> {
    await Promise.all([...this.#live.keys()].map((did) => this.cancelImport(did, reason)));
  }

  #require(tx: Tx, did: string): DatasetRecord {
    const record = tx.get('dataset', did);
    if (record === undefined) throw notFound('dataset', did);
    return record;
  }

  #refuseWhileTraining(tx: Tx, did: string, what: string): void {
    const bound = new Set(
      tx
        .list('project')
        .filter((project) => project.did === did)
        .map((project) => project.id),
    );
    if (bound.size === 0) return;
    const busy = tx.list('task').find((task) => bound.has(task.pid) && IN_TRAINING.includes(task.status));
    if (busy === undefined) return;
    throw conflict(
      stateName('task', busy.status),
      `${did} cannot be ${what} while ${busy.id} trains on it.`,
      'Stop that task first.',
    );
  }

  #begin(tx: Tx, current: DatasetRecord, source: string, demo: boolean): DatasetRecord {
    const status = next('dataset', current.id, current.status, 'import') as DatasetRecord['status'];
    const record = { ...current, status, message: '', source, demo };
    tx.put('dataset', record);
    return record;
  }

  /** Submits the job of a dataset that is XCHECKING. Resolves when it has ended and its end is stored. */
  #run(record: DatasetRecord): Promise<void> {
    const { compute, events } = this.#context;
    const { id, type, path, source } = record;
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
    this.#details.forget(id);
    events.publish('dataset', { id, action: 'changed', status: record.status });
    const handle = submitted(compute, {
      id: jobId(id),
      lane: 'light',
      devices: [],
      spec: { kind: 'import', task_type: type, source: source ?? path, dest: path, threads: 0 },
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
      const current = this.#require(tx, did);
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
    if (copied && this.get(did).status === DatasetStatus.XCHECKING) await this.#checked(did);
    const record = await store.change((tx) => {
      const current = this.#require(tx, did);
      const changed = outcome.type === 'import' ? imported(current, outcome) : failed(current, outcome, live.reason);
      tx.put('dataset', changed);
      return changed;
    });
    if (outcome.type === 'failed') log.info({ did, code: outcome.code }, 'an import failed');
    this.#details.forget(did);
    events.publish('dataset', { id: did, action: 'changed', status: record.status });
  }

  /** The statistics are lost though the data is there: reads the folder anew. */
  async #importAgain(record: DatasetRecord): Promise<void> {
    if (record.type !== 'classification') return;
    const { log } = this.#context;
    log.warn({ did: record.id }, 'the statistics of a dataset are missing; its folder is read again');
    try {
      await this.#locks.run(record.id, async () => {
        const begun = await this.#context.store.change((tx) => {
          const current = this.#require(tx, record.id);
          if (current.content !== record.content || !isImported(current.status)) return undefined;
          this.#refuseWhileTraining(tx, record.id, 'read again');
          return this.#begin(tx, current, current.path, false);
        });
        if (begun !== undefined) void this.#run(begun);
      });
    } catch (error) {
      log.warn(shown(error, log, 'a dataset could not be read again'), 'a dataset could not be read again');
    }
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

function readCounts(answer: unknown): DatasetCounts {
  const counts = (typeof answer === 'string' ? JSON.parse(answer) : answer) as SplitCounts;
  return { labels: counts.labels, train: counts.train, val: counts.val, test: counts.test };
}

function checkFractions(val: number, test: number): void {
  for (const [field, value] of [
    ['val_split', val],
    ['test_split', test],
  ] as const) {
    if (!Number.isFinite(value) || value < 0 || value >= 1) {
      throw invalidArgument(field, `${field} must be a fraction from 0 to below 1 (0.2 is 20 percent), not ${value}.`);
    }
  }
  if (val <= 0) throw invalidArgument('val_split', 'val_split must be greater than 0.');
  if (val + test >= 1) {
    throw invalidArgument(
      'val_split',
      'val_split and test_split together must be less than 1: training needs files too.',
    );
  }
}
