/** The store as the domain sees it. */
import type { CurvePoint, Kind, Kinds, NumberedKind } from './records.js';

/** View and changes of one transaction; everything in it happens or nothing does. */
export interface Tx {
  get<K extends Kind>(kind: K, id: string): Kinds[K] | undefined;
  /** In order of id. */
  list<K extends Kind>(kind: K): Kinds[K][];
  put<K extends Kind>(kind: K, record: Kinds[K]): void;
  remove(kind: Kind, id: string): void;
  /** Next id of that kind. Never given twice; only used up when the transaction commits. */
  nextId(kind: NumberedKind): string;
  /** Raises a counter so that ids up to this number are never given (adopting foreign records). */
  reserveIds(kind: NumberedKind, upTo: number): void;
  /** Adds to a task's curves; long series are thinned. */
  addCurve(tid: string, points: readonly CurvePoint[]): void;
  clearCurve(tid: string): void;
  /** Forgets points at and after these: a resumed training draws them anew. */
  cutCurve(tid: string, from: { train: number; eval: number }): void;
}

export interface Repository {
  /** The committed record; answered from memory. */
  get<K extends Kind>(kind: K, id: string): Kinds[K] | undefined;
  /** Committed records in order of id; the same array until one of them changes. */
  list<K extends Kind>(kind: K): readonly Kinds[K][];
  /** Changes whenever a record of one of these kinds does. */
  revision(...kinds: Kind[]): string;
  /**
   * Runs `work` (synchronous, no side effects that matter when it is refused) as one transaction. Resolves when its
   * changes are on disk, to what `work` returned. When `work` throws nothing changes and the promise rejects with that.
   */
  change<T>(work: (tx: Tx) => T): Promise<T>;
  /** A task's curves, in order of series and x. */
  curve(tid: string): CurvePoint[];
}
