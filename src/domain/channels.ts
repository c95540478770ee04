/** What the import of a remote sensing set has measured of its channels (`channels.json` beside the statistics). */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { notReady } from './errors.js';

/** One number a channel each. */
export interface Channels {
  /** Stored value that becomes 0. */
  min: number[];
  /** Stored value that becomes 1; above `min`. */
  max: number[];
  /** Mean and standard deviation after that. */
  mean: number[];
  std: number[];
}

const LISTS = ['clip_min', 'clip_max', 'mean', 'std'] as const;
const MIN_STD = 1e-6;

/** Throws `not_ready` when they are missing or damaged. */
export async function readChannels(datasetPath: string): Promise<Channels> {
  try {
    const file = JSON.parse(await readFile(join(datasetPath, 'channels.json'), 'utf8')) as Record<string, unknown>;
    return scaled(file);
  } catch {
    throw notReady(
      'The dataset lacks the measures of its channels (channels.json).',
      'Import it again (PUT /dataset).',
    );
  }
}

/** Statistics of stored values, brought to the scale on which the clip range is 0 to 1. */
function scaled(file: Record<string, unknown>): Channels {
  const [low, high, mean, std] = LISTS.map((name) => numbers(file[name]));
  const count = low?.length ?? 0;
  if (low === undefined || high === undefined || mean === undefined || std === undefined || count === 0)
    throw new Error('lists are missing');
  if ([high, mean, std].some((list) => list.length !== count)) throw new Error('lists differ in length');
  const max = high.map((value, at) => (value > at_(low, at) ? value : at_(low, at) + 1));
  const range = (at: number): number => at_(max, at) - at_(low, at);
  return {
    min: low,
    max,
    mean: mean.map((value, at) => Math.min(1, Math.max(0, (value - at_(low, at)) / range(at)))),
    std: std.map((value, at) => Math.min(1, Math.max(MIN_STD, value / range(at)))),
  };
}

const at_ = (list: readonly number[], at: number): number => list[at] as number;

function numbers(value: unknown): number[] | undefined {
  return Array.isArray(value) && value.every((entry) => Number.isFinite(entry)) ? (value as number[]) : undefined;
}
