/**
 * Demo projects: an archive from the operator's folder or mirror becomes a dataset, a project and a task that is ready to train.
 * Without a configured source nothing is fetched, and the answer says so.
 */
import { cp, lstat, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ARCHIVE_ENDINGS, unpack } from './archive/index.js';
import { type DomainContext, readType, shown } from './context.js';
import type { DatasetsApi, ProjectsApi, TasksApi, WorkspaceApi } from './contracts.js';
import { DatasetStatus, DownloadStatus, PROJECT_TYPES, type ProjectType } from './enums.js';
import { notReady, OarlockError } from './errors.js';
import type { Mirror } from './mirror.js';
import { isWeightsPath } from './params/index.js';
import type { DemoRecord } from './records.js';

/** Archives by the names that PaddleX gives them. */
const SETS: Readonly<Record<ProjectType, string>> = {
  classification: 'vegetables_cls',
  detection: 'insect_det',
  segmentation: 'optic_disc_seg',
  instance_segmentation: 'xiaoduxiong_ins_det',
};

export interface DemoConfig {
  /** Folder with the archives, or with the sets unpacked. */
  demoDir: string | null;
  mirror: Mirror | null;
}

export interface DemoState {
  /** `DownloadStatus`, or null when nothing was asked for. */
  status: DownloadStatus | null;
  /** Percent; always a number, because the page takes anything else for "finished". */
  progress: number;
  message: string;
}

export type LoadAnswer = { did: string; pid: string } | { loading_status: string };

export interface DemoApi {
  /** Begins a download; one that runs or is done already goes on. */
  download(type: ProjectType): Promise<void>;
  state(type: ProjectType): DemoState;
  /** Creates dataset, project, binding and task from what was downloaded. */
  load(type: ProjectType): Promise<LoadAnswer>;
  /** Ends a download; a load whose import is not finished is taken back. */
  stop(type: ProjectType): Promise<void>;
}

export interface DemoServices {
  readonly datasets: Pick<DatasetsApi, 'list' | 'create' | 'import' | 'delete'>;
  readonly projects: Pick<ProjectsApi, 'list' | 'create' | 'delete'>;
  readonly tasks: Pick<TasksApi, 'create'>;
  readonly workspace: Pick<WorkspaceApi, 'setAttributes'>;
}

/** What the store keeps per type. */
interface Kept extends DemoRecord {
  readonly status: DownloadStatus | null;
  readonly message: string;
  /** The last load, until it is taken back. */
  readonly did?: string;
  readonly pid?: string;
}

interface Live {
  controller: AbortController;
  progress: number;
  told: number;
  ended: Promise<void>;
}

const STOPPED = 'The download was stopped.';
const MAX_PARAMS = 1 << 20;

export class Demo implements DemoApi {
  readonly #context: DomainContext;
  readonly #services: DemoServices;
  readonly #config: DemoConfig;
  readonly #live = new Map<ProjectType, Live>();
  /** Loads and stops of one type in order. */
  readonly #turns = new Map<ProjectType, Promise<unknown>>();

  constructor(context: DomainContext, services: DemoServices, config: DemoConfig) {
    this.#context = context;
    this.#services = services;
    this.#config = config;
  }

