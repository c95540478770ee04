/** Keys in the database, and the order of ids. */
import { KINDS, type Kind, type NumberedKind } from '../domain/records.js';

/** Raised when the layout changes so that an older program must not touch it. */
export const FORMAT = 1;
export const FORMAT_KEY = '!format';

export const recordKey = (kind: Kind, id: string): string => `${kind}/${id}`;
export const counterKey = (kind: NumberedKind): string => `#${kind}`;
/** x is padded so that keys sort like numbers. */
export const curveKey = (tid: string, series: string, x: number): string =>
  `${tid}/${series}/${String(x).padStart(12, '0')}`;

const KIND_SET: ReadonlySet<string> = new Set(KINDS);

/** `task/T0001` → its parts; undefined for anything else. */
export function parseRecordKey(key: string): { kind: Kind; id: string } | undefined {
  const cut = key.indexOf('/');
  const kind = key.slice(0, cut);
  return cut > 0 && KIND_SET.has(kind) ? { kind: kind as Kind, id: key.slice(cut + 1) } : undefined;
}

/** `T9999` before `T10000`; ids of one kind share their prefix. */
export const compareIds = (a: string, b: string): number => a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);

export const formatId = (prefix: string, number: number): string => `${prefix}${String(number).padStart(4, '0')}`;

/** Exit codes of the probe that its parent tells apart from a crash. */
export const PROBE = { ok: 0, damaged: 3, newer: 4 } as const;
