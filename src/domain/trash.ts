/** Folders on their way out. Only what a record of ours named is ever deleted, and only inside the workspace. */
import { randomBytes } from 'node:crypto';
import { lstat, mkdir, realpath, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, sep } from 'node:path';
import type { DomainContext } from './context.js';
import { isInside } from './paths.js';
import type { Tx } from './repository.js';

/** Folders of the workspace that hold folders of records; themselves never deleted. */
const TOP = ['datasets', 'projects', 'pretrain', 'demo_datasets'];

export class Trash {
  readonly #context: DomainContext;
  #purging: Promise<void> = Promise.resolve();
  /** Out of sight, to be deleted. An entry noted meanwhile by somebody else is not among them. */
  readonly #hidden = new Set<string>();

  constructor(context: DomainContext) {
    this.#context = context;
  }

  /** Notes in the same transaction as a record's removal that its folder goes too. Call `sweep` after the commit. */
  discard(tx: Tx, path: string): void {
    tx.put('trash', { id: `${Date.now().toString(36)}${randomBytes(4).toString('hex')}`, path });
  }

  /** Moves every noted folder out of sight, then deletes in the background. Also finishes what a crash interrupted. */
  async sweep(): Promise<void> {
    const { store, log } = this.#context;
    for (const { id, path } of store.list('trash')) {
      try {
        await this.#hide(id, path);
        this.#hidden.add(id);
      } catch (error) {
        log.error({ err: error, path }, 'a deleted folder could not be moved to the trash');
        await store.change((tx) => tx.remove('trash', id)).catch(() => {});
      }
    }
    this.#purging = this.#purging.then(() => this.#purge());
  }

  /** Waits for deletions under way. */
  async settled(): Promise<void> {
    await this.#purging;
  }

  get #folder(): string {
    return join(this.#context.config.workspace, '.trash');
  }

  async #hide(id: string, path: string): Promise<void> {
    if (!(await this.#mayDelete(path))) {
      this.#context.log.warn({ path }, 'a folder outside the places of this workspace is left where it is');
      return;
    }
    await mkdir(this.#folder, { recursive: true });
    await rename(path, join(this.#folder, id)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error; // moved before a crash, or never made
    });
  }

  /** The parent is a real folder of the workspace; the thing itself may be a link, of which only the link goes. */
  async #mayDelete(path: string): Promise<boolean> {
    const workspace = await realpath(this.#context.config.workspace);
    const entry = await lstat(path).catch(() => undefined);
    if (entry === undefined) return true;
    const parent = await realpath(dirname(path)).catch(() => undefined);
    if (parent === undefined || !isInside(parent, workspace) || basename(path).startsWith('.')) return false;
    const below = join(parent, basename(path))
      .slice(workspace.length + 1)
      .split(sep);
    return below.length >= 2 && TOP.includes(below[0] as string);
  }

  async #purge(): Promise<void> {
    const { store, log } = this.#context;
    for (const id of [...this.#hidden]) {
      this.#hidden.delete(id);
      try {
        await rm(join(this.#folder, id), { recursive: true, force: true, maxRetries: 3 });
        await store.change((tx) => tx.remove('trash', id));
      } catch (error) {
        log.warn({ err: error, id }, 'the trash could not be emptied; tried again at the next start');
      }
    }
  }
}
