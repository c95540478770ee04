/** Who a process is: pid, start time and a random token in its environment. A pid alone is never trusted, since the system gives it out again. */
import { readdirSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { TOKEN_VARIABLE } from './protocol.js';

export interface ProcessIdentity {
  pid: number;
  /** Clock ticks between boot and the start of the process (`/proc/<pid>/stat`, field 22), as text: it exceeds no integer but is only compared. */
  startTime: string;
  token: string;
}

export interface ProcessStat {
  /** `R`, `S`, `D`, `T` (stopped), `Z` (ended, not yet reaped) … */
  state: string;
  parent: number;
  group: number;
  startTime: string;
  /** Processor time of all threads in clock ticks (1/100 s). */
  cpuTicks: number;
}

function parseStat(text: string): ProcessStat {
  // The command name stands in parentheses and may itself contain spaces and parentheses.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return {
    state: fields[0] ?? '?',
    parent: Number(fields[1]),
    group: Number(fields[2]),
    cpuTicks: Number(fields[11]) + Number(fields[12]),
    startTime: fields[19] ?? '',
  };
}

/** Undefined when there is no such process or no `/proc`. */
export function processStat(pid: number): ProcessStat | undefined {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return undefined;
  }
}

function hasToken(environ: string, token: string): boolean {
  return environ.split('\0').includes(`${TOKEN_VARIABLE}=${token}`);
}

/** Whether exactly this process is still there (an ended but unreaped one is not). */
export function isAlive(identity: ProcessIdentity): boolean {
  const stat = processStat(identity.pid);
  if (stat === undefined || stat.state === 'Z' || stat.state === 'X' || stat.startTime !== identity.startTime)
    return false;
  try {
    return hasToken(readFileSync(`/proc/${identity.pid}/environ`, 'latin1'), identity.token);
  } catch {
    return false;
  }
}

/** All living processes that carry the token: a host and whatever it started, also after the host itself ended. */
export async function processesWithToken(token: string): Promise<ProcessIdentity[]> {
  let entries: string[];
  try {
    entries = readdirSync('/proc');
  } catch {
    return [];
  }
  const found: ProcessIdentity[] = [];
  for (const entry of entries) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      if (!hasToken(await readFile(`/proc/${pid}/environ`, 'latin1'), token)) continue;
    } catch {
      continue; // ended meanwhile, or another user's
    }
    const stat = processStat(pid);
    if (stat !== undefined && stat.state !== 'Z') found.push({ pid, startTime: stat.startTime, token });
  }
  return found;
}

/** Sends a signal to exactly this process; false when it is gone. */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isAlive(identity)) return false;
  try {
    return process.kill(identity.pid, signal);
  } catch {
    return false;
  }
}

/** Sends a signal to the group led by this process; false when the leader is gone. */
export function signalGroup(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isAlive(identity)) return false;
  try {
    // A leader holds its group's number, so this cannot hit a stranger's group.
    const own = processStat(identity.pid)?.group === identity.pid;
    return process.kill(own ? -identity.pid : identity.pid, signal);
  } catch {
    return false;
  }
}
