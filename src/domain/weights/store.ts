/** Pretrained weights on this machine: where they lie, how they are found by name, how they get there. */
import { createHash } from 'node:crypto';
import { createReadStream, readdirSync } from 'node:fs';
import { copyFile, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, extname, join } from 'node:path';
import { syncFolder, temporaryName, writeFileAtomic } from '../atomic-file.js';
import type { WeightsApi } from '../contracts.js';
import type { ProjectType } from '../enums.js';
import { invalidArgument, notFound, OarlockError } from '../errors.js';
import type { DownloadProgress, Mirror } from '../mirror.js';
import {
  chooseBackbone,
  findModel,
  type ModelInfo,
  pretrainedNames,
  usableKeys,
  weightsKey,
} from '../params/models.js';
import { isWeightsPath } from '../params/stored.js';
import type { PathGuard } from '../paths.js';
import { ENDINGS, inspectWeights, type WeightsFormat } from './inspect.js';

/** The folder for weights that all workspaces share: `OARLOCK_WEIGHTS_DIR`, else `weights` in the cache folder. */
export function defaultWeightsFolder(env: NodeJS.ProcessEnv = process.env): string {
  if (env.OARLOCK_WEIGHTS_DIR) return env.OARLOCK_WEIGHTS_DIR;
  const cache = env.OARLOCK_CACHE ?? join(env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'oarlock');
  return join(cache, 'weights');
}

export interface WeightsOptions {
  /** `<ws>/pretrain`, searched first; absent for tools that have no workspace. */
  pretrain?: string | undefined;
  /** Folder shared by all workspaces; gets what is added or downloaded. */
  folder: string;
  /** Asked for what is not on this machine. */
  mirror?: Mirror | undefined;
  /** Judges paths that clients give instead of names. */
  guard?: PathGuard | undefined;
}

export interface WeightsEntry {
  /** `<Model>[_<backbone>]_<NAME>`. */
  key: string;
  path: string;
  format: WeightsFormat;
  bytes: number;
}

export interface WeightsRequest {
  type: ProjectType;
  model: string;
  backbone?: string | undefined;
  /** A published name (`IMAGENET`), a file, or a folder with one. */
  wanted: string;
}

export interface ResolveHooks {
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: DownloadProgress) => void) | undefined;
}

/** How long `has` may answer from memory, in ms. */
const RESCAN_MS = 2000;

const FORMATS = Object.keys(ENDINGS) as WeightsFormat[];
const formatOf = (name: string): WeightsFormat | undefined =>
  FORMATS.find((format) => ENDINGS[format].includes(extname(name).toLowerCase()));

export class Weights implements WeightsApi {
  readonly #options: WeightsOptions;
  #seen: { at: number; keys: ReadonlySet<string> } | undefined;

  constructor(options: WeightsOptions) {
    this.#options = options;
  }

