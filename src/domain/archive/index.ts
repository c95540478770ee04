/** Unpacks archives from outside, believing nothing they say about themselves. */
import { mkdir, open, rm, stat } from 'node:fs/promises';
import { unpackTar } from './tar.js';
import { type ArchiveLimits, DEFAULT_LIMITS, refuse, Target } from './target.js';
import { unpackZip } from './zip.js';

export { type ArchiveLimits, DEFAULT_LIMITS } from './target.js';

export interface UnpackOptions {
  limits?: Partial<ArchiveLimits>;
  signal?: AbortSignal;
  /** Unpacked bytes so far. */
  onBytes?: (unpacked: number) => void;
}

/** File endings of archives that can be unpacked. */
export const ARCHIVE_ENDINGS = ['.tar.gz', '.tgz', '.tar', '.zip'];

/**
 * Unpacks a tar, tar.gz or zip into the new folder `dest`; on any failure `dest` is removed.
 * Absolute names, `..`, links and devices, overlapping or duplicate entries, too many, too large or too dense ones refuse the whole archive.
 * @throws OarlockError `invalid_argument` or `resource_exhausted`.
 */
export async function unpack(archive: string, dest: string, options: UnpackOptions = {}): Promise<void> {
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const { size } = await stat(archive);
  const kind = await sniff(archive);
  await mkdir(dest); // must be new: nothing in it can be a trap
  try {
    const target = new Target(dest, size, limits, options.signal, options.onBytes);
    if (kind === 'zip') await unpackZip(archive, target, limits);
    else await unpackTar(archive, kind === 'gzip', target);
  } catch (error) {
    await rm(dest, { recursive: true, force: true });
    throw error;
  }
}

async function sniff(path: string): Promise<'zip' | 'gzip' | 'tar'> {
  const handle = await open(path, 'r');
  try {
    const head = Buffer.alloc(512);
    const { bytesRead } = await handle.read(head, 0, 512, 0);
    if (bytesRead >= 4 && (head.readUInt32LE(0) === 0x04034b50 || head.readUInt32LE(0) === 0x06054b50)) return 'zip';
    if (bytesRead >= 2 && head[0] === 0x1f && head[1] === 0x8b) return 'gzip';
    if (bytesRead === 512 && head.toString('latin1', 257, 262) === 'ustar') return 'tar';
    throw refuse('it is neither tar, tar.gz nor zip');
  } finally {
    await handle.close();
  }
}
