/** Opens the workspace's database the careful way: owner, probe, backup, salvage. */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { copyFile, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Logger } from '../compute/logger.js';
import { syncFolder } from '../domain/atomic-file.js';
import { PROBE } from './keys.js';
import { takeOwnership } from './owner.js';
import { openDatabase, Store } from './store.js';

export interface OpenOptions {
  workspace: string;
  log: Logger;
  /** Default 10 minutes. */
  backupIntervalMs?: number;
}

export interface OpenedStore {
  store: Store;
  /** What the user should know, e.g. that a backup had to be opened. */
  notices: string[];
  /** Last backup, closes the database, gives the workspace free. */
  close(): Promise<void>;
}

/** Neither the database nor a backup can be read; nothing was overwritten. */
export class DamagedStoreError extends Error {
  constructor(folder: string) {
    super(
      `The database in ${folder} is damaged and there is no backup that can be read. To start with an empty database (datasets and results stay on disk but are not listed), move the folder ${folder} away and start again.`,
    );
    this.name = 'DamagedStoreError';
  }
}

const PROBE_MS = 60_000;
const KEPT_BACKUPS = 3;
const probeScript = join(dirname(fileURLToPath(import.meta.url)), 'probe-main.js');

/** Runs the probe; false when the file is damaged, whatever way that shows: an error, a crash, an endless loop. */
async function probe(path: string, extra: string[] = []): Promise<{ ok: boolean; reason: string }> {
  // LMDB takes an empty file for a new database.
  if (statSync(path).size === 0) return { ok: false, reason: 'the file is empty' };
  return new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      [probeScript, path, ...extra],
      { timeout: PROBE_MS, killSignal: 'SIGKILL', maxBuffer: 1 << 20 },
      (error, _stdout, stderr) => {
        if (error === null) return resolve({ ok: true, reason: '' });
        const said = stderr.trim().split('\n').at(-1) ?? '';
        if (error.code === PROBE.newer) return reject(new Error(said));
        const how = error.killed
          ? 'reading it does not end'
          : error.signal
            ? `reading it ends with ${error.signal}`
            : said;
        resolve({ ok: false, reason: how });
      },
    );
  });
}

const stamp = (): string => new Date().toISOString().replace(/[-:]/g, '').replace('T', '-').slice(0, 15);

/** Newest first. */
function backupsIn(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => /^backup-[\d-]+\.mdb$/.test(name))
    .sort()
    .reverse()
    .map((name) => join(folder, name));
}

function freeName(path: string): string {
  let name = path;
  for (let n = 2; existsSync(name); n++) name = path.replace(/\.mdb$/, `-${n}.mdb`);
  return name;
}

/** Puts the newest readable backup, or else what can be salvaged, in the place of the damaged file. Returns what to tell the user. */
async function replaceDamaged(path: string, reason: string, log: Logger): Promise<string> {
  const folder = dirname(path);
  const aside = freeName(join(folder, `damaged-${stamp()}.mdb`));
  for (const backup of backupsIn(folder)) {
    const copy = `${path}.restored`;
    await copyFile(backup, copy);
    const { ok } = await probe(copy);
    rmSync(`${copy}-lock`, { force: true });
    if (!ok) {
      await rm(copy, { force: true });
      log.warn({ backup }, 'this backup cannot be read either');
      continue;
    }
    renameSync(path, aside);
    rmSync(`${path}-lock`, { force: true });
    await rename(copy, path);
    await syncFolder(folder);
    const when = statSync(backup).mtime.toLocaleString('sv-SE');
    return `The database was damaged (${reason}). The backup of ${when} is in use; later changes are lost. The damaged file is kept as ${aside}.`;
  }
  const dump = `${path}.salvage`;
  await probe(path, ['--salvage', dump]);
  const lines = existsSync(dump) ? readFileSync(dump, 'utf8').split('\n') : [];
  const entries = lines.flatMap((line): [string, string][] => {
    try {
      return [JSON.parse(line)];
    } catch {
      return []; // cut off by a crash
    }
  });
  rmSync(dump, { force: true });
  if (entries.length === 0) throw new DamagedStoreError(folder);
  const copy = `${path}.salvaged`;
  rmSync(copy, { force: true });
  const db = openDatabase(copy);
  await db.transaction(() => {
    for (const [key, value] of entries) void db.put(key, value);
  });
  await db.flushed;
  await db.close();
  rmSync(`${copy}-lock`, { force: true });
  renameSync(path, aside);
  rmSync(`${path}-lock`, { force: true });
  await rename(copy, path);
  await syncFolder(folder);
  return `The database was damaged (${reason}) and there was no backup. ${entries.length} entries could be read and are in use; others may be missing. The damaged file is kept as ${aside}.`;
}

async function takeBackup(store: Store, folder: string): Promise<void> {
  const partial = join(folder, 'backup.partial');
  await rm(partial, { force: true });
  await store.backup(partial);
  const handle = await open(partial, 'r');
  await handle.sync().finally(() => handle.close());
  await rename(partial, freeName(join(folder, `backup-${stamp()}.mdb`)));
  await syncFolder(folder);
  for (const old of backupsIn(folder).slice(KEPT_BACKUPS)) await rm(old, { force: true });
}

/**
 * Throws `WorkspaceInUseError`, `NewerFormatError` or `DamagedStoreError`, each with what to do about it.
 * A damaged file is never overwritten.
 */
export async function openStore(options: OpenOptions): Promise<OpenedStore> {
  const { workspace, log } = options;
  const state = join(workspace, '.oarlock');
  const folder = join(state, 'store');
  const giveBack = await takeOwnership(state, workspace);
  try {
    mkdirSync(folder, { recursive: true });
    const path = join(folder, 'oarlock.mdb');
    const notices: string[] = [];
    const isNew = !existsSync(path) || (statSync(path).size === 0 && backupsIn(folder).length === 0);
    if (existsSync(path) && !isNew) {
      const { ok, reason } = await probe(path);
      if (!ok) {
        const notice = await replaceDamaged(path, reason, log);
        log.error({}, notice);
        notices.push(notice);
      }
    } else if (backupsIn(folder).length > 0) {
      const backup = backupsIn(folder)[0] as string;
      const notice = `The database file was missing; the backup ${backup} is in use.`;
      await copyFile(backup, path);
      log.error({}, notice);
      notices.push(notice);
    }
    const store = new Store(path, { workspace });
    let backedUp = 0;
    let running: Promise<void> = Promise.resolve();
    const backUp = (): Promise<void> => {
      running = running.then(async () => {
        if (store.commits === backedUp) return;
        const commits = store.commits;
        try {
          await takeBackup(store, folder);
          backedUp = commits;
        } catch (error) {
          log.error({ err: error }, 'the database could not be backed up');
        }
      });
      return running;
    };
    const timer = setInterval(backUp, options.backupIntervalMs ?? 600_000);
    timer.unref();
    return {
      store,
      notices,
      async close() {
        clearInterval(timer);
        await backUp();
        await store.close();
        giveBack();
      },
    };
  } catch (error) {
    giveBack();
    throw error;
  }
}