  /** Everything on this machine, the workspace's own before the shared ones; one entry a key. */
  async list(): Promise<WeightsEntry[]> {
    const found = new Map<string, WeightsEntry>();
    for (const root of this.#roots()) {
      for (const entry of await folderEntries(root)) {
        const place = join(root, entry.name);
        // A saved model of a task (PM0001) is no published set.
        const key = entry.isDirectory() ? entry.name : basename(entry.name, extname(entry.name));
        if (/^(PM|EM)\d+$/.test(key) || key.startsWith('.') || found.has(key)) continue;
        const file = entry.isDirectory()
          ? await pickFile(place)
          : formatOf(entry.name) === undefined
            ? undefined
            : place;
        if (file === undefined) continue;
        const { size } = await stat(file);
        found.set(key, { key, path: file, format: formatOf(file) as WeightsFormat, bytes: size });
      }
    }
    return [...found.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  /** Keys on this machine, for `suggestParams`. */
  async keys(): Promise<Set<string>> {
    return new Set((await this.list()).map((entry) => entry.key));
  }

  /** Whether weights of that key are on this machine; the folders are read again at most every two seconds. */
  has(key: string): boolean {
    const now = performance.now();
    if (this.#seen === undefined || now - this.#seen.at > RESCAN_MS)
      this.#seen = { at: now, keys: scanKeys(this.#roots()) };
    return this.#seen.keys.has(key);
  }

  /** Absolute path of the file for a key, if it is on this machine. */
  async find(key: string): Promise<string | undefined> {
    return this.#find(key);
  }

  /**
   * The file to load for what a task asks.
   * @throws OarlockError `not_found` with a hint where to put which file; `forbidden_path`, `invalid_argument` for paths.
   */
  async resolve(request: WeightsRequest, hooks: ResolveHooks = {}): Promise<string> {
    if (isWeightsPath(request.wanted)) return this.#resolvePath(request.wanted);
    const info = findModel(request.type, request.model);
    const { backbone } = chooseBackbone(info, request.backbone);
    const names = pretrainedNames(info, backbone);
    const name = names.find((known) => known.toLowerCase() === request.wanted.toLowerCase()) ?? (names[0] as string);
    const key = weightsKey(info, backbone, name);
    for (const usable of usableKeys(info, backbone, name)) {
      const here = await this.#find(usable);
      if (here !== undefined) return here;
    }
    const where = this.#where(info, backbone, name, key);
    const context = { field: 'pretrain_weights', weights: key };
    if (this.#options.mirror === undefined) {
      const which = backbone === undefined ? info.name : `${info.name} with ${backbone}`;
      const hint = `${where}; or set pretrain_weights to null to start from random weights.`;
      const message = `The pretrained weights ${name} of ${which} are not on this machine.`;
      throw new OarlockError('not_found', message, { context, hint });
    }
    try {
      return await this.#fetch(key, this.#options.mirror, hooks);
    } catch (error) {
      if (!(error instanceof OarlockError) || hooks.signal?.aborted) throw error;
      const { code, message, retryable, cause } = error;
      const hint = [error.hint, `${where}.`].filter((part) => part !== undefined).join(' ');
      throw new OarlockError(code, message, { context: { ...error.context, ...context }, hint, retryable, cause });
    }
  }

  /** Copies a weights file to where it is found by name; an older one of that name is replaced. */
  async add(
    file: string,
    info: ModelInfo,
    backbone: string | undefined,
    name: string,
    onBytes?: (copied: number, total: number) => void,
  ): Promise<WeightsEntry> {
    const { format, bytes } = await inspectWeights(file).catch(absentFile(file));
    const key = weightsKey(info, backbone, name);
    await mkdir(this.#options.folder, { recursive: true });
    return this.#place(key, format, async (temporary) => {
      await copyFile(file, temporary);
      return sha256(temporary, (done) => onBytes?.(done, bytes));
    });
  }

  /** Compares a set's file with the checksum noted when it was added. */
  async verify(
    entry: WeightsEntry,
    onBytes?: (read: number, total: number) => void,
  ): Promise<'ok' | 'changed' | 'unchecked'> {
    await inspectWeights(entry.path);
    const noted = await readFile(`${entry.path}.sha256`, 'utf8').catch(() => undefined);
    if (noted === undefined) return 'unchecked';
    const actual = await sha256(entry.path, (done) => onBytes?.(done, entry.bytes));
    return noted.startsWith(actual) ? 'ok' : 'changed';
  }

  #roots(): string[] {
    const { pretrain, folder } = this.#options;
    return pretrain === undefined ? [folder] : [pretrain, folder];
  }

  async #find(key: string): Promise<string | undefined> {
    for (const root of this.#roots()) {
      const inside = await pickFile(join(root, key));
      if (inside !== undefined) return inside;
      for (const ending of FORMATS.flatMap((format) => ENDINGS[format])) {
        const flat = join(root, `${key}${ending}`);
        if (await isFile(flat)) return flat;
      }
    }
    return undefined;
  }

