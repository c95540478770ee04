/** What this machine, or the container around this process, lets a process use: cores and memory, and whether memory ran out. */
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';

const MIB = 1024 * 1024;
/** Version 1 writes "no limit" as a huge number. */
const NO_LIMIT = 2 ** 60;

interface Cgroup {
  version: 1 | 2;
  /** The process's own folder first, then its parents. A container often sees only the last. */
  folders: string[];
}

function ancestors(mount: string, path: string): string[] {
  const parts = path.split('/').filter((part) => part !== '' && part !== '..');
  const folders: string[] = [];
  for (let length = parts.length; length >= 0; length--) folders.push([mount, ...parts.slice(0, length)].join('/'));
  return folders;
}

/** Control groups of a process that govern `controller`; empty where there are none. */
function cgroups(pid: number | 'self', controller: 'memory' | 'cpu'): Cgroup[] {
  let lines: string[];
  try {
    lines = readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().split('\n');
  } catch {
    return [];
  }
  const found: Cgroup[] = [];
  for (const line of lines) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) continue;
    if (controllers === '') found.push({ version: 2, folders: ancestors('/sys/fs/cgroup', path) });
    else if (controllers.split(',').includes(controller)) {
      found.push({ version: 1, folders: ancestors(`/sys/fs/cgroup/${controller}`, path) });
    }
  }
  return found;
}

function readNumber(file: string): number | undefined {
  try {
    const value = Number(readFileSync(file, 'utf8').trim());
    return Number.isFinite(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Cores this process may use at once: its affinity mask, further limited by the container's CPU quota. */
export function usableCores(): number {
  let cores = availableParallelism();
  for (const { version, folders } of cgroups('self', 'cpu')) {
    for (const folder of folders) {
      let quota: number | undefined;
      let period: number | undefined;
      if (version === 2) {
        try {
          [quota, period] = readFileSync(`${folder}/cpu.max`, 'utf8').trim().split(' ').map(Number);
        } catch {}
      } else {
        quota = readNumber(`${folder}/cpu.cfs_quota_us`);
        period = readNumber(`${folder}/cpu.cfs_period_us`);
      }
      if (quota !== undefined && period !== undefined && quota > 0 && period > 0) {
        cores = Math.min(cores, Math.max(1, Math.ceil(quota / period)));
      }
    }
  }
  return cores;
}

/** Memory of a process at one moment; MiB. */
export interface MemorySample {
  rssMb: number;
  peakMb: number;
  /** The smallest limit over the process: its control groups' or the machine's memory. */
  limitMb: number;
  /** Reads again how many processes of that control group the kernel has killed for want of memory; undefined when unknown. */
  oomKills(): number | undefined;
}

function killsIn(file: string): number | undefined {
  try {
    const found = /^oom_kill (\d+)$/m.exec(readFileSync(file, 'utf8'));
    return found?.[1] === undefined ? undefined : Number(found[1]);
  } catch {
    return undefined;
  }
}

/** Undefined when the process is gone. */
export async function sampleMemory(pid: number): Promise<MemorySample | undefined> {
  let status: string;
  try {
    status = await readFile(`/proc/${pid}/status`, 'utf8');
  } catch {
    return undefined;
  }
  const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0);
  let limit = totalmem();
  const counters: string[] = [];
  for (const { version, folders } of cgroups(pid, 'memory')) {
    for (const folder of folders) {
      const max = readNumber(`${folder}/${version === 2 ? 'memory.max' : 'memory.limit_in_bytes'}`);
      if (max !== undefined && max < NO_LIMIT) limit = Math.min(limit, max);
    }
    const counter = folders
      .map((folder) => `${folder}/${version === 2 ? 'memory.events' : 'memory.oom_control'}`)
      .find((file) => killsIn(file) !== undefined);
    if (counter !== undefined) counters.push(counter);
  }
  // The system-wide counter is the last resort: other containers' victims are in it as well.
  const file = counters[0] ?? '/proc/vmstat';
  return {
    rssMb: Math.round(kib('VmRSS') / 1024),
    peakMb: Math.round(kib('VmHWM') / 1024),
    limitMb: Math.round(limit / MIB),
    oomKills: () => killsIn(file),
  };
}
