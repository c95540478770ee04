/**
 * Unpacks tar and tar.gz (POSIX.1-2001 ustar and pax, GNU long names and large numbers). Reads strictly forward and hands out
 * one entry at a time, so that nothing is held in memory and a stop takes effect at once.
 */
import { createReadStream } from 'node:fs';
import { createGunzip } from 'node:zlib';
import { refuse, type Target, tooLarge } from './target.js';

const CHUNK = 1 << 18;
const BLOCK = 512;
/** Extended headers hold names; real ones have a few hundred bytes. */
const MAX_HEADER = 1 << 20;

/** @param gzip whether the bytes are gzip; they are inflated in the thread pool. */
export async function unpackTar(path: string, gzip: boolean, target: Target): Promise<void> {
  const input = createReadStream(path, { highWaterMark: CHUNK });
  const inflate = gzip ? input.pipe(createGunzip({ chunkSize: CHUNK })) : undefined;
  if (inflate !== undefined) input.on('error', (error) => inflate.destroy(error));
  try {
    await readEntries(new Source(inflate ?? input, target), target);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    throw /^Z_/.test(code) ? damaged((error as Error).message) : error;
  } finally {
    input.destroy();
    inflate?.destroy();
  }
}

const damaged = (what: string) => refuse(`it is damaged (${what})`);

/** Bytes by count from a stream of chunks. */
class Source {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(
    stream: AsyncIterable<Buffer>,
    private readonly target: Target,
  ) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  /** At least one and at most `limit` bytes; `undefined` at the end. */
  async some(limit: number): Promise<Buffer | undefined> {
    while (this.#rest.length === 0) {
      const { done, value } = await this.#chunks.next();
      if (done) return undefined;
      this.target.count(value.length);
      this.#rest = value;
    }
    const part = this.#rest.subarray(0, limit);
    this.#rest = this.#rest.subarray(part.length);
    return part;
  }

  /** Exactly `length` bytes, padding to whole blocks skipped; `undefined` when the stream ended before the first. */
  async exactly(length: number): Promise<Buffer | undefined> {
    const parts: Buffer[] = [];
    for (let left = length; left > 0; ) {
      const part = await this.some(left);
      if (part === undefined) {
        if (parts.length === 0) return undefined;
        throw damaged('it ends early');
      }
      parts.push(part);
      left -= part.length;
    }
    return Buffer.concat(parts);
  }

  /** The next `length` bytes as they come. */
  async *stream(length: number): AsyncGenerator<Buffer> {
    for (let left = length; left > 0; ) {
      const part = await this.some(left);
      if (part === undefined) throw damaged('it ends early');
      left -= part.length;
      yield part;
    }
  }
}

const padding = (size: number): number => (BLOCK - (size % BLOCK)) % BLOCK;

async function readEntries(source: Source, target: Target): Promise<void> {
  let overrides: { path?: string; size?: number } = {};
  for (;;) {
    const header = await source.exactly(BLOCK);
    // Archives end with two empty blocks, which some writers leave out.
    if (header === undefined || header.every((byte) => byte === 0)) return;
    checkSum(header);
    const type = String.fromCharCode(header[156] ?? 0);
    const size = overrides.size ?? number(header, 124, 12);
    if (type === 'x' || type === 'L' || type === 'g' || type === 'K' || type === 'N') {
      target.entry();
      const ownSize = number(header, 124, 12);
      if (ownSize > MAX_HEADER) throw tooLarge('an entry has a header of more than 1 MB');
      const body = (await source.exactly(ownSize)) ?? Buffer.alloc(0);
      await skip(source, padding(ownSize));
      if (type === 'x') overrides = { ...overrides, ...readPax(body) };
      else if (type === 'L') overrides.path = text(body);
      continue;
    }
    const path = overrides.path ?? nameOf(header);
    overrides = {};
    await readEntry(source, target, type, path, size);
  }
}

async function readEntry(source: Source, target: Target, type: string, path: string, size: number): Promise<void> {
  // Before ustar a folder was a file whose name ends in a slash.
  if (type === '5' || type === 'D' || ((type === '0' || type === '\0') && path.endsWith('/'))) {
    await target.folder(path);
    await skip(source, type === 'D' ? size + padding(size) : 0);
  } else if (type === '0' || type === '\0' || type === '7') {
    await target.file(path, source.stream(size));
    await skip(source, padding(size));
  } else {
    const what = type === '1' || type === '2' ? 'a link' : `an entry of type ${JSON.stringify(type)}`;
    throw refuse(`it has ${what} (${JSON.stringify(path.slice(0, 100))}); only files and folders are taken`);
  }
}

async function skip(source: Source, length: number): Promise<void> {
  for await (const _ of source.stream(length));
}

function checkSum(header: Buffer): void {
  const stated = number(header, 148, 8);
  let sum = 0;
  for (let at = 0; at < BLOCK; at++) sum += at >= 148 && at < 156 ? 32 : (header[at] as number);
  if (sum !== stated) throw damaged('a header has a wrong checksum');
}

/** Octal text, or a big-endian number when the first bit is set. */
function number(header: Buffer, at: number, length: number): number {
  const field = header.subarray(at, at + length);
  if ((field[0] ?? 0) & 0x80) {
    let value = (field[0] as number) & 0x7f;
    for (const byte of field.subarray(1)) value = value * 256 + byte;
    if (!Number.isSafeInteger(value)) throw damaged('a size is impossible');
    return value;
  }
  const octal = field
    .toString('latin1')
    .replace(/[\0 ]+$/, '')
    .trimStart();
  if (!/^[0-7]*$/.test(octal)) throw damaged('a size is no number');
  return octal === '' ? 0 : Number.parseInt(octal, 8);
}

function text(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  const raw = end === -1 ? bytes : bytes.subarray(0, end);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(raw);
  } catch {
    return new TextDecoder('gb18030').decode(raw);
  }
}

function nameOf(header: Buffer): string {
  const name = header.subarray(0, 100);
  // GNU tar uses the place of the prefix for times.
  const posix = header.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = posix ? text(header.subarray(345, 500)) : '';
  return prefix === '' ? text(name) : `${prefix}/${text(name)}`;
}

/** Records `length key=value\n`; only path and size matter here. Sparse files would need their map. */
function readPax(body: Buffer): { path?: string; size?: number } {
  const found: { path?: string; size?: number } = {};
  for (let at = 0; at < body.length; ) {
    const space = body.indexOf(32, at);
    const length = space === -1 ? Number.NaN : Number(body.toString('latin1', at, space));
    if (!Number.isSafeInteger(length) || length <= space - at || at + length > body.length)
      throw damaged('an extended header is malformed');
    const record = body.toString('utf8', space + 1, at + length - 1);
    const equals = record.indexOf('=');
    const key = record.slice(0, equals);
    const value = record.slice(equals + 1);
    if (key === 'path') found.path = value;
    if (key.startsWith('GNU.sparse.')) throw refuse('it has a sparse file');
    if (key === 'size') {
      if (!/^\d{1,15}$/.test(value)) throw damaged('a size is no number');
      found.size = Number(value);
    }
    at += length;
  }
  return found;
}
