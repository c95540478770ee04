/** What the parts of an import share. */
import { stat } from 'node:fs/promises';
import { PROJECT_TYPES, type ProjectType } from '../enums.js';
import type { Locator } from './locate.js';

/** Calls a function of the light addon in a worker; `Compute` is one. */
export interface LightCalls {
  light<T>(fn: string, ...args: unknown[]): Promise<T>;
}

/** Kinds of pickles that the restricted reader knows. */
export type PickleProfile = 'statis' | 'params' | 'eval_res' | 'sensitivities_xy' | 'sensi_data';

export class ImportContext {
  readonly warnings: string[] = [];

  constructor(
    readonly locator: Locator,
    private readonly calls: LightCalls,
  ) {}

  /** Content of a pickle as plain JSON values; `undefined` (with a warning when it exists) if it cannot be read. */
  async pickle(path: string, profile: PickleProfile): Promise<Record<string, unknown> | undefined> {
    if (!(await isFile(path))) return undefined;
    try {
      const answer = await this.calls.light<unknown>('readPickle', path, profile);
      const value: unknown = typeof answer === 'string' ? JSON.parse(answer) : answer;
      if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
      this.warnings.push(`${path} holds something else than was expected and is left out.`);
    } catch (error) {
      this.warnings.push(`${path} cannot be read and is left out: ${(error as Error).message}`);
    }
    return undefined;
  }

  /** Statistics of a folder whose pickle is lost, read from its lists and annotations; `undefined` (with a warning) if it is faulty. */
  async readAgain(folder: string, type: ProjectType, remote: boolean): Promise<unknown> {
    try {
      const answer = await this.calls.light<unknown>('datasetDetails', folder, type, remote);
      return typeof answer === 'string' ? JSON.parse(answer) : answer;
    } catch (error) {
      this.warnings.push(`${folder} cannot be read again: ${(error as Error).message.slice(0, 500)}`);
      return undefined;
    }
  }

  warn(message: string): void {
    this.warnings.push(message);
  }
}

export const isFile = (path: string): Promise<boolean> =>
  stat(path).then(
    (stats) => stats.isFile(),
    () => false,
  );

/** The types of records; remote sensing is segmentation with a mark. */
export function readType(type: string): { type: ProjectType; remote?: true } | undefined {
  if (type === 'remote_segmentation') return { type: 'segmentation', remote: true };
  const known = PROJECT_TYPES.find((name) => name === type);
  return known === undefined ? undefined : { type: known };
}

/** Applies `work` to all items, at most `limit` at a time, in order of results. */
export async function mapLimited<T, R>(
  items: readonly T[],
  limit: number,
  work: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = new Array(items.length);
  let next = 0;
  const run = async () => {
    for (let at = next++; at < items.length; at = next++) results[at] = await work(items[at] as T);
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, run));
  return results;
}

/** A value of a pickle as text; anything but text and numbers is empty. */
export const asText = (value: unknown): string =>
  typeof value === 'string' ? value : typeof value === 'number' || typeof value === 'boolean' ? String(value) : '';