  state(type: ProjectType): DemoState {
    const { status, message } = this.#kept(type);
    const progress = status === DownloadStatus.XDDECOMPRESSED ? 100 : (this.#live.get(type)?.progress ?? 0);
    return { status, progress, message };
  }

  async download(type: ProjectType): Promise<void> {
    if (this.#live.has(type)) return;
    if (this.#kept(type).status === DownloadStatus.XDDECOMPRESSED && (await isFolder(this.#place(type)))) return;
    await this.#context.requireSpace();
    if (this.#live.has(type)) return; // another request was faster
    const live: Live = { controller: new AbortController(), progress: 0, told: -1, ended: Promise.resolve() };
    this.#live.set(type, live);
    try {
      await this.#set(type, { status: DownloadStatus.XDDOWNLOADING, message: '' });
    } catch (error) {
      this.#live.delete(type);
      throw error;
    }
    live.ended = this.#fetch(type, live).finally(() => this.#live.delete(type));
  }

  load(type: ProjectType): Promise<LoadAnswer> {
    return this.#inTurn(type, () => this.#load(type));
  }

  stop(type: ProjectType): Promise<void> {
    return this.#inTurn(type, async () => {
      const live = this.#live.get(type);
      live?.controller.abort(new Error(STOPPED));
      await live?.ended;
      await this.#takeBack(type);
    });
  }

  /** After a crash: what was being fetched has failed. */
  async recover(): Promise<void> {
    for (const type of PROJECT_TYPES) {
      const { status } = this.#kept(type);
      if (status !== DownloadStatus.XDDOWNLOADING && status !== DownloadStatus.XDDOWNLOADDONE) continue;
      await this.#sweep(type);
      await this.#set(type, {
        status: DownloadStatus.XDDOWNLOADFAIL,
        message: 'The server ended during the download. Start it again.',
      });
    }
  }

  /** Ends every download, for the end of the server. */
  async close(): Promise<void> {
    const running = [...this.#live.values()];
    for (const { controller } of running) controller.abort(new Error(STOPPED));
    await Promise.all(running.map(({ ended }) => ended));
  }

  #inTurn<T>(type: ProjectType, work: () => Promise<T>): Promise<T> {
    const mine = (this.#turns.get(type) ?? Promise.resolve()).then(work, work);
    this.#turns.set(
      type,
      mine.catch(() => {}),
    );
    return mine;
  }

  #kept(type: ProjectType): Kept {
    return (this.#context.store.get('demo', type) as Kept | undefined) ?? { id: type, status: null, message: '' };
  }

