/** The one way from a path that a client sent to a file: nothing outside the allowed roots, whatever the spelling. */

import * as fs from 'node:fs';
import { constants, type Stats } from 'node:fs';
import { isAbsolute, join, normalize, sep } from 'node:path';
import { promisify } from 'node:util';
import { invalidArgument, OarlockError } from './errors.js';

const open = promisify(fs.open);
const read = promisify(fs.read);
const realpath = promisify(fs.realpath.native);

const MAX_LENGTH = 4096;
const MAX_SEGMENT = 255;
const ON_LINUX = process.platform === 'linux';

export interface Roots {
  /** The workspace folder, absolute. */
  readonly workspace: string;
  /** Folders that datasets may be imported from and exports written to, absolute. */
  readonly data: readonly string[];
}

export interface ResolveOptions {
  /** What a relative path is relative to; default the workspace. Must itself be inside a root. */
  base?: string;
  /** `workspace`: only inside the workspace. Default: any root. */
  within?: 'workspace' | 'any';
  /** Name of the argument, for messages. */
  field?: string;
}

/** An opened regular file that was checked after it was opened. */
export interface OpenedFile {
  readonly fd: number;
  /** Real path. */
  readonly path: string;
  readonly size: number;
  /** Changes whenever the content may have. */
  readonly stamp: string;
  close(): void;
}

interface Root {
  readonly real: string;
  readonly workspace: boolean;
}

/** Whether `path` is `root` or below it, by segments: `/ws_evil` is not below `/ws`. */
export const isInside = (path: string, root: string): boolean =>
  path === root || (path.startsWith(root) && (root.endsWith(sep) || path[root.length] === sep));

const forbidden = (given: string, field: string): OarlockError =>
  new OarlockError('forbidden_path', `${field} leads outside the folders that this server may use.`, {
    context: { field, path: given.slice(0, 200) },
    hint: 'Use a path inside the workspace or a data root; more data roots can be given with --data_root when starting the server.',
  });

const missing = (given: string, field: string): OarlockError =>
  new OarlockError('not_found', `There is no file or folder at ${shown(given)}.`, {
    context: { field, path: given.slice(0, 200) },
  });

const shown = (path: string): string => (path.length > 200 ? `${path.slice(0, 197)}…` : path);

/** Errors that mean "nothing usable there". */
const ABSENT = new Set(['ENOENT', 'ENOTDIR', 'ELOOP']);

/**
 * Resolves and opens client paths. Rules: `\` counts as `/`; no NUL or other control characters; at most 4096 bytes;
 * after normalising, and again after following every symlink, the path must lie in an allowed root compared by segment;
 * inside a root, hidden folders (`.ssh`, the server's own `.oarlock`) are out of reach, and hidden files of data roots too.
 * Text is taken as it comes: whoever received it over HTTP has decoded it once.
 */
export class PathGuard {
  /** Spelled as configured and as real paths, longest first. */
  readonly #roots: readonly Root[];
  readonly #aliases: readonly string[];
  readonly workspace: string;

  constructor(roots: Roots) {
    const list: Root[] = [];
    const aliases = new Set<string>();
    const add = (path: string, workspace: boolean) => {
      const plain = trimmed(normalize(path));
      aliases.add(plain);
      const real = realOrSelf(plain);
      aliases.add(real);
      if (!list.some((root) => root.real === real && root.workspace === workspace)) list.push({ real, workspace });
    };
    add(roots.workspace, true);
    for (const path of roots.data) add(path, false);
    this.#roots = list.sort((a, b) => b.real.length - a.real.length);
    this.#aliases = [...aliases];
    this.workspace = trimmed(normalize(roots.workspace));
  }

