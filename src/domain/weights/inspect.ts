/**
 * Tells what a weights file is from its first and last bytes, so that a wrong file is refused where it is added
 * and not in the middle of a training start. The tensors themselves are read by native code.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { invalidArgument } from '../errors.js';

export type WeightsFormat = 'safetensors' | 'pth' | 'pdparams';

/** File endings by format; the first one is written. */
export const ENDINGS: Readonly<Record<WeightsFormat, readonly string[]>> = {
  safetensors: ['.safetensors'],
  pth: ['.pth', '.pt'],
  pdparams: ['.pdparams'],
};

export interface WeightsFile {
  format: WeightsFormat;
  bytes: number;
  /** Known for safetensors only. */
  tensors?: number;
}

/** Largest safetensors header that its readers accept. */
const MAX_HEADER = 100_000_000;

const bad = (path: string, why: string, hint?: string) =>
  invalidArgument(
    'file',
    `${path} is no usable weights file: ${why}.`,
    hint ?? 'Use a .safetensors, PyTorch .pth (state dict) or Paddle .pdparams file.',
  );

/** @throws OarlockError `invalid_argument` naming what is wrong with the file. */
export async function inspectWeights(path: string): Promise<WeightsFile> {
  const handle = await open(path, 'r');
  try {
    const stats = await handle.stat();
    if (!stats.isFile()) throw bad(path, 'it is not a file');
    if (stats.size < 16) throw bad(path, stats.size === 0 ? 'it is empty' : `it has only ${stats.size} bytes`);
    const head = await bytes(handle, 0, 16);
    if (head.readUInt32LE(0) === 0x04034b50)
      return { ...(await torchZip(handle, path, stats.size)), bytes: stats.size };
    if (head[0] === 0x80 && (head[1] ?? 0) >= 2 && (head[1] ?? 0) <= 5)
      return { ...(await pickle(handle, path, stats.size)), bytes: stats.size };
    if (head[8] === 0x7b) return { ...(await safetensors(handle, path, stats.size)), bytes: stats.size };
    const text = head.toString('latin1').trimStart().toLowerCase();
    if (text.startsWith('<!doctype') || text.startsWith('<html'))
      throw bad(path, 'it is a web page, probably an error page of the download');
    throw bad(path, 'its first bytes belong to none of the known formats');
  } finally {
    await handle.close();
  }
}

async function bytes(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await handle.read(buffer, 0, length, position);
  return buffer.subarray(0, bytesRead);
}

async function safetensors(handle: FileHandle, path: string, size: number): Promise<Omit<WeightsFile, 'bytes'>> {
  const length = Number((await bytes(handle, 0, 8)).readBigUInt64LE(0));
  if (length > MAX_HEADER || 8 + length > size)
    throw bad(path, `its safetensors header claims ${length} bytes; the file is truncated or damaged`);
  let header: Record<string, { data_offsets?: unknown }>;
  try {
    header = JSON.parse((await bytes(handle, 8, length)).toString('utf8'));
  } catch {
    throw bad(path, 'its safetensors header is not valid JSON');
  }
  let end = 0;
  let tensors = 0;
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const offsets = entry?.data_offsets;
    const last = Array.isArray(offsets) ? Number(offsets[1]) : Number.NaN;
    if (!Number.isSafeInteger(last)) throw bad(path, `tensor ${name} has no valid position`);
    end = Math.max(end, last);
    tensors++;
  }
  if (tensors === 0) throw bad(path, 'it holds no tensors');
  if (8 + length + end > size) throw bad(path, `it is truncated: ${size} of ${8 + length + end} bytes are there`);
  return { format: 'safetensors', tensors };
}

/** PyTorch since 1.6 writes a zip with `<name>/data.pkl`; the end of central directory proves that it is whole. */
async function torchZip(handle: FileHandle, path: string, size: number): Promise<Omit<WeightsFile, 'bytes'>> {
  const head = await bytes(handle, 0, 300);
  const name = head.subarray(30, 30 + head.readUInt16LE(26)).toString('latin1');
  const tail = await bytes(handle, Math.max(0, size - 65_558), 65_558);
  if (tail.lastIndexOf(Buffer.from('PK\x05\x06', 'latin1')) === -1)
    throw bad(path, 'it is truncated (the end of the archive is missing)');
  if (!/(^|\/)(data\.pkl|\.format_version|version|byteorder|\.data\/serialization_id)$/.test(name)) {
    throw bad(path, `it is a zip archive, but not one that torch.save wrote (begins with ${name})`);
  }
  if (tail.includes('constants.pkl')) {
    throw bad(
      path,
      'it is a TorchScript program',
      'Save the state dict instead: torch.save(model.state_dict(), "model.pth").',
    );
  }
  return { format: 'pth' };
}

/** First bytes of the pickle of torch's magic number, with which its format before 1.6 begins. */
const LEGACY_TORCH = Buffer.from([0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19]);

async function pickle(handle: FileHandle, path: string, size: number): Promise<Omit<WeightsFile, 'bytes'>> {
  if ((await bytes(handle, 0, LEGACY_TORCH.length)).equals(LEGACY_TORCH)) return { format: 'pth' };
  const stop = await bytes(handle, size - 1, 1);
  if (stop[0] !== 0x2e) throw bad(path, 'it is truncated (the end of the Paddle state dict is missing)');
  return { format: 'pdparams' };
}