  async #set(type: ProjectType, change: Partial<Kept>): Promise<void> {
    await this.#context.store.change((tx) => {
      const before = (tx.get('demo', type) as Kept | undefined) ?? { id: type, status: null, message: '' };
      tx.put('demo', { ...before, ...change });
    });
    this.#tell(type);
  }

  #tell(type: ProjectType): void {
    const { status, progress } = this.state(type);
    this.#context.events.publish('demo', { type, status, progress });
  }

  #folder(type: ProjectType): string {
    return join(this.#context.config.workspace, 'demo_datasets', type);
  }

  /** The unpacked set. */
  #place(type: ProjectType): string {
    return join(this.#folder(type), SETS[type]);
  }

  async #fetch(type: ProjectType, live: Live): Promise<void> {
    try {
      await mkdir(this.#folder(type), { recursive: true });
      await this.#sweep(type);
      await this.#bring(type, live);
      await this.#set(type, { status: DownloadStatus.XDDECOMPRESSED, message: '' });
    } catch (error) {
      await this.#sweep(type).catch(() => {});
      const stopped = live.controller.signal.aborted;
      const told = stopped ? { message: STOPPED } : shown(error, this.#context.log, `demo ${type} failed`);
      const message = told.hint === undefined ? told.message : `${told.message} ${told.hint}`;
      const status = stopped ? null : DownloadStatus.XDDOWNLOADFAIL;
      await this.#set(type, { status, message }).catch((lost: unknown) =>
        this.#context.log.error({ err: lost, type }, 'the end of a demo download was not stored'),
      );
    }
  }

  /** Removes what an earlier try left behind. */
  async #sweep(type: ProjectType): Promise<void> {
    const names = await readdir(this.#folder(type)).catch(() => [] as string[]);
    for (const name of names.filter((entry) => entry.startsWith('.')))
      await rm(join(this.#folder(type), name), { recursive: true, force: true });
  }

  /** Archive or folder → the unpacked set, renamed into place whole. */
  async #bring(type: ProjectType, live: Live): Promise<void> {
    const { signal } = live.controller;
    const building = join(this.#folder(type), '.unpacking');
    const local = await this.#localSource(type);
    if (local?.folder) {
      // Links are left out: they would lead out of the workspace.
      const filter = async (path: string) => !signal.aborted && !(await isLink(path));
      await cp(local.path, building, { recursive: true, filter, errorOnExist: true });
      signal.throwIfAborted();
    } else {
      const archive = local?.path ?? (await this.#download(type, live));
      await this.#set(type, { status: DownloadStatus.XDDOWNLOADDONE });
      await unpack(archive, building, { signal });
      if (local === undefined) await rm(archive, { force: true });
    }
    const inner = await setFolder(building, SETS[type]);
    await rm(this.#place(type), { recursive: true, force: true });
    await rename(inner, this.#place(type));
    await rm(building, { recursive: true, force: true });
  }

  async #localSource(type: ProjectType): Promise<{ path: string; folder: boolean } | undefined> {
    const { demoDir } = this.#config;
    if (demoDir === null) return undefined;
    for (const ending of ARCHIVE_ENDINGS) {
      const path = join(demoDir, `${SETS[type]}${ending}`);
      if (await isFile(path)) return { path, folder: false };
    }
    const path = join(demoDir, SETS[type]);
    return (await isFolder(path)) ? { path, folder: true } : undefined;
  }

  async #download(type: ProjectType, live: Live): Promise<string> {
    const { mirror, demoDir } = this.#config;
    const set = SETS[type];
    if (mirror === null) {
      const where =
        demoDir === null ? 'No source of demos is configured' : `The demo folder has no ${set}.tar.gz or ${set}.zip`;
      throw new OarlockError('not_ready', `${where}, and this server fetches nothing by itself.`, {
        hint: `Put ${set}.tar.gz into a folder and start the server with --demo_dir FOLDER, or name a mirror with --demo_mirror URL.`,
      });
    }
    const { signal } = live.controller;
    const sums = await mirror.sums({ signal });
    const name = ARCHIVE_ENDINGS.map((ending) => `${set}${ending}`).find((file) => sums.has(file));
    if (name === undefined)
      throw new OarlockError('not_found', `The configured mirror has no ${set}.tar.gz in its SHA256SUMS.`);
    const archive = join(this.#folder(type), `.${name}`);
    await mirror.download(name, archive, sums.get(name) as string, {
      signal,
      onProgress: ({ downloaded, total }) => {
        // 100 is for the set that can be loaded.
        live.progress = total > 0 ? Math.min(99, Math.round((downloaded / total) * 1000) / 10) : 0;
        if (Math.floor(live.progress) === live.told) return;
        live.told = Math.floor(live.progress);
        this.#tell(type);
      },
    });
    return archive;
  }

  async #load(type: ProjectType): Promise<LoadAnswer> {
    const { datasets, projects, tasks, workspace } = this.#services;
    const place = this.#place(type);
    if (this.#kept(type).status !== DownloadStatus.XDDECOMPRESSED || !(await isFolder(place))) {
      throw notReady(
        `The ${type} demo is not downloaded and unpacked yet.`,
        'Download it first (POST /demo with type "download").',
      );
    }
    const params = await readParams(join(place, `${SETS[type]}_params.json`), type);
    if (datasets.list().some(({ name }) => name === params.dataset.name))
      return { loading_status: 'dataset already exists' };
    if (projects.list().some(({ name }) => name === params.project.name))
      return { loading_status: 'project already exists' };
    let did: string | undefined;
    let pid: string | undefined;
    try {
      did = (await datasets.create(params.dataset)).id;
      await datasets.import(did, place, { demo: true });
      pid = (await projects.create(params.project)).id;
      await workspace.setAttributes('project', pid, { did });
      await tasks.create({ pid, train: params.train });
      await this.#set(type, { did, pid });
      return { did, pid };
    } catch (error) {
      if (pid !== undefined) await projects.delete(pid, { force: true }).catch(() => {});
      if (did !== undefined) await datasets.delete(did, { force: true }).catch(() => {});
      throw error;
    }
  }

  /** Deletes project and dataset of a load whose import has not ended well; a finished one is the user's. */
  async #takeBack(type: ProjectType): Promise<void> {
    const { did, pid } = this.#kept(type);
    if (did === undefined || pid === undefined) return;
    const dataset = this.#services.datasets.list().find(({ id }) => id === did);
    const finished = dataset?.status === DatasetStatus.XCOPYDONE || dataset?.status === DatasetStatus.XSPLITED;
    if (dataset !== undefined && !finished) {
      if (this.#services.projects.list().some(({ id }) => id === pid))
        await this.#services.projects.delete(pid, { force: true });
      await this.#services.datasets.delete(did, { force: true });
    }
    await this.#context.store.change((tx) => {
      const { did: _did, pid: _pid, ...rest } = this.#kept(type);
      tx.put('demo', rest);
    });
  }
}

