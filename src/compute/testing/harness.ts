/** What the tests of supervision share: a compute layer with short times over the fault-injection addon, and helpers to watch it. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createCompute } from '../compute.js';
import type { ComputeConfig } from '../config.js';
import type { JobEvent, JobOutcome } from '../jobs.gen.js';
import type { Logger } from '../logger.js';
import type { Compute, JobHandle, JobRequest, JobState } from '../ports.js';
import { type Fault, faultSpec } from './fault-addon.js';

export const FAULT_ADDON = fileURLToPath(new URL('./fault-addon.js', import.meta.url));

const say =
  (level: string) =>
  (fields: object, message: string): void => {
    if (process.env.OARLOCK_TEST_LOG) console.log(level, message, fields);
  };
export const quiet: Logger = { debug: say('debug'), info: say('info'), warn: say('warn'), error: say('error') };

export const SHORT: Partial<ComputeConfig> = {
  engineAddon: FAULT_ADDON,
  imagingAddon: FAULT_ADDON,
  stallMs: 20_000,
  stopGraceMs: 10_000,
  termGraceMs: 3_000,
  orphanGraceMs: 3_000,
  stackDumpMs: 0,
  // Beside a build or another test they would start slowly.
  yieldToServer: false,
};

export function workspace(): string {
  const folder = mkdtempSync(join(tmpdir(), `oarlock-compute-${process.pid}-`));
  // Not in `t.after`: what is closed there later still writes.
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Closed when the test ends. */
export function testCompute(t: TestContext, config: Partial<ComputeConfig> = {}): Compute {
  const compute = createCompute({ workspace: config.workspace ?? workspace(), ...SHORT, ...config }, quiet);
  t.after(() => compute.close(2_000));
  return compute;
}

let counter = 0;

export interface Watched {
  id: string;
  handle: JobHandle;
  states: { state: JobState; position?: number | undefined; message?: string | undefined; at: number }[];
  events: { event: JobEvent; at: number }[];
  /** Resolves when the job reports this state. */
  reach(state: JobState): Promise<void>;
  /** Resolves with the first event of the type. */
  first(type: JobEvent['type']): Promise<JobEvent>;
}

export function submit(compute: Compute, fault: Fault, request: Partial<JobRequest> = {}): Watched {
  return watch(compute, { spec: faultSpec(fault), ...request });
}

/** Submits a job, by default a CPU training, and records what it reports. */
export function watch(compute: Compute, request: Partial<JobRequest> & Pick<JobRequest, 'spec'>): Watched {
  const states: Watched['states'] = [];
  const events: Watched['events'] = [];
  const until = async <T>(what: string, find: () => T | undefined): Promise<T> => {
    for (const start = Date.now(); Date.now() - start < 30_000; await sleep(5)) {
      const found = find();
      if (found !== undefined) return found;
    }
    throw new Error(`${what} did not come; states: ${JSON.stringify(states)}`);
  };
  const id = request.id ?? `job-${++counter}`;
  const handle = compute.submit({
    id,
    lane: 'train',
    devices: [],
    onState: (state, { queuePosition, message }) =>
      states.push({ state, position: queuePosition, message, at: Date.now() }),
    onEvent: (event) => events.push({ event, at: Date.now() }),
    ...request,
  });
  return {
    id,
    handle,
    states,
    events,
    reach: async (state) => void (await until(`state ${state}`, () => states.find((entry) => entry.state === state))),
    first: (type) => until(`event ${type}`, () => events.find(({ event }) => event.type === type)?.event),
  };
}

export type Failure = Extract<JobOutcome, { type: 'failed' }>;

export async function failure(handle: JobHandle): Promise<Failure> {
  const outcome = await handle.outcome;
  if (outcome.type !== 'failed') throw new Error(`the job did not fail: ${JSON.stringify(outcome)}`);
  return outcome;
}

/** Process of the host that runs the job. */
export function hostPid(compute: Compute, id: string): number {
  const host = compute.stats().hosts.find(({ jobs }) => jobs.includes(id));
  if (host === undefined) throw new Error(`no host runs ${id}`);
  return host.pid;
}

/** Whether a process runs (a zombie does not). */
export function runs(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

export async function ends(pid: number, withinMs: number): Promise<boolean> {
  for (const start = Date.now(); Date.now() - start < withinMs; await sleep(20)) if (!runs(pid)) return true;
  return !runs(pid);
}

export const openDescriptors = (): number => readdirSync('/proc/self/fd').length;
