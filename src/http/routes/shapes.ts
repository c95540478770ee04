/** What several routes share: argument schemas, and answers kept as bytes until a record changes. */
import { z } from 'zod';
import { readType } from '../../domain/context.js';
import { PROJECT_TYPES } from '../../domain/enums.js';
import { invalidArgument } from '../../domain/errors.js';
import { envelope, JSON_TYPE } from '../envelope.js';
import { RawAnswer } from '../route.js';

export const did = z.string().min(1).describe('Dataset, e.g. D0001');
export const pid = z.string().min(1).describe('Project, e.g. P0001');
export const tid = z.string().min(1).describe('Task, e.g. T0001');
export const name = z.string().describe('Name; need not be unique');
export const desc = z.string().nullish().describe('Description');
export const force = z.boolean().nullish().describe('Stop what is running first instead of refusing');
export const typeName = z.enum(PROJECT_TYPES);
export const typeArg = z
  .union([z.string().min(1), z.int()])
  .describe(`${PROJECT_TYPES.join(', ')} or remote_segmentation, or its number`);
export const score = z.number().min(0).max(1).nullish().describe('Lowest score that counts; for detection');

export { readType };

/** A whole number, as a number or as text; null for "best". */
export const epochArg = z
  .union([z.int().min(1), z.string(), z.null()])
  .optional()
  .describe('Saved epoch; null or left out: the best model');

export function readEpoch(value: number | string | null | undefined): number | null {
  if (value === undefined || value === null || typeof value === 'number') return value ?? null;
  const text = value.trim();
  if (text === '' || /^(null|none|best)$/i.test(text)) return null;
  if (/^\d{1,9}$/.test(text) && Number(text) >= 1) return Number(text);
  throw invalidArgument('epoch', `epoch must be a whole number from 1, not "${text.slice(0, 40)}".`);
}

/** Fields of optional arguments, without those that are null or left out. */
export function given<T extends Record<string, unknown>>(values: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined && value !== null)) as {
    [K in keyof T]?: NonNullable<T[K]>;
  };
}

export const metrics = z.record(z.string(), z.number().nullable());
const figures = z.object({ metrics, bytes: z.int(), latency_ms: z.number() });

/** What ONNX Runtime measured of an exported model. */
export const measured = z.object({
  runtime: z.string(),
  threads: z.int(),
  images: z.int().describe('Validation images of the metrics'),
  model: figures.describe('The exported model'),
  fp32: figures.nullable().describe('Of a quantized export: the same network before'),
  difference: z.number().describe('Largest difference of a probability between the runtime and the engine, fp32'),
});

const MAX_CACHED = 512;

/** Success answers as bytes, built anew when the revision they were built from changes. */
export class AnswerCache {
  readonly #answers = new Map<string, { revision: string; answer: RawAnswer }>();

  get(key: string, revision: string, build: () => Record<string, unknown>): RawAnswer {
    const known = this.#answers.get(key);
    if (known?.revision === revision) return known.answer;
    const answer = jsonAnswer(envelope(build()));
    this.#answers.delete(key);
    this.#answers.set(key, { revision, answer });
    if (this.#answers.size > MAX_CACHED) this.#answers.delete(this.#answers.keys().next().value as string);
    return answer;
  }
}

export const jsonAnswer = (body: string | Buffer): RawAnswer =>
  new RawAnswer(typeof body === 'string' ? Buffer.from(body) : body, JSON_TYPE);
