/**
 * The store: LMDB is the truth, memory answers reads. Only this process writes, so what memory holds is what is on disk:
 * a change is worked out on a draft, written in one transaction, synced, and only then shown to readers.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Database, open, type RootDatabase } from 'lmdb';
import { OarlockError } from '../domain/errors.js';
import { type CurvePoint, ID_PREFIX, KINDS, type Kind, type Kinds, type NumberedKind } from '../domain/records.js';
import type { Repository, Tx } from '../domain/repository.js';
import { decode, encode } from './codec.js';
import { type AnyRecord, type Base, type CurveChange, Draft } from './draft.js';
import { compareIds, counterKey, curveKey, FORMAT, FORMAT_KEY, parseRecordKey } from './keys.js';

/** Points a series keeps; twice as many are thinned to every other one. */
const CURVE_POINTS = 2000;
/** Units of work written in one transaction at most. */
const BATCH = 256;

interface Pending {
  work: (tx: Tx) => unknown;
  resolve: (value: unknown) => void;
  reject: (error: unknown) => void;
}

interface Loaded {
  records: Map<Kind, Map<string, AnyRecord>>;
  counters: Map<NumberedKind, number>;
}

/** Options that the server and the probe share, so that the probe meets what the server would. */
export const openDatabase = (path: string): RootDatabase<string, string> =>
  open<string, string>({
    path,
    noSubdir: true,
    encoding: 'string',
    maxDbs: 4,
    // A commit is then synced before it is reported, data before the page that points to it.
    overlappingSync: false,
    cache: false,
  });

export const CURVES = { name: 'curves', encoding: 'string' } as const;

/** Reads everything; throws at the first damaged record and for databases of a newer program. */
export function loadAll(db: RootDatabase<string, string>): Loaded {
  const records = new Map<Kind, Map<string, AnyRecord>>(KINDS.map((kind) => [kind, new Map()]));
  const counters = new Map<NumberedKind, number>();
  for (const { key, value } of db.getRange({})) {
    if (key === CURVES.name) continue; // the entry that leads to the other database
    const content = decode(key, value);
    if (key === FORMAT_KEY) {
      if ((content as number) > FORMAT) throw new NewerFormatError(content as number);
      continue;
    }
    const counter = (Object.keys(ID_PREFIX) as NumberedKind[]).find((kind) => counterKey(kind) === key);
    if (counter !== undefined) {
      counters.set(counter, content as number);
      continue;
    }
    const name = parseRecordKey(key);
    if (name !== undefined) records.get(name.kind)?.set(name.id, content as AnyRecord);
  }
  return { records, counters };
}

export class NewerFormatError extends Error {
  constructor(format: number) {
    super(`The workspace's database was written by a newer version (format ${format}; this one knows ${FORMAT}).`);
    this.name = 'NewerFormatError';
  }
}

export interface StoreOptions {
  /** Workspace folder, where folders named like ids make those ids unusable. */
  workspace?: string;
}

const FOLDERS: Partial<Record<NumberedKind, string>> = {
  dataset: 'datasets',
  project: 'projects',
  pretrained: 'pretrain',
};

export class Store implements Repository {
  readonly #db: RootDatabase<string, string>;
  readonly #curves: Database<string, string>;
  readonly #records: Loaded['records'];
  readonly #counters: Loaded['counters'];
  readonly #lists = new Map<Kind, readonly AnyRecord[]>();
  readonly #revisions = new Map<Kind, number>(KINDS.map((kind) => [kind, 0]));
  readonly #curveSizes = new Map<string, number>();
  readonly #base: Base;
  #queue: Pending[] = [];
  #pumping: Promise<void> | undefined;
  #closed = false;
  /** Committed transactions since opening; tells whether a backup is due. */
  commits = 0;

