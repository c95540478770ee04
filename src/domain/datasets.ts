/** Datasets: creation, import, split, details, deletion. */
import { mkdirSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { SourceFormat } from '../compute/jobs.gen.js';
import { checkText, type DomainContext, Locks, shown } from './context.js';
import type {
  CopyProgress,
  DatasetDetails,
  DatasetsApi,
  ImportOptions,
  NewDataset,
  PreviewOptions,
} from './contracts.js';
import { DatasetImports, requireDataset } from './dataset-imports.js';
import { DetailsCache } from './details-cache.js';
import { DatasetStatus, type ProjectType, TaskStatus } from './enums.js';
import { conflict, invalidArgument, notFound, notReady } from './errors.js';
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

const isImporting = (status: number): boolean =>
  status === DatasetStatus.XCHECKING || status === DatasetStatus.XCOPYING;
const isImported = (status: number): boolean => status === DatasetStatus.XCOPYDONE || status === DatasetStatus.XSPLITED;

export class Datasets implements DatasetsApi {
  readonly #context: DomainContext;
  readonly #trash: Trash;
  readonly #details = new DetailsCache();
  readonly #locks = new Locks();
  readonly #imports: DatasetImports;

  constructor(context: DomainContext, trash: Trash) {
    this.#context = context;
    this.#trash = trash;
    this.#imports = new DatasetImports(context, (did) => this.#details.forget(did));
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
    return this.#imports.message(record);
  }

  progressRevision(): string {
    return this.#imports.progressRevision();
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

  async import(did: string, path: string, options: ImportOptions = {}): Promise<{ done: Promise<void> }> {
    const { type } = this.get(did);
    checkFormat(type, options.format);
    const source = await this.#context.paths.resolveFolder(path, { field: 'path' });
    await this.#context.requireSpace();
    return this.#locks.run(did, async () => {
      const record = await this.#context.store.change((tx) => {
        const current = requireDataset(tx, did);
        this.#refuseWhileTraining(tx, did, 'imported again');
        return this.#imports.begin(tx, current, source, options.demo === true, options.format);
      });
      return { done: this.#imports.run(record) };
    });
  }

  cancelImport(did: string, reason: string): Promise<void> {
    return this.#imports.cancel(did, reason);
  }

  async split(did: string, val: number, test: number, seed?: number): Promise<void> {
    this.get(did);
    checkFractions(val, test);
    await this.#locks.run(did, async () => {
      const { store, compute, events } = this.#context;
      const before = this.get(did);
      next('dataset', did, before.status, 'split');
      await store.change((tx) => this.#refuseWhileTraining(tx, did, 'split again'));
      const { path, type, remote } = before;
      const answer = await compute.light<unknown>('splitDataset', path, type, remote === true, val, test, seed ?? null);
      const counts = readCounts(answer);
      const record = await store.change((tx) => {
        const current = requireDataset(tx, did);
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

  async preview(did: string, path: string, options: PreviewOptions): Promise<Buffer> {
    const record = this.get(did);
    if (!isImported(record.status)) throw notReady(`${did} is not imported yet.`, 'Import it first (PUT /dataset).');
    const json = JSON.stringify(options);
    return Buffer.from(
      await this.#context.compute.light<Uint8Array>('drawLabels', record.path, record.type, path, json),
    );
  }

  annotation(path: string): Promise<string> {
    return this.#context.compute.light<string>('readAnnotation', path);
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
        const record = requireDataset(tx, did);
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
        const current = requireDataset(tx, id);
        const failed: DatasetRecord = {
          ...current,
          status: next('dataset', id, current.status, 'failed') as DatasetRecord['status'],
          message:
            'The server ended during the import, and the source folder is no longer there. Import the dataset again.',
        };
        if (there) return this.#imports.begin(tx, failed, source, current.demo, current.format);
        tx.put('dataset', failed);
        return undefined;
      });
      if (restarted !== undefined) void this.#imports.run(restarted);
    }
  }

  /** Ends running imports; they start again with the server. */
  stopAll(reason: string): Promise<void> {
    return this.#imports.stopAll(reason);
  }

  #refuseWhileTraining(tx: Tx, did: string, what: string): void {
    const bound = new Set(
      tx
        .list('project')
        .filter((project) => project.did === did)
        .map((project) => project.id),
    );
    if (bound.size === 0) return;
    const reading = [...IN_TRAINING, TaskStatus.XPRUNEING];
    const busy = tx.list('task').find((task) => bound.has(task.pid) && reading.includes(task.status));
    if (busy === undefined) return;
    const does = busy.status === TaskStatus.XPRUNEING ? 'is analysed with it' : 'trains on it';
    throw conflict(
      stateName('task', busy.status),
      `${did} cannot be ${what} while ${busy.id} ${does}.`,
      'Stop that task first.',
    );
  }

  /** The statistics are lost though the data is there: reads the folder anew. */
  async #importAgain(record: DatasetRecord): Promise<void> {
    const { log } = this.#context;
    log.warn({ did: record.id }, 'the statistics of a dataset are missing; its folder is read again');
    try {
      await this.#locks.run(record.id, async () => {
        const begun = await this.#context.store.change((tx) => {
          const current = requireDataset(tx, record.id);
          if (current.content !== record.content || !isImported(current.status)) return undefined;
          this.#refuseWhileTraining(tx, record.id, 'read again');
          return this.#imports.begin(tx, current, current.path, false);
        });
        if (begun !== undefined) void this.#imports.run(begun);
      });
    } catch (error) {
      log.warn(shown(error, log, 'a dataset could not be read again'), 'a dataset could not be read again');
    }
  }
}

function readCounts(answer: unknown): DatasetCounts {
  const counts = (typeof answer === 'string' ? JSON.parse(answer) : answer) as SplitCounts;
  return { labels: counts.labels, train: counts.train, val: counts.val, test: counts.test };
}

/** Class folders have no annotations that could be converted. */
function checkFormat(type: ProjectType, format: SourceFormat | undefined): void {
  if (format === undefined || format === 'native' || type !== 'classification') return;
  throw invalidArgument(
    'format',
    `A classification dataset cannot be made of ${format} annotations; it needs a folder of pictures per class.`,
  );
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
