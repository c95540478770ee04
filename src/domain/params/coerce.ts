/**
 * Turns what clients send for one parameter into a value of the right type.
 * The PaddleX page sends texts, `"undefined"` for fields that it does not show, and lists as `"224,224"`; scripts send plain JSON.
 */
import { invalidArgument } from '../errors.js';

/** `NOT_GIVEN` stands for a key that the client left out or filled with a placeholder. */
export const NOT_GIVEN: unique symbol = Symbol('not given');
export type Given<T> = T | typeof NOT_GIVEN;

/** Texts that browsers and scripts send for "nothing". */
const PLACEHOLDERS = new Set(['', 'undefined', 'null', 'none', 'nan']);

const isPlaceholder = (value: unknown): boolean =>
  value === undefined ||
  value === null ||
  (typeof value === 'number' && Number.isNaN(value)) ||
  (typeof value === 'string' && PLACEHOLDERS.has(value.trim().toLowerCase()));

export interface NumberRange {
  min: number;
  max: number;
  /** True when `min` itself is refused. */
  above?: boolean;
}

function checkRange(field: string, value: number, range: NumberRange): number {
  const low = range.above ? value <= range.min : value < range.min;
  if (!Number.isFinite(value) || low || value > range.max) {
    const from = range.above ? `above ${range.min}` : `from ${range.min}`;
    const shown = Number.isFinite(value) ? value : 'an infinite value';
    throw invalidArgument(field, `${field} must be a number ${from} to ${range.max}, not ${shown}.`);
  }
  return value;
}

/** A finite number in `range`; numeric text is converted. */
export function toFloat(field: string, value: unknown, range: NumberRange): Given<number> {
  if (isPlaceholder(value)) return NOT_GIVEN;
  const text = typeof value === 'string' ? value.trim() : value;
  if (typeof text === 'number') return checkRange(field, text, range);
  // Number() also reads "0x10" and "Infinity"; only decimal notation is meant here.
  if (typeof text === 'string' && /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) {
    return checkRange(field, Number(text), range);
  }
  throw invalidArgument(field, `${field} must be a number, not ${show(value)}.`);
}

/** A whole number in `range`; `10.0` and `"10"` count as whole. */
export function toInt(field: string, value: unknown, range: NumberRange): Given<number> {
  const number = toFloat(field, value, range);
  if (number !== NOT_GIVEN && !Number.isSafeInteger(number)) {
    throw invalidArgument(field, `${field} must be a whole number, not ${show(value)}.`);
  }
  return number;
}

const TRUE = new Set(['true', 'on', 'yes', '1']);
const FALSE = new Set(['false', 'off', 'no', '0']);

/** A boolean; `"on"`, `"off"`, `"True"`, `1` and `0` are converted. */
export function toBoolean(field: string, value: unknown): Given<boolean> {
  if (isPlaceholder(value)) return NOT_GIVEN;
  if (typeof value === 'boolean') return value;
  // Objects are never turned into text: a client's `toString` key would make that throw.
  const word = typeof value === 'object' ? '' : String(value).trim().toLowerCase();
  if (TRUE.has(word)) return true;
  if (FALSE.has(word)) return false;
  throw invalidArgument(field, `${field} must be true or false, not ${show(value)}.`);
}

/** A list; text may be JSON (`"[1, 2]"`) or comma separated (`"224,224"`); a single value is a list of one. */
export function toList<T>(
  field: string,
  value: unknown,
  item: (field: string, value: unknown) => Given<T>,
  maxItems: number,
): Given<T[]> {
  if (isPlaceholder(value)) return NOT_GIVEN;
  const raw = Array.isArray(value) ? value : typeof value === 'string' ? splitList(field, value) : [value];
  if (raw.length > maxItems) {
    throw invalidArgument(field, `${field} has ${raw.length} values; at most ${maxItems} are possible.`);
  }
  const items = raw.map((entry) => item(field, entry));
  if (items.length > 0 && items.every((entry) => entry === NOT_GIVEN)) return NOT_GIVEN;
  if (items.includes(NOT_GIVEN)) throw invalidArgument(field, `${field} has an empty value: ${show(value)}.`);
  return items as T[];
}

function splitList(field: string, text: string): unknown[] {
  const inner = text.trim().replace(/^[[(]|[\])]$/g, '');
  if (inner.length > 10_000) throw invalidArgument(field, `${field} is too long.`);
  return inner.trim() === '' ? [] : inner.split(/[,;，]/).map((part) => part.trim());
}

/** Text up to `maxLength`; numbers become text, everything else is refused. */
export function toText(field: string, value: unknown, maxLength: number): Given<string> {
  if (value === undefined || value === null || value === 'undefined') return NOT_GIVEN;
  if (typeof value !== 'string' && typeof value !== 'number') {
    throw invalidArgument(field, `${field} must be text, not ${show(value)}.`);
  }
  const text = String(value).trim();
  if (text.length > maxLength || text.includes('\0')) {
    throw invalidArgument(field, `${field} must be text of at most ${maxLength} characters.`);
  }
  return text;
}

/** One of `words`, whatever its case. */
export function toWord(field: string, value: unknown, words: readonly string[]): Given<string> {
  const text = toText(field, value, 200);
  if (text === NOT_GIVEN || text === '') return NOT_GIVEN;
  const found = words.find((word) => word.toLowerCase() === text.toLowerCase());
  if (found === undefined) {
    throw invalidArgument(field, `${field} must be one of ${words.join(', ')}, not ${show(value)}.`);
  }
  return found;
}

/** CUDA ordinals as text, `""` for the CPU; a number or a list is written the same way: `"0, 1"`. */
export function toDevices(field: string, value: unknown): Given<string> {
  if (value === undefined || value === null || value === 'undefined') return NOT_GIVEN;
  const parts = Array.isArray(value) ? value : [value];
  if (parts.some((part) => typeof part === 'object')) return badDevices(field, value);
  const text = parts
    .join(', ')
    .trim()
    .replace(/^\[|\]$/g, '');
  if (text === '' || text === '-1') return '';
  if (!/^\d{1,3}(\s*,\s*\d{1,3}){0,63}$/.test(text)) return badDevices(field, value);
  return text.split(/\s*,\s*/).join(', ');
}

function badDevices(field: string, value: unknown): never {
  throw invalidArgument(
    field,
    `${field} must be text like "0" or "0, 1" (GPU numbers), or "" for the CPU, not ${show(value)}.`,
  );
}

/** A value as it may stand in a message. */
export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

/**
 * The `train` argument: an object, or the same as JSON text (the page sends text).
 * Python scripts also send `str(dict)` bodies with `NaN`; those are refused like any other malformed text.
 */
export function readTrainArgument(value: unknown): Record<string, unknown> {
  let object = value;
  if (typeof object === 'string') {
    if (isPlaceholder(object)) return {};
    try {
      object = JSON.parse(object);
    } catch (cause) {
      throw invalidArgument('train', `train is not readable as JSON: ${(cause as Error).message}.`);
    }
  }
  if (object === undefined || object === null) return {};
  if (typeof object !== 'object' || Array.isArray(object)) {
    throw invalidArgument('train', 'train must be an object of parameters, or the same as JSON text.');
  }
  return object as Record<string, unknown>;
}
