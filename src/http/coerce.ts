/** Query strings carry text only: what a field's schema expects decides what a text means. */
import type { z } from 'zod';
import { invalidArgument } from '../domain/errors.js';

/** Turns a query value into what the schema wants; leaves what it cannot read as text, for the schema to refuse. `undefined` = as if not sent. */
export type Coercer = (text: string | string[], name: string) => unknown;

interface Wanted {
  text: boolean;
  number: boolean;
  boolean: boolean;
  /** Coercer of the elements, when a list is possible. */
  list: ((text: string) => unknown) | undefined;
  object: boolean;
  nullable: boolean;
  optional: boolean;
}

// biome-ignore lint/suspicious/noExplicitAny: zod's internal definitions are a union without common fields
type Def = any;

function collect(schema: z.core.$ZodType, wanted: Wanted): void {
  const def: Def = schema._zod.def;
  switch (def.type) {
    case 'optional':
    case 'default':
    case 'prefault':
    case 'catch':
      wanted.optional = true;
      collect(def.innerType, wanted);
      return;
    case 'nullable':
      wanted.nullable = true;
      collect(def.innerType, wanted);
      return;
    case 'nonoptional':
    case 'readonly':
      collect(def.innerType, wanted);
      return;
    case 'pipe':
      // z.preprocess: the function stands first, so what it leads to tells more.
      collect(def.in._zod.def.type === 'transform' ? def.out : def.in, wanted);
      return;
    case 'lazy':
      collect(def.getter(), wanted);
      return;
    case 'union':
      for (const option of def.options) collect(option, wanted);
      return;
    case 'literal':
      for (const value of def.values) collectValue(value, wanted);
      return;
    case 'enum':
      for (const value of Object.values(def.entries)) collectValue(value, wanted);
      return;
    case 'number':
    case 'int':
      wanted.number = true;
      return;
    case 'boolean':
      wanted.boolean = true;
      return;
    case 'array':
    case 'tuple':
    case 'set': {
      const element = def.element ?? def.valueType ?? def.items?.[0];
      const inner = element === undefined ? undefined : wantedBy(element);
      wanted.list = (text) => (inner === undefined ? text : one(text, inner));
      return;
    }
    case 'object':
    case 'record':
    case 'map':
      wanted.object = true;
      return;
    case 'null':
      wanted.nullable = true;
      return;
    default:
      wanted.text = true;
  }
}

function collectValue(value: unknown, wanted: Wanted): void {
  if (typeof value === 'number') wanted.number = true;
  else if (typeof value === 'boolean') wanted.boolean = true;
  else if (value === null) wanted.nullable = true;
  else wanted.text = true;
}

function wantedBy(schema: z.core.$ZodType): Wanted {
  const wanted: Wanted = {
    text: false,
    number: false,
    boolean: false,
    list: undefined,
    object: false,
    nullable: false,
    optional: false,
  };
  collect(schema, wanted);
  return wanted;
}

const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;
const BOOLEANS: Readonly<Record<string, boolean>> = { true: true, false: false, '1': true, '0': false };

function one(text: string, wanted: Wanted): unknown {
  const trimmed = text.trim();
  if (wanted.nullable && (trimmed === 'null' || trimmed === 'None')) return null;
  if (trimmed === '' && !wanted.text) {
    if (wanted.nullable) return null;
    if (wanted.optional) return undefined;
    if (wanted.list !== undefined) return [];
  }
  const first = trimmed[0];
  // A field that takes text keeps it, unless it is plainly the JSON of the list or object that it takes too.
  if (first === '[' && wanted.list !== undefined) {
    const value = json(trimmed);
    if (Array.isArray(value)) return value;
  }
  if (first === '{' && wanted.object && !wanted.text) return json(trimmed) ?? text;
  if (wanted.text) return text;
  if (wanted.boolean) {
    const value = BOOLEANS[trimmed.toLowerCase()];
    if (value !== undefined && !(wanted.number && (trimmed === '0' || trimmed === '1'))) return value;
  }
  if (wanted.number && NUMBER.test(trimmed)) return Number(trimmed);
  if (wanted.list !== undefined) return trimmed.split(',').map((part) => wanted.list?.(part.trim()));
  return text;
}

function json(text: string): unknown {
  try {
    return JSON.parse(text, (key, value) => (key === '__proto__' ? undefined : value));
  } catch {
    return undefined;
  }
}

/** Compiled once per field; see `one` for the rules. */
export function coercerFor(schema: z.core.$ZodType): Coercer {
  const wanted = wantedBy(schema);
  return (text, name) => {
    if (typeof text === 'string') return one(text, wanted);
    if (wanted.list !== undefined) return text.map((part) => wanted.list?.(part.trim()));
    throw invalidArgument(name, `${name} was given ${text.length} times in the query string; give it once.`);
  };
}