  /** The absolute, normalised spelling of a client path, checked by its text only. */
  spell(given: unknown, options: ResolveOptions = {}): string {
    const field = options.field ?? 'path';
    if (typeof given !== 'string' || given === '') throw invalidArgument(field, `${field} must be a path, not empty.`);
    if (Buffer.byteLength(given) > MAX_LENGTH)
      throw invalidArgument(field, `${field} is longer than ${MAX_LENGTH} bytes.`);
    for (let at = 0; at < given.length; at++) {
      const code = given.charCodeAt(at);
      if (code < 32 || code === 127) throw invalidArgument(field, `${field} contains a control character.`);
    }
    const slashed = given.includes('\\') ? given.replaceAll('\\', '/') : given;
    const path = trimmed(isAbsolute(slashed) ? normalize(slashed) : join(options.base ?? this.workspace, slashed));
    for (const part of path.split(sep)) {
      if (Buffer.byteLength(part) > MAX_SEGMENT)
        throw invalidArgument(field, `${field} has a name longer than ${MAX_SEGMENT} bytes.`);
    }
    if (!this.#aliases.some((root) => isInside(path, root))) throw forbidden(given, field);
    return path;
  }

  /** Real path of something that exists. Throws `not_found`, `forbidden_path`, `invalid_argument`. */
  async resolve(given: unknown, options: ResolveOptions = {}): Promise<string> {
    const path = this.spell(given, options);
    const field = options.field ?? 'path';
    let real: string;
    try {
      real = await realpath(path);
    } catch (error) {
      throw asPathError(error, String(given), field);
    }
    this.#admit(real, String(given), options);
    return real;
  }

  /** Like `resolve`, and it must be a folder. */
  async resolveFolder(given: unknown, options: ResolveOptions = {}): Promise<string> {
    const real = await this.resolve(given, options);
    if (!(await fs.promises.stat(real)).isDirectory()) {
      const field = options.field ?? 'path';
      throw invalidArgument(field, `${shown(String(given))} is a file; ${field} must be a folder.`);
    }
    return real;
  }

  /** Real path that something new may be created at: its nearest existing ancestor decides. Nothing is created. */
  async resolveNew(given: unknown, options: ResolveOptions = {}): Promise<string> {
    const path = this.spell(given, options);
    const field = options.field ?? 'path';
    let existing = path;
    const rest: string[] = [];
    for (;;) {
      try {
        existing = await realpath(existing);
        break;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw asPathError(error, String(given), field);
        // A dangling symlink would decide later where the new thing lands.
        const link = await fs.promises.lstat(existing).catch(() => undefined);
        if (link?.isSymbolicLink()) throw forbidden(String(given), field);
        const cut = existing.lastIndexOf(sep);
        rest.unshift(existing.slice(cut + 1));
        existing = cut <= 0 ? sep : existing.slice(0, cut);
      }
    }
    const real = rest.length === 0 ? existing : join(existing, ...rest);
    this.#admit(real, String(given), options);
    return real;
  }

  /** Whether an already real, absolute path is inside the allowed roots. */
  allows(real: string, within: 'workspace' | 'any' = 'any'): boolean {
    return this.#rootOf(real, within) !== undefined;
  }

  /**
   * Opens a regular file for reading and checks what was really opened, so that a symlink swapped between check and
   * use gains nothing. Never blocks on pipes or devices.
   */
  async open(given: unknown, options: ResolveOptions = {}): Promise<OpenedFile> {
    const path = this.spell(given, options);
    const field = options.field ?? 'path';
    let fd: number;
    let expected: string | undefined;
    try {
      if (!ON_LINUX) {
        expected = await realpath(path);
        this.#admit(expected, String(given), options);
      }
      fd = await open(
        expected ?? path,
        constants.O_RDONLY |
          constants.O_NONBLOCK |
          constants.O_NOCTTY |
          (expected === undefined ? 0 : constants.O_NOFOLLOW),
      );
    } catch (error) {
      throw asPathError(error, String(given), field);
    }
    try {
      // procfs answers from memory: no disk behind this synchronous call.
      const real = expected ?? fs.readlinkSync(`/proc/self/fd/${fd}`);
      this.#admit(real, String(given), options);
      // Neither does this one: the opened inode is in memory. Looking up the path and reading are what may wait.
      const stats = fs.fstatSync(fd);
      if (!stats.isFile()) throw notAFile(stats, String(given), field);
      return {
        fd,
        path: real,
        size: stats.size,
        stamp: `${stats.dev}/${stats.ino}/${stats.size}/${stats.mtimeMs}/${stats.ctimeMs}`,
        close: () => fs.closeSync(fd),
      };
    } catch (error) {
      fs.closeSync(fd);
      throw error;
    }
  }

  /** The whole file, at most `maxBytes`. */
  async readFile(
    given: unknown,
    maxBytes: number,
    options: ResolveOptions = {},
  ): Promise<{ bytes: Buffer; path: string }> {
    const file = await this.open(given, options);
    try {
      return { bytes: await readAll(file, maxBytes, options.field ?? 'path'), path: file.path };
    } finally {
      file.close();
    }
  }

  #rootOf(real: string, within: 'workspace' | 'any'): Root | undefined {
    return this.#roots.find((root) => (root.workspace || within === 'any') && isInside(real, root.real));
  }

  #admit(real: string, given: string, options: ResolveOptions): void {
    const field = options.field ?? 'path';
    const root = this.#rootOf(real, options.within ?? 'any');
    if (root === undefined) throw forbidden(given, field);
    const below = real.slice(root.real.length).split(sep).filter(Boolean);
    const hidden = below.findIndex((part) => part.startsWith('.'));
    if (hidden === -1) return;
    if (root.workspace && hidden === below.length - 1 && below[hidden] !== '.oarlock') return;
    throw forbidden(given, field);
  }
}

/** Content of an opened file. `resource_exhausted` when it is larger than `maxBytes`. */
export async function readAll(file: OpenedFile, maxBytes: number, field = 'path'): Promise<Buffer> {
  if (file.size > maxBytes) {
    throw new OarlockError('resource_exhausted', `The file has ${file.size} bytes; at most ${maxBytes} can be sent.`, {
      context: { field, size: file.size, limit_bytes: maxBytes },
      retryable: false,
    });
  }
  const bytes = Buffer.allocUnsafe(file.size);
  let at = 0;
  while (at < file.size) {
    const { bytesRead } = await read(file.fd, bytes, at, file.size - at, at);
    if (bytesRead === 0) break;
    at += bytesRead;
  }
  return bytes.subarray(0, at);
}

const trimmed = (path: string): string => (path.length > 1 && path.endsWith(sep) ? path.slice(0, -1) : path);

function realOrSelf(path: string): string {
  try {
    return fs.realpathSync.native(path);
  } catch {
    return path;
  }
}

function asPathError(error: unknown, given: string, field: string): unknown {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  if (ABSENT.has(code)) return missing(given, field);
  if (code === 'ENAMETOOLONG') return invalidArgument(field, `${field} is too long.`);
  if (code === 'ENXIO' || code === 'ENODEV') return invalidArgument(field, `${shown(given)} is not a regular file.`);
  if (code === 'EACCES' || code === 'EPERM') {
    return new OarlockError('forbidden_path', `The server may not read ${shown(given)}.`, {
      context: { field },
      hint: 'Check the owner and the permissions of that file and its folders.',
      cause: error,
    });
  }
  return error;
}

const notAFile = (stats: Stats, given: string, field: string): OarlockError =>
  invalidArgument(
    field,
    `${shown(given)} is ${stats.isDirectory() ? 'a folder' : 'not a regular file'}; ${field} must be a file.`,
  );
