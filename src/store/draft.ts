/** Uncommitted changes on top of the committed records. */
import { type CurvePoint, ID_PREFIX, type Kind, type Kinds, type NumberedKind } from '../domain/records.js';
import type { Tx } from '../domain/repository.js';
import { compareIds, formatId, recordKey } from './keys.js';

export type AnyRecord = Kinds[Kind];

/** The committed state that drafts read through. */
export interface Base {
  get(kind: Kind, id: string): AnyRecord | undefined;
  list(kind: Kind): readonly AnyRecord[];
  counter(kind: NumberedKind): number;
  /** Whether a folder of a record with this id is already on disk (left by another program). */
  isTaken(kind: NumberedKind, id: string): boolean;
}

export type CurveChange =
  | { kind: 'clear'; tid: string }
  | { kind: 'cut'; tid: string; from: { train: number; eval: number } }
  | { kind: 'add'; tid: string; points: readonly CurvePoint[] };

interface Change {
  kind: Kind;
  id: string;
  /** null = removed. */
  record: AnyRecord | null;
}

/** Changes of several units of work; each unit is kept or undone as a whole. */
export class Draft implements Tx {
  readonly #base: Base;
  readonly changes = new Map<string, Change>();
  readonly counters = new Map<NumberedKind, number>();
  readonly curves: CurveChange[] = [];

  constructor(base: Base) {
    this.#base = base;
  }

  get isEmpty(): boolean {
    return this.changes.size === 0 && this.counters.size === 0 && this.curves.length === 0;
  }

  /** Runs one unit of work on this draft; when it throws, nothing of it stays. */
  unit<T>(work: (tx: Tx) => T): T {
    const changes = new Map(this.changes);
    const counters = new Map(this.counters);
    const curves = this.curves.length;
    try {
      const value = work(this);
      if (typeof (value as { then?: unknown } | null)?.then === 'function') {
        throw new TypeError('a unit of work must be synchronous');
      }
      return value;
    } catch (error) {
      restore(this.changes, changes);
      restore(this.counters, counters);
      this.curves.length = curves;
      throw error;
    }
  }

  get<K extends Kind>(kind: K, id: string): Kinds[K] | undefined {
    const change = this.changes.get(recordKey(kind, id));
    if (change === undefined) return this.#base.get(kind, id) as Kinds[K] | undefined;
    return (change.record ?? undefined) as Kinds[K] | undefined;
  }

  list<K extends Kind>(kind: K): Kinds[K][] {
    const own = [...this.changes.values()].filter((change) => change.kind === kind);
    const committed = this.#base.list(kind) as readonly Kinds[K][];
    if (own.length === 0) return [...committed];
    const touched = new Set(own.map((change) => change.id));
    const added = own.flatMap((change) => (change.record === null ? [] : [change.record as Kinds[K]]));
    return [...committed.filter((record) => !touched.has(record.id)), ...added].sort((a, b) => compareIds(a.id, b.id));
  }

  put<K extends Kind>(kind: K, record: Kinds[K]): void {
    if (typeof record.id !== 'string' || record.id === '') throw new TypeError(`a ${kind} record needs an id`);
    this.changes.set(recordKey(kind, record.id), { kind, id: record.id, record });
  }

  remove(kind: Kind, id: string): void {
    this.changes.set(recordKey(kind, id), { kind, id, record: null });
  }

  nextId(kind: NumberedKind): string {
    let number = this.#counter(kind);
    let id: string;
    do id = formatId(ID_PREFIX[kind], ++number);
    while (this.get(kind, id) !== undefined || this.#base.isTaken(kind, id));
    this.counters.set(kind, number);
    return id;
  }

  reserveIds(kind: NumberedKind, upTo: number): void {
    if (!Number.isSafeInteger(upTo) || upTo < 0) throw new RangeError(`${upTo} is no counter value`);
    if (upTo > this.#counter(kind)) this.counters.set(kind, upTo);
  }

  addCurve(tid: string, points: readonly CurvePoint[]): void {
    if (points.length > 0) this.curves.push({ kind: 'add', tid, points });
  }

  clearCurve(tid: string): void {
    this.curves.push({ kind: 'clear', tid });
  }

  cutCurve(tid: string, from: { train: number; eval: number }): void {
    this.curves.push({ kind: 'cut', tid, from });
  }

  #counter(kind: NumberedKind): number {
    return this.counters.get(kind) ?? this.#base.counter(kind);
  }
}

function restore<K, V>(map: Map<K, V>, saved: Map<K, V>): void {
  map.clear();
  for (const [key, value] of saved) map.set(key, value);
}
