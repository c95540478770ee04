/**
 * Unpacks zip archives (PKWARE APPNOTE 6.3: stored and deflated entries, zip64). The central directory rules; entries must
 * not overlap, so the known bombs that use the same bytes many times are refused before anything is unpacked.
 */
import { createReadStream } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { crc32, createInflateRaw } from 'node:zlib';
import { type ArchiveLimits, refuse, type Target, tooLarge } from './target.js';

interface ZipEntry {
  name: string;
  /** Length of the name as stored. */
  nameLength: number;
  folder: boolean;
  method: number;
  packed: number;
  size: number;
  crc: number;
  /** Of the local header. */
  offset: number;
}

const EOCD = 0x06054b50;
const EOCD64 = 0x06064b50;
const EOCD64_LOCATOR = 0x07064b50;
const CENTRAL = 0x02014b50;
const LOCAL = 0x04034b50;
const MAX_DIRECTORY = 256 * 2 ** 20;

export async function unpackZip(path: string, target: Target, limits: ArchiveLimits): Promise<void> {
  const handle = await open(path, 'r');
  try {
    const { size } = await handle.stat();
    const entries = await readDirectory(handle, size, limits);
    checkOverlap(entries);
    const declared = entries.reduce((sum, entry) => sum + entry.size, 0);
    if (declared > limits.bytes) throw tooLarge(`it unpacks to more than ${limits.bytes} bytes`);
    if (declared > limits.ratioFrom && declared > size * limits.ratio) {
      throw tooLarge(`it unpacks to more than ${limits.ratio} times its size`);
    }
    for (const entry of entries) {
      if (entry.folder) await target.folder(entry.name);
      else await target.file(entry.name, content(path, handle, entry, target));
    }
  } finally {
    await handle.close();
  }
}

const damaged = (what: string) => refuse(`it is damaged (${what})`);

async function bytes(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await handle.read(buffer, 0, length, position);
  if (bytesRead !== length) throw damaged('it ends early');
  return buffer;
}

async function readDirectory(handle: FileHandle, size: number, limits: ArchiveLimits): Promise<ZipEntry[]> {
  const tail = await bytes(handle, Math.max(0, size - 65_557), Math.min(size, 65_557));
  let at = tail.length - 22;
  while (at >= 0 && tail.readUInt32LE(at) !== EOCD) at--;
  if (at < 0) throw damaged('the end of the archive is missing');
  let count = tail.readUInt16LE(at + 10);
  let length = tail.readUInt32LE(at + 12);
  let offset = tail.readUInt32LE(at + 16);
  if (tail.readUInt16LE(at + 4) !== 0 && tail.readUInt16LE(at + 4) !== 0xffff)
    throw refuse('it is split over several files');
  if (count === 0xffff || length === 0xffffffff || offset === 0xffffffff) {
    if (at < 20 || tail.readUInt32LE(at - 20) !== EOCD64_LOCATOR) throw damaged('its 64-bit directory is missing');
    const record = await bytes(handle, Number(tail.readBigUInt64LE(at - 12)), 56);
    if (record.readUInt32LE(0) !== EOCD64) throw damaged('its 64-bit directory is missing');
    count = Number(record.readBigUInt64LE(32));
    length = Number(record.readBigUInt64LE(40));
    offset = Number(record.readBigUInt64LE(48));
  }
  if (count > limits.entries) throw tooLarge(`it has more than ${limits.entries} entries`);
  if (!Number.isSafeInteger(offset + length) || offset + length > size) throw damaged('its directory lies outside');
  if (length > MAX_DIRECTORY) throw tooLarge('its directory is too large');
  return parseDirectory(await bytes(handle, offset, length), count, offset);
}