interface DemoParams {
  dataset: { name: string; desc: string; type: ProjectType };
  project: { name: string; desc: string; type: ProjectType };
  train: Record<string, unknown>;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** `<set>_params.json` of the archive: names, types and training parameters. */
async function readParams(path: string, type: ProjectType): Promise<DemoParams> {
  const bad = (why: string) =>
    new OarlockError('invalid_argument', `The parameters of the ${type} demo cannot be used: ${why}.`);
  let read: unknown;
  const handle = await open(path, 'r').catch(() => {
    throw bad(`it has no ${SETS[type]}_params.json`);
  });
  try {
    if ((await handle.stat()).size > MAX_PARAMS) throw bad('they are too large');
    read = JSON.parse((await handle.readFile('utf8')).replace(/^\uFEFF/, ''));
  } catch (error) {
    throw error instanceof OarlockError ? error : bad((error as Error).message);
  } finally {
    await handle.close();
  }
  if (!isObject(read) || !isObject(read.dataset_info) || !isObject(read.project_info))
    throw bad('dataset_info or project_info is missing');
  const info = (given: Record<string, unknown>, key: string) => {
    if (typeof given.name !== 'string' || given.name === '') throw bad('a name is missing');
    const wanted = given[key];
    const said = readType(key, typeof wanted === 'string' || typeof wanted === 'number' ? wanted : type).type;
    if (said !== type) throw bad(`they are for ${said}`);
    return { name: given.name, desc: typeof given.desc === 'string' ? given.desc : '', type };
  };
  const train = isObject(read.train_params) ? { ...read.train_params } : {};
  // A published name counts only when those weights are here; then the suggestions bring it.
  if (typeof train.pretrain_weights === 'string' && !isWeightsPath(train.pretrain_weights))
    delete train.pretrain_weights;
  return { dataset: info(read.dataset_info, 'dataset_type'), project: info(read.project_info, 'project_type'), train };
}

/** The folder of the set inside what was unpacked: archives have it at the top, folders are it. */
async function setFolder(root: string, set: string): Promise<string> {
  if (await isFolder(join(root, set))) return join(root, set);
  const names = (await readdir(root)).filter((name) => !name.startsWith('.') && name !== '__MACOSX');
  if (names.includes(`${set}_params.json`)) return root;
  const [only] = names;
  if (names.length === 1 && only !== undefined && (await isFile(join(root, only, `${set}_params.json`))))
    return join(root, only);
  throw new OarlockError('invalid_argument', `The archive has no folder ${set} with a ${set}_params.json.`);
}

const kind = (path: string) => stat(path).catch(() => undefined);
const isFolder = async (path: string): Promise<boolean> => (await kind(path))?.isDirectory() ?? false;
const isFile = async (path: string): Promise<boolean> => (await kind(path))?.isFile() ?? false;
const isLink = async (path: string): Promise<boolean> => (await lstat(path)).isSymbolicLink();
