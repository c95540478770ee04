/** The measured figures in an exported folder's `model.yml`. */
import { readFile } from 'node:fs/promises';
import { writeFileAtomic } from '../../domain/atomic-file.js';

/** `text` with these top-level entries in place of older ones: JSON in one line each, which is YAML too. */
export function withEntries(text: string, entries: Readonly<Record<string, unknown>>): string {
  const kept: string[] = [];
  let skipping = false;
  for (const line of text.split('\n')) {
    const key = /^([A-Za-z_]\w*):/.exec(line)?.[1];
    if (key !== undefined) skipping = Object.hasOwn(entries, key);
    if (!skipping) kept.push(line);
  }
  const lines = Object.entries(entries).map(([key, value]) => `${key}: ${JSON.stringify(value)}`);
  return `${[kept.join('\n').trimEnd(), ...lines].join('\n')}\n`;
}

/** Changes a `model.yml` at its place. */
export async function describe(path: string, entries: Readonly<Record<string, unknown>>): Promise<void> {
  await writeFileAtomic(path, withEntries(await readFile(path, 'utf8'), entries));
}
