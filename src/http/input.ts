/** From body and query string to one object for a route's schema. */
import { parse } from 'node:querystring';
import type { z } from 'zod';
import { invalidArgument, OarlockError } from '../domain/errors.js';
import { type Coercer, coercerFor } from './coerce.js';
import { validationError } from './errors.js';

/** Ready-made reader of one route's input. */
export interface InputReader {
  /** Validated input and the names the client sent. Throws `invalid_argument`. */
  read(body: Record<string, unknown> | undefined, query: string): { input: unknown; given: Set<string> };
}

const NOTHING: ReadonlySet<string> = Object.freeze(new Set<string>());

export function inputReader(schema: z.ZodObject): InputReader {
  const fields = Object.entries(schema.shape).map(
    ([name, field]) => [name, coercerFor(field as z.core.$ZodType)] as [string, Coercer],
  );
  return {
    read(body, query) {
      let given = NOTHING as Set<string>;
      const raw: Record<string, unknown> = {};
      if (body !== undefined || query !== '') {
        given = new Set<string>();
        const fromQuery = query === '' ? undefined : parse(query, '&', '=', { maxKeys: 256 });
        for (const [name, coerce] of fields) {
          if (body !== undefined && Object.hasOwn(body, name)) {
            given.add(name);
            raw[name] = body[name];
          } else if (fromQuery !== undefined) {
            const text = fromQuery[name] ?? fromQuery[`${name}[]`];
            if (text === undefined) continue;
            given.add(name);
            const value = coerce(text, name);
            if (value !== undefined) raw[name] = value;
          }
        }
      }
      const result = schema.safeParse(raw);
      if (!result.success) throw validationError(result.error.issues, raw);
      return { input: result.data, given };
    },
  };
}

const SUSPECT = ['__proto__', '\\u00'];

/**
 * JSON text of a request body to an object; `undefined` for an empty body or a literal `null`.
 * Refuses other JSON values and removes `__proto__` keys, which would otherwise survive into merged objects.
 */
export function parseBody(bytes: Buffer): Record<string, unknown> | undefined {
  if (bytes.length === 0) return undefined;
  let text = bytes.toString('utf8');
  if (text.charCodeAt(0) === 0xfeff) text = text.slice(1);
  if (text.trim() === '') return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new MalformedJson(error);
  }
  if (value === null) return undefined;
  if (typeof value !== 'object' || Array.isArray(value)) {
    throw invalidArgument(
      'body',
      `The request body must be a JSON object, not ${Array.isArray(value) ? 'a list' : typeof value}.`,
    );
  }
  if (SUSPECT.some((mark) => text.includes(mark))) dropPrototypeKeys(value);
  return value as Record<string, unknown>;
}

/** The body says it is JSON and is not. Answered from the query string when there is one, as PaddleX does. */
export class MalformedJson extends OarlockError {
  constructor(cause: unknown) {
    const where = /position \d+/.exec(String((cause as Error)?.message ?? ''))?.[0];
    super('invalid_argument', `The request body is not valid JSON${where === undefined ? '' : ` (at ${where})`}.`, {
      context: { field: 'body' },
      hint: 'Send one JSON object, or the arguments in the query string and no body.',
      cause,
    });
  }
}

function dropPrototypeKeys(value: object): void {
  // Iterative: a hostile body may be nested deeper than the stack.
  const todo: object[] = [value];
  for (let at = todo.pop(); at !== undefined; at = todo.pop()) {
    if (Object.hasOwn(at, '__proto__')) Reflect.deleteProperty(at, '__proto__');
    for (const inner of Object.values(at)) if (typeof inner === 'object' && inner !== null) todo.push(inner);
  }
}