  /** Opens a database that is known to be readable; see `openStore` for the careful way. */
  constructor(path: string, options: StoreOptions = {}) {
    this.#db = openDatabase(path);
    this.#curves = this.#db.openDB<string, string>(CURVES);
    ({ records: this.#records, counters: this.#counters } = loadAll(this.#db));
    const workspace = options.workspace;
    this.#base = {
      get: (kind, id) => this.#records.get(kind)?.get(id),
      list: (kind) => this.list(kind),
      counter: (kind) => this.#counters.get(kind) ?? 0,
      isTaken: (kind, id) => {
        const folder = FOLDERS[kind];
        return workspace !== undefined && folder !== undefined && existsSync(join(workspace, folder, id));
      },
    };
  }

  get<K extends Kind>(kind: K, id: string): Kinds[K] | undefined {
    return this.#records.get(kind)?.get(id) as Kinds[K] | undefined;
  }

  list<K extends Kind>(kind: K): readonly Kinds[K][] {
    let list = this.#lists.get(kind);
    if (list === undefined) {
      list = [...(this.#records.get(kind)?.values() ?? [])].sort((a, b) => compareIds(a.id, b.id));
      this.#lists.set(kind, list);
    }
    return list as readonly Kinds[K][];
  }

  revision(...kinds: Kind[]): string {
    if (kinds.length === 1) return String(this.#revisions.get(kinds[0] as Kind));
    return kinds.map((kind) => this.#revisions.get(kind)).join('.');
  }

  change<T>(work: (tx: Tx) => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#closed) {
        reject(new OarlockError('not_ready', 'The server is shutting down.', { retryable: true }));
        return;
      }
      this.#queue.push({ work, resolve: resolve as (value: unknown) => void, reject });
      this.#pumping ??= this.#pump();
    });
  }

  curve(tid: string): CurvePoint[] {
    const points: CurvePoint[] = [];
    for (const { key, value } of this.#curves.getRange({ start: `${tid}/`, end: `${tid}0` })) {
      points.push(decode(key, value) as CurvePoint);
    }
    return points;
  }

  /** A consistent copy in one file. */
  async backup(path: string): Promise<void> {
    await this.#db.backup(path, true);
  }

  /** Waits for queued changes, then closes. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#pumping;
    await this.#db.close();
  }

  async #pump(): Promise<void> {
    // Let everything that is asked for in this turn share one transaction.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      const batch = this.#queue.splice(0, BATCH);
      const draft = new Draft(this.#base);
      const done: [Pending, unknown][] = [];
      for (const pending of batch) {
        try {
          done.push([pending, draft.unit(pending.work)]);
        } catch (error) {
          pending.reject(error);
        }
      }
      try {
        if (!draft.isEmpty) await this.#commit(draft);
      } catch (error) {
        const refused = commitError(error);
        for (const [pending] of done) pending.reject(refused);
        continue;
      }
      this.#publish(draft);
      for (const [pending, value] of done) pending.resolve(value);
    }
    this.#pumping = undefined;
  }

  async #commit(draft: Draft): Promise<void> {
    // Encoded before the transaction, so that nothing in it can throw halfway.
    const puts: [string, string][] = [[FORMAT_KEY, encode(FORMAT_KEY, FORMAT)]];
    const removals: string[] = [];
    for (const [key, { record }] of draft.changes) {
      if (record === null) removals.push(key);
      else puts.push([key, encode(key, record)]);
    }
    for (const [kind, number] of draft.counters) puts.push([counterKey(kind), encode(counterKey(kind), number)]);
    const curves = this.#curveWrites(draft.curves);
    const written = this.#db.batch(() => {
      for (const [key, text] of puts) quietly(this.#db.put(key, text));
      for (const key of removals) quietly(this.#db.remove(key));
      for (const [key, text] of curves) {
        if (text === null) quietly(this.#curves.remove(key));
        else quietly(this.#curves.put(key, text));
      }
    });
    try {
      await written;
      await this.#db.flushed;
    } catch (error) {
      this.#curveSizes.clear();
      throw error;
    }
    this.commits++;
  }

  #publish(draft: Draft): void {
    for (const { kind, id, record } of draft.changes.values()) {
      const records = this.#records.get(kind);
      if (record === null) records?.delete(id);
      else records?.set(id, record);
      this.#lists.delete(kind);
      this.#revisions.set(kind, (this.#revisions.get(kind) ?? 0) + 1);
    }
    for (const [kind, number] of draft.counters) this.#counters.set(kind, number);
  }

  /** Keys with their new text, null = removed. */
  #curveWrites(changes: readonly CurveChange[]): Map<string, string | null> {
    const writes = new Map<string, string | null>();
    for (const change of changes) {
      const { tid } = change;
      if (change.kind !== 'add') {
        const from = change.kind === 'cut' ? change.from : { train: 0, eval: 0 };
        for (const series of ['train', 'eval'] as const)
          this.#dropCurve(`${tid}/${series}`, curveKey(tid, series, from[series]), writes);
        continue;
      }
      for (const point of change.points) {
        const key = curveKey(tid, point.series, point.x);
        if (!writes.has(key)) this.#grow(tid, point.series, writes);
        writes.set(key, encode(key, point));
      }
    }
    return writes;
  }

  /** Everything of a series from that key on. */
  #dropCurve(name: string, from: string, writes: Map<string, string | null>): void {
    for (const key of writes.keys()) if (key.startsWith(`${name}/`) && key >= from) writes.set(key, null);
    for (const key of this.#curveKeys(from, `${name}0`)) writes.set(key, null);
    this.#curveSizes.set(name, this.#curveKeys(`${name}/`, from).length);
  }

  #grow(tid: string, series: string, writes: Map<string, string | null>): void {
    const name = `${tid}/${series}`;
    const size = (this.#curveSizes.get(name) ?? this.#curveKeys(`${name}/`, `${name}0`).length) + 1;
    if (size <= 2 * CURVE_POINTS) {
      this.#curveSizes.set(name, size);
      return;
    }
    const keys = new Set(this.#curveKeys(`${name}/`, `${name}0`));
    for (const [key, text] of writes) {
      if (!key.startsWith(`${name}/`)) continue;
      if (text === null) keys.delete(key);
      else keys.add(key);
    }
    const sorted = [...keys].sort();
    const dropped = sorted.filter((_, at) => at % 2 === 1);
    for (const key of dropped) writes.set(key, null);
    this.#curveSizes.set(name, sorted.length - dropped.length + 1);
  }

  #curveKeys(start: string, end: string): string[] {
    return [...this.#curves.getKeys({ start, end })];
  }
}

/** Every single write of a batch has a promise of its own; the batch's tells enough. */
function quietly(write: Promise<unknown>): void {
  write.catch(() => {});
}

/** Why a transaction was not written, for the client. LMDB reports a full disk as a short write, so causes cannot be told apart. */
function commitError(error: unknown): OarlockError {
  // lmdb rejects this second promise too, and nobody else listens.
  (error as { commitError?: Promise<unknown> }).commitError?.catch(() => {});
  return new OarlockError(
    'resource_exhausted',
    'The change could not be saved: the disk is full or refuses to write.',
    {
      hint: 'Free some space on the disk of the workspace and try again.',
      cause: error,
    },
  );
}
