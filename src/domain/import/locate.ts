/** From the absolute paths of old records to this machine: the stored root is exchanged for the present one, nothing outside counts. */
import { realpath } from 'node:fs/promises';
import { isAbsolute, join, normalize, sep } from 'node:path';
import { isInside } from '../paths.js';

export interface Located {
  path: string;
  exists: boolean;
}

const plain = (path: string): string => {
  const slashed = path.replaceAll('\\', '/');
  return slashed.length > 1 ? slashed.replace(/\/+$/, '') : slashed;
};

export class Locator {
  /** @param root real path of the opened folder. @param stored `Workspace.path` as the file has it. */
  constructor(
    readonly root: string,
    private readonly stored: string,
  ) {}

  /** Where the stored path lies now, by its text only. */
  rewrite(given: string): string {
    const path = plain(given);
    const old = plain(this.stored);
    if (old !== '' && old !== '/' && (path === old || path.startsWith(`${old}/`)))
      return join(this.root, path.slice(old.length));
    return path;
  }

  /**
   * A folder of the workspace. `canonical` (`datasets/D0001`) is taken when the stored path has another root but ends in it, and it exists.
   * `undefined` when the path, or what its links lead to, is outside the workspace.
   */
  async folder(given: string, canonical: string): Promise<Located | undefined> {
    const home = join(this.root, canonical);
    let path = normalize(this.rewrite(given));
    const moved = !isAbsolute(path) || !isInside(path, this.root);
    if (moved && (given === '' || plain(given).endsWith(`/${canonical}`))) path = home;
    if (!isInside(path, this.root) || path === this.root || path.includes('\0')) return undefined;
    try {
      const real = await realpath(path);
      return isInside(real, this.root) && real !== this.root ? { path: real, exists: true } : undefined;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return undefined;
      // A link to nowhere may later lead anywhere: only the plain place of a missing folder counts.
      const plainPlace = path === home || path.startsWith(home + sep);
      return plainPlace && (!moved || given === '') ? { path, exists: false } : undefined;
    }
  }
}
