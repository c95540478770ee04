/** The `details` of datasets: `statis.json` in the dataset's folder, kept in memory as the text that answers carry. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DatasetDetails } from './contracts.js';
import type { DatasetRecord } from './records.js';

/** Sum of texts kept; the newest one stays whatever its size. */
const BUDGET = 16 * 2 ** 20;

const UNSAFE = ['<', '\u2028', '\u2029'] as const;

/** The PaddleX page runs answers through `eval` and pastes them into HTML, so these characters go as escapes. */
function escaped(bytes: Buffer): Buffer {
  // A search of the bytes costs next to nothing; texts that need the slow way are rare.
  if (!UNSAFE.some((mark) => bytes.includes(mark))) return bytes;
  const text = bytes
    .toString('utf8')
    .replaceAll('<', '\\u003c')
    .replaceAll('\u2028', '\\u2028')
    .replaceAll('\u2029', '\\u2029');
  return Buffer.from(text);
}

export class DetailsCache {
  readonly #texts = new Map<string, { content: number; json: Buffer }>();
  readonly #loading = new Map<string, Promise<Buffer | null>>();

  /** UTF-8 JSON; null when the file is missing or is no JSON object. */
  async json(dataset: DatasetRecord): Promise<Buffer | null> {
    const known = this.#texts.get(dataset.id);
    if (known?.content === dataset.content) {
      // The map's order is the order of use.
      this.#texts.delete(dataset.id);
      this.#texts.set(dataset.id, known);
      return known.json;
    }
    const key = `${dataset.id}/${dataset.content}`;
    let loading = this.#loading.get(key);
    if (loading === undefined) {
      loading = this.#load(dataset).finally(() => this.#loading.delete(key));
      this.#loading.set(key, loading);
    }
    return loading;
  }

  async details(dataset: DatasetRecord): Promise<DatasetDetails | null> {
    const json = await this.json(dataset);
    return json === null ? null : (JSON.parse(json.toString('utf8')) as DatasetDetails);
  }

  forget(did: string): void {
    this.#texts.delete(did);
  }

  async #load(dataset: DatasetRecord): Promise<Buffer | null> {
    const bytes = await readFile(join(dataset.path, 'statis.json')).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return null;
      throw error;
    });
    const text = bytes?.subarray(0, bytes.at(-1) === 0x0a ? -1 : undefined);
    if (text === undefined || text[0] !== 0x7b || text.at(-1) !== 0x7d) return null;
    const json = escaped(text);
    this.#texts.set(dataset.id, { content: dataset.content, json });
    let sum = 0;
    for (const known of this.#texts.values()) sum += known.json.length;
    for (const [did, known] of this.#texts) {
      if (sum <= BUDGET || did === dataset.id) break;
      this.#texts.delete(did);
      sum -= known.json.length;
    }
    return json;
  }
}