function parseDirectory(directory: Buffer, count: number, end: number): ZipEntry[] {
  const entries: ZipEntry[] = [];
  let at = 0;
  for (let n = 0; n < count; n++) {
    if (at + 46 > directory.length || directory.readUInt32LE(at) !== CENTRAL) throw damaged('its directory is cut off');
    const nameLength = directory.readUInt16LE(at + 28);
    const extraLength = directory.readUInt16LE(at + 30);
    const next = at + 46 + nameLength + extraLength + directory.readUInt16LE(at + 32);
    if (next > directory.length) throw damaged('its directory is cut off');
    const flags = directory.readUInt16LE(at + 8);
    const raw = directory.subarray(at + 46, at + 46 + nameLength);
    const name = decodeName(raw, (flags & 0x800) !== 0);
    if (flags & 1) throw refuse('it is encrypted');
    // Unix archivers keep the file type here: a link's content would be its target.
    const kind = (directory.readUInt32LE(at + 38) >>> 16) & 0o170000;
    if (kind !== 0 && kind !== 0o100000 && kind !== 0o040000)
      throw refuse(`it has a link or device (${JSON.stringify(name.slice(0, 100))})`);
    const entry: ZipEntry = {
      name,
      nameLength,
      folder: /[/\\]$/.test(name),
      method: directory.readUInt16LE(at + 10),
      crc: directory.readUInt32LE(at + 16),
      packed: directory.readUInt32LE(at + 20),
      size: directory.readUInt32LE(at + 24),
      offset: directory.readUInt32LE(at + 42),
    };
    widen(entry, directory.subarray(at + 46 + nameLength, at + 46 + nameLength + extraLength));
    if (entry.offset + 30 + entry.packed > end) throw damaged(`${name} lies outside`);
    if (!entry.folder && entry.method !== 0 && entry.method !== 8)
      throw refuse(`${name} uses the compression method ${entry.method}; only deflate is read`);
    entries.push(entry);
    at = next;
  }
  return entries;
}

/** Values that do not fit 32 bits stand in the zip64 extra field, in this order. */
function widen(entry: ZipEntry, extra: Buffer): void {
  for (let at = 0; at + 4 <= extra.length; ) {
    const length = extra.readUInt16LE(at + 2);
    if (extra.readUInt16LE(at) === 1) {
      let from = at + 4;
      for (const key of ['size', 'packed', 'offset'] as const) {
        if (entry[key] !== 0xffffffff) continue;
        if (from + 8 > at + 4 + length || from + 8 > extra.length) throw damaged('a 64-bit size is missing');
        entry[key] = Number(extra.readBigUInt64LE(from));
        from += 8;
      }
      return;
    }
    at += 4 + length;
  }
}

/** Names are UTF-8 when they say so or are; Chinese Windows writes GB18030. */
function decodeName(raw: Buffer, utf8: boolean): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(raw);
  } catch {
    if (utf8) throw damaged('a name is not UTF-8');
    return new TextDecoder('gb18030').decode(raw);
  }
}

function checkOverlap(entries: readonly ZipEntry[]): void {
  let free = 0;
  for (const entry of [...entries].sort((a, b) => a.offset - b.offset)) {
    if (entry.offset < free) throw tooLarge('its entries overlap');
    free = entry.offset + 30 + entry.nameLength + entry.packed;
    if (entry.folder && entry.packed > 0) throw damaged('a folder has content');
  }
}

async function* content(path: string, handle: FileHandle, entry: ZipEntry, target: Target): AsyncGenerator<Buffer> {
  const local = await bytes(handle, entry.offset, 30);
  if (local.readUInt32LE(0) !== LOCAL) throw damaged(`${entry.name} has no header`);
  const start = entry.offset + 30 + local.readUInt16LE(26) + local.readUInt16LE(28);
  if (entry.packed === 0) {
    if (entry.size !== 0) throw damaged(`${entry.name} has no content`);
    return;
  }
  const input = createReadStream(path, { start, end: start + entry.packed - 1, highWaterMark: 1 << 18 });
  const output = entry.method === 0 ? input : input.pipe(createInflateRaw({ chunkSize: 1 << 18 }));
  if (output !== input) input.on('error', (error) => output.destroy(error));
  let size = 0;
  let sum = 0;
  try {
    for await (const chunk of output as AsyncIterable<Buffer>) {
      size += chunk.length;
      // Declared sizes were checked against the limits; more than declared is a lie.
      if (size > entry.size) throw damaged(`${entry.name} is larger than it says`);
      sum = crc32(chunk, sum);
      target.count(chunk.length);
      yield chunk;
    }
  } catch (error) {
    if (/^Z_/.test((error as NodeJS.ErrnoException).code ?? ''))
      throw damaged(`${entry.name}: ${(error as Error).message}`);
    throw error;
  } finally {
    input.destroy();
  }
  if (size !== entry.size || sum !== entry.crc) throw damaged(`${entry.name} has a wrong checksum`);
}
