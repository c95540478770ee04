/** The hosts of a workspace, kept in a file so that a restarted server finds those its predecessor left behind. */
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isAlive, type ProcessIdentity, processesWithToken, processStat, signalProcess } from './identity.js';
import type { Logger } from './logger.js';
import type { Lane } from './ports.js';

export interface HostEntry extends ProcessIdentity {
  lane: Lane;
  /** The server that started it. While that lives, the host is none of ours. */
  owner: { pid: number; startTime: string };
}

function isEntry(value: unknown): value is HostEntry {
  const entry = value as Partial<HostEntry> | null;
  return (
    typeof entry === 'object' &&
    entry !== null &&
    Number.isInteger(entry.pid) &&
    typeof entry.startTime === 'string' &&
    typeof entry.token === 'string' &&
    entry.token.length >= 16 &&
    typeof entry.owner?.startTime === 'string' &&
    Number.isInteger(entry.owner.pid)
  );
}

export class HostRegistry {
  readonly #folder: string;
  readonly #file: string;
  readonly #entries = new Map<string, HostEntry>();
  #writing: Promise<void> = Promise.resolve();

  constructor(
    workspace: string,
    private readonly logger: Logger,
  ) {
    this.#folder = join(workspace, '.oarlock');
    this.#file = join(this.#folder, 'hosts.json');
  }

  /** Resolves when the entry is in the file. */
  add(identity: ProcessIdentity, lane: Lane): Promise<void> {
    const owner = { pid: process.pid, startTime: processStat(process.pid)?.startTime ?? '' };
    this.#entries.set(identity.token, { ...identity, lane, owner });
    return this.#write();
  }

  remove(token: string): Promise<void> {
    return this.#entries.delete(token) ? this.#write() : Promise.resolve();
  }

  /**
   * Ends what an earlier server left: such a host stops its jobs by itself, so it is given `graceMs` first, then SIGTERM, then SIGKILL.
   * Only processes that carry the recorded random token are touched, whatever has the recorded pid by now.
   */
  async recover(graceMs: number, termGraceMs: number): Promise<void> {
    const left: HostEntry[] = [];
    for (const entry of await this.#read()) {
      if (this.#entries.has(entry.token)) continue;
      const ownerLives = processStat(entry.owner.pid)?.startTime === entry.owner.startTime;
      if (!ownerLives) left.push(entry);
      else if (isAlive(entry)) this.#entries.set(entry.token, entry);
    }
    await Promise.all(left.map((entry) => this.#endLeftover(entry, graceMs, termGraceMs)));
    await this.#write();
  }

  async #endLeftover(entry: HostEntry, graceMs: number, termGraceMs: number): Promise<void> {
    const gone = async (withinMs: number): Promise<boolean> => {
      const until = Date.now() + withinMs;
      for (;;) {
        const alive = await processesWithToken(entry.token);
        if (alive.length === 0) return true;
        if (Date.now() >= until) return false;
        await sleep(Math.min(100, Math.max(10, withinMs / 10)));
      }
    };
    if (await gone(0)) return;
    this.logger.info({ pid: entry.pid, lane: entry.lane }, 'waiting for a compute host of the previous server to end');
    if (await gone(graceMs)) return;
    for (const signal of ['SIGTERM', 'SIGCONT'] as const) {
      for (const identity of await processesWithToken(entry.token)) signalProcess(identity, signal);
    }
    if (await gone(termGraceMs)) return;
    this.logger.warn({ pid: entry.pid, lane: entry.lane }, 'killing a compute host of the previous server');
    for (const identity of await processesWithToken(entry.token)) signalProcess(identity, 'SIGKILL');
    await gone(5_000);
  }

  async #read(): Promise<HostEntry[]> {
    try {
      const parsed: unknown = JSON.parse(await readFile(this.#file, 'utf8'));
      return Array.isArray(parsed) ? parsed.filter(isEntry) : [];
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
        this.logger.warn({ err: error }, 'the record of compute hosts is unreadable and is started anew');
      }
      return [];
    }
  }

  /** One write at a time, each with the newest content, each replacing the file as a whole. */
  #write(): Promise<void> {
    this.#writing = this.#writing.then(async () => {
      const temporary = `${this.#file}.${process.pid}.tmp`;
      try {
        await mkdir(this.#folder, { recursive: true });
        const file = await open(temporary, 'w', 0o600);
        try {
          await file.writeFile(`${JSON.stringify([...this.#entries.values()], null, 1)}\n`);
          await file.sync();
        } finally {
          await file.close();
        }
        await rename(temporary, this.#file);
      } catch (error) {
        this.logger.error({ err: error }, 'the record of compute hosts could not be written');
      }
    });
    return this.#writing;
  }
}
