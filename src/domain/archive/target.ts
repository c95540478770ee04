/** Where the entries of an archive go: only below one new folder, only plain files and folders, within limits. */
import { createWriteStream } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { finished } from 'node:stream/promises';
import { OarlockError } from '../errors.js';

export interface ArchiveLimits {
  /** Files and folders. */
  entries: number;
  /** Unpacked bytes in all. */
  bytes: number;
  /** Unpacked bytes per packed byte; judged once `ratioFrom` bytes are unpacked, so that small texts may be dense. */
  ratio: number;
  ratioFrom: number;
}

export const DEFAULT_LIMITS: ArchiveLimits = {
  entries: 500_000,
  bytes: 50 * 2 ** 30,
  ratio: 200,
  ratioFrom: 50 * 2 ** 20,
};

const MAX_NAME = 255;
const MAX_PATH = 1024;
const MAX_DEPTH = 32;

export const refuse = (why: string): OarlockError =>
  new OarlockError('invalid_argument', `The archive is refused: ${why}.`, { context: { field: 'archive' } });

export const tooLarge = (why: string): OarlockError =>
  new OarlockError('resource_exhausted', `The archive is refused: ${why}.`, { retryable: false });

/**
 * The parts of an entry's name below the target folder; an empty list for the folder itself.
 * @throws OarlockError for absolute names, drive letters, `..`, control characters and names that are too long or deep.
 */
export function entryParts(name: string): string[] {
  const shown = JSON.stringify(name.slice(0, 100));
  for (let at = 0; at < name.length; at++) {
    const code = name.charCodeAt(at);
    if (code < 32 || code === 127) throw refuse(`the name ${shown} has a control character`);
  }
  const path = name.replaceAll('\\', '/');
  if (path.startsWith('/') || /^[A-Za-z]:/.test(path)) throw refuse(`the name ${shown} is absolute`);
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..')) throw refuse(`the name ${shown} leads out of the folder`);
  if (parts.length > MAX_DEPTH || Buffer.byteLength(path) > MAX_PATH) throw refuse(`the name ${shown} is too long`);
  for (const part of parts) if (Buffer.byteLength(part) > MAX_NAME) throw refuse(`the name ${shown} is too long`);
  return parts;
}

/** Writes entries below `root`, which must be a new, empty folder, and counts them. */
export class Target {
  #entries = 0;
  #bytes = 0;

  constructor(
    private readonly root: string,
    private readonly packed: number,
    private readonly limits: ArchiveLimits,
    private readonly signal: AbortSignal | undefined,
    private readonly onBytes: ((unpacked: number) => void) | undefined,
  ) {}

  /** Bytes that came out of the packer, whether or not they end in a file. */
  count(bytes: number): void {
    this.signal?.throwIfAborted();
    this.#bytes += bytes;
    const { limits, packed } = this;
    if (this.#bytes > limits.bytes) throw tooLarge(`it unpacks to more than ${limits.bytes} bytes`);
    if (this.#bytes > limits.ratioFrom && this.#bytes > packed * limits.ratio) {
      throw tooLarge(`it unpacks to more than ${limits.ratio} times its size`);
    }
    this.onBytes?.(this.#bytes);
  }

  entry(): void {
    this.signal?.throwIfAborted();
    if (++this.#entries > this.limits.entries) throw tooLarge(`it has more than ${this.limits.entries} entries`);
  }

  async folder(name: string): Promise<void> {
    this.entry();
    await this.#make(join(this.root, ...entryParts(name)), name);
  }

  /** Fails when the name was there already: an archive that overwrites its own files is not what it seems. */
  async file(name: string, content: AsyncIterable<Uint8Array>): Promise<void> {
    this.entry();
    const parts = entryParts(name);
    if (parts.length === 0) throw refuse('a file has no name');
    const path = join(this.root, ...parts);
    await this.#make(dirname(path), name);
    const out = createWriteStream(path, { flags: 'wx', mode: 0o644 });
    const done = finished(out);
    done.catch(() => {});
    try {
      for await (const chunk of content) {
        this.signal?.throwIfAborted();
        if (out.errored) throw out.errored;
        if (!out.write(chunk)) await Promise.race([new Promise<void>((drained) => out.once('drain', drained)), done]);
      }
      out.end();
      await done;
    } catch (error) {
      out.destroy();
      if ((error as NodeJS.ErrnoException).code === 'EEXIST')
        throw refuse(`${JSON.stringify(name.slice(0, 100))} appears twice`);
      throw error;
    }
  }

  async #make(folder: string, name: string): Promise<void> {
    try {
      await mkdir(folder, { recursive: true });
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === 'EEXIST' || code === 'ENOTDIR')
        throw refuse(`${JSON.stringify(name.slice(0, 100))} is a file and a folder`);
      throw error;
    }
  }
}
