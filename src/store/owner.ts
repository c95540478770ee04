/** One server per workspace: a file names the owner by pid, start time and boot, so that a reused pid is never taken for it. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { processStat } from '../compute/identity.js';

interface Owner {
  pid: number;
  /** Clock ticks since boot; '' where the system does not tell. */
  startTime: string;
  bootId: string;
  host: string;
  token: string;
  since: string;
}

export class WorkspaceInUseError extends Error {
  constructor(owner: Owner, workspace: string) {
    super(
      `The workspace ${workspace} is in use by another server (process ${owner.pid} on ${owner.host}, since ${owner.since}). Stop that one first, or choose another folder with --workspace_dir.`,
    );
    this.name = 'WorkspaceInUseError';
  }
}

function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return '';
  }
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function isAlive(owner: Owner): boolean {
  if (owner.host === hostname() && owner.bootId !== bootId()) return false;
  const stat = processStat(owner.pid);
  // Without /proc only the pid is left to go by.
  if (stat === undefined || owner.startTime === '') return owner.startTime === '' && isRunning(owner.pid);
  return stat.startTime === owner.startTime && stat.state !== 'Z';
}

function readOwner(path: string): Owner | undefined {
  try {
    const owner = JSON.parse(readFileSync(path, 'utf8')) as Owner;
    return Number.isInteger(owner.pid) && typeof owner.token === 'string' ? owner : undefined;
  } catch {
    return undefined; // none, or torn by a crash while it was written
  }
}

/** A takeover takes milliseconds; a folder older than this was left by a crash. */
const TAKEOVER_MS = 5000;

/**
 * Makes this process the owner of `folder`. Throws `WorkspaceInUseError`. Returns the function that gives it back.
 * Looking at the old owner and writing the new one happen under an exclusive folder, so two starters cannot both win.
 */
export async function takeOwnership(folder: string, workspace: string): Promise<() => void> {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, 'owner.json');
  const gate = join(folder, 'owner.takeover');
  for (let attempt = 0; ; attempt++) {
    try {
      mkdirSync(gate);
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      const age = Date.now() - (statSync(gate, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
      if (age > TAKEOVER_MS) rmSync(gate, { recursive: true, force: true });
      else if (attempt > (TAKEOVER_MS * 2) / 20) throw new Error(`${gate} does not go away; remove it by hand.`);
      else await sleep(20);
    }
  }
  try {
    const owner = readOwner(path);
    if (owner !== undefined && isAlive(owner)) throw new WorkspaceInUseError(owner, workspace);
    const mine: Owner = {
      pid: process.pid,
      startTime: processStat(process.pid)?.startTime ?? '',
      bootId: bootId(),
      host: hostname(),
      token: randomBytes(16).toString('hex'),
      since: new Date().toISOString(),
    };
    writeFileSync(path, JSON.stringify(mine), { mode: 0o600 });
    return () => {
      if (readOwner(path)?.token === mine.token) rmSync(path, { force: true });
    };
  } finally {
    rmdirSync(gate);
  }
}