  async #resolvePath(given: string): Promise<string> {
    const field = 'pretrain_weights';
    const { guard } = this.#options;
    if (guard === undefined) throw invalidArgument(field, `${field} must be a name here, not a path.`);
    const path = await guard.resolve(given, { field });
    if (!(await stat(path)).isDirectory()) {
      if (formatOf(path) !== undefined) return path;
      throw invalidArgument(
        field,
        `${given} is no weights file.`,
        'Use a .safetensors, .pth or .pdparams file, or a folder with one.',
      );
    }
    const file = await pickFile(path);
    if (file === undefined) {
      throw new OarlockError('not_found', `The folder ${given} holds no weights.`, {
        context: { field, path: given },
        hint: 'It should contain model.safetensors, model.pdparams or model.pth.',
      });
    }
    return guard.resolve(file, { field });
  }

  /** Where the user has to put which file. */
  #where(info: ModelInfo, backbone: string | undefined, name: string, key: string): string {
    const place = join(this.#options.folder, key);
    const command = `npm run weights -- add FILE --model ${info.name}${backbone === undefined ? '' : ` --backbone ${backbone}`} --name ${name}`;
    return `Put the file to ${join(place, 'model.safetensors')} (or model.pth, model.pdparams), or run "${command}"`;
  }

  async #fetch(key: string, mirror: Mirror, hooks: ResolveHooks): Promise<string> {
    const sums = await mirror.sums(hooks);
    for (const format of FORMATS) {
      for (const remote of ENDINGS[format].flatMap((ending) => [`${key}${ending}`, `${key}/model${ending}`])) {
        const sum = sums.get(remote);
        if (sum === undefined) continue;
        await mkdir(this.#options.folder, { recursive: true });
        const entry = await this.#place(key, format, async (temporary) => {
          await mirror.download(remote, temporary, sum, hooks);
          return sum;
        });
        return entry.path;
      }
    }
    throw new OarlockError('not_found', `The configured mirror has no weights ${key}.`, {
      hint: `Its SHA256SUMS must list ${key}.safetensors, ${key}.pth or ${key}.pdparams.`,
    });
  }

  /** Fills a hidden folder and renames it into place whole, so that a half-written file is never found. */
  async #place(key: string, format: WeightsFormat, fill: (file: string) => Promise<string>): Promise<WeightsEntry> {
    const place = join(this.#options.folder, key);
    const building = temporaryName(place);
    const name = `model${ENDINGS[format][0]}`;
    await mkdir(building, { recursive: true });
    try {
      const sum = await fill(join(building, name));
      const { bytes } = await inspectWeights(join(building, name));
      const handle = await open(join(building, name), 'r');
      await handle.sync().finally(() => handle.close());
      await writeFileAtomic(join(building, `${name}.sha256`), `${sum}  ${name}\n`);
      const old = temporaryName(place);
      const had = await rename(place, old).then(
        () => true,
        () => false,
      );
      await rename(building, place);
      if (had) await rm(old, { recursive: true, force: true });
      await syncFolder(this.#options.folder);
      this.#seen = undefined;
      return { key, path: join(place, name), format, bytes };
    } catch (error) {
      await rm(building, { recursive: true, force: true });
      throw error;
    }
  }
}

const isFile = (path: string): Promise<boolean> =>
  stat(path).then(
    (stats) => stats.isFile(),
    () => false,
  );

const folderEntries = (folder: string) =>
  readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return [];
    throw error;
  });

/** The weights inside a folder: `model.*` before other names, safetensors before pth before pdparams. */
async function pickFile(folder: string): Promise<string | undefined> {
  const names = (await folderEntries(folder)).filter((entry) => !entry.isDirectory()).map((entry) => entry.name);
  const usable = names.filter((name) => formatOf(name) !== undefined && !name.startsWith('.'));
  const rank = (name: string): string => {
    const kind = FORMATS.indexOf(formatOf(name) as WeightsFormat);
    return `${name.startsWith('model.') ? 0 : 1}${kind}${name}`;
  };
  const [best] = usable.sort((a, b) => (rank(a) < rank(b) ? -1 : 1));
  return best === undefined ? undefined : join(folder, best);
}

/** Synchronous because defaults are computed inside one synchronous answer; the folders hold a few entries. */
function scanKeys(roots: readonly string[]): Set<string> {
  const keys = new Set<string>();
  for (const root of roots) {
    for (const entry of namesIn(root)) {
      if (entry.startsWith('.')) continue;
      if (formatOf(entry) !== undefined) keys.add(basename(entry, extname(entry)));
      else if (namesIn(join(root, entry)).some((name) => formatOf(name) !== undefined)) keys.add(entry);
    }
  }
  return keys;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // no folder
  }
}

async function sha256(path: string, onBytes: (done: number) => void): Promise<string> {
  const hash = createHash('sha256');
  let done = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
    hash.update(chunk);
    done += chunk.length;
    onBytes(done);
  }
  return hash.digest('hex');
}

const absentFile = (file: string) => (error: NodeJS.ErrnoException) => {
  if (error.code === 'ENOENT') throw notFound('file', file);
  throw error;
};
