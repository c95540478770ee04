/**
 * Stands in for a native addon in tests of supervision: it has the same exports, blocks its thread in the same way, and does on
 * demand what real engines do only by accident: crash, hang, ignore a stop, flood, run out of memory. Never loaded in production.
 */
import { spawn } from 'node:child_process';
import { writeSync } from 'node:fs';
import { BroadcastChannel, isMainThread, type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { failed } from '../host-end.js';
import type { JobEvent, JobOutcome, JobSpec } from '../jobs.gen.js';
import { TOKEN_VARIABLE } from '../protocol.js';

export type Fault =
  /** Steps with events, stoppable. */
  | { do: 'work'; steps: number; stepMs: number }
  /** No event for so long; `busy` burns the processor meanwhile. */
  | { do: 'silence'; ms: number; busy?: boolean }
  /** Beats for ever and ignores every stop. */
  | { do: 'deaf' }
  | { do: 'signal'; signal: NodeJS.Signals }
  | { do: 'exit'; code: number }
  | { do: 'panic' }
  | { do: 'device-fault' }
  /** Allocates and touches memory until something gives. */
  | { do: 'memory'; mb: number }
  /** Events as fast as possible; every 100th is followed by an evaluation. */
  | { do: 'flood'; steps: number }
  | { do: 'warnings'; count: number }
  /** An outcome of about so many bytes. */
  | { do: 'big'; bytes: number }
  /** Prints lines, then fails by a signal. */
  | { do: 'print'; lines: string[] }
  /** Starts a process in a session of its own and crashes. */
  | { do: 'orphan-child' }
  /** Reports one environment variable. */
  | { do: 'env'; name: string };

export const faultSpec = (fault: Fault): JobSpec => ({ kind: 'fault', ...fault }) as unknown as JobSpec;

const events = new BroadcastChannel('fault-events');
const commands = new BroadcastChannel('fault-commands');
events.unref();
commands.unref();

export function subscribe(sink: (jobId: string, eventJson: string) => void): void {
  events.onmessage = (message) => {
    const { id, json, exit } = (message as MessageEvent).data as { id: string; json: string; exit?: number };
    if (exit !== undefined) process.exit(exit);
    sink(id, json);
  };
}

export function control(jobId: string, command: 'stop'): boolean {
  commands.postMessage({ id: jobId, command });
  return true;
}

const stopped = new Set<string>();

function stopAsked(id: string): boolean {
  // Works on a broadcast channel too, which the types do not know.
  const port = commands as unknown as MessagePort;
  for (let got = receiveMessageOnPort(port); got !== undefined; got = receiveMessageOnPort(port)) {
    stopped.add((got.message as { id: string }).id);
  }
  return stopped.has(id);
}

const cell = new Int32Array(new SharedArrayBuffer(4));
const sleep = (ms: number): void => void Atomics.wait(cell, 0, 0, ms);
const send = (id: string, event: JobEvent): void => events.postMessage({ id, json: JSON.stringify(event) });

const step = (n: number, of: number): JobEvent => ({
  type: 'step',
  epoch: 1,
  num_epochs: 1,
  step: n,
  steps: of,
  metrics: { loss: 1 / n, lr: 0.1 },
  eta: null,
  step_seconds: 0.01,
  data_wait_seconds: 0,
  images_per_second: 100,
});

const trained = (done: boolean, report: Record<string, number> = {}): JobOutcome => ({
  type: 'train',
  stopped: !done,
  completed_epochs: done ? 1 : 0,
  best_epoch: null,
  best_metrics: report,
});

function run(id: string, fault: Fault): JobOutcome {
  switch (fault.do) {
    case 'work':
      send(id, { type: 'started', device: 'cpu', precision: 'fp32', notes: [] });
      for (let n = 1; n <= fault.steps; n++) {
        if (stopAsked(id)) return trained(false);
        sleep(fault.stepMs);
        send(id, step(n, fault.steps));
      }
      return trained(true);
    case 'silence': {
      const until = Date.now() + fault.ms;
      while (Date.now() < until) if (fault.busy !== true) sleep(20);
      return trained(true);
    }
    case 'deaf':
      for (;;) {
        send(id, { type: 'heartbeat', stage: 'deaf' });
        sleep(20);
      }
    case 'signal':
      send(id, { type: 'heartbeat', stage: 'crashing' });
      process.kill(process.pid, fault.signal);
      sleep(60_000);
      return trained(true);
    case 'exit':
      events.postMessage({ exit: fault.code });
      sleep(60_000);
      return trained(true);
    case 'panic':
      throw new Error('index out of bounds: the len is 3 but the index is 7');
    case 'device-fault':
      return failed('device_fault', 'CUDA error: device-side assert triggered');
    case 'memory': {
      const held: Buffer[] = [];
      for (let mb = 0; mb < fault.mb; mb += 8) {
        held.push(Buffer.alloc(8 << 20, 1));
        send(id, { type: 'heartbeat', stage: `${mb} MB` });
        sleep(2);
      }
      return trained(true, { held: held.length });
    }
    case 'flood':
      for (let n = 1; n <= fault.steps; n++) {
        send(id, step(n, fault.steps));
        if (n % 100 === 0) send(id, { type: 'eval', epoch: n / 100, metrics: { acc1: 0.5 } });
      }
      return trained(true);
    case 'warnings':
      for (let n = 0; n < fault.count; n++) send(id, { type: 'warning', message: `warning ${n}` });
      return trained(true);
    case 'big':
      return { type: 'evaluate', report: { text: 'x'.repeat(fault.bytes) } };
    case 'print':
      for (const line of fault.lines) writeSync(2, `${line}\n`);
      sleep(100);
      process.kill(process.pid, 'SIGABRT');
      sleep(60_000);
      return trained(true);
    case 'orphan-child': {
      const child = spawn('sleep', ['60'], { detached: true, stdio: 'ignore' });
      send(id, { type: 'warning', message: String(child.pid) });
      sleep(100);
      process.kill(process.pid, 'SIGKILL');
      sleep(60_000);
      return trained(true);
    }
    case 'env':
      return {
        type: 'evaluate',
        report: { value: process.env[fault.name] ?? null, token: process.env[TOKEN_VARIABLE] },
      };
  }
}

export function runJob(jobId: string, specJson: string): string {
  if (isMainThread) throw new Error('jobs belong on pool threads');
  return JSON.stringify(run(jobId, JSON.parse(specJson) as Fault));
}

export const devices = (): string =>
  JSON.stringify({ gpus: [{ kind: 'cuda', index: 0, name: 'Test', memoryTotalMb: 1, memoryFreeMb: 1 }], reason: null });

export const version = (): string => 'fault';

/** For the light pool: returns its arguments. */
export const echo = (...args: unknown[]): unknown[] => args;

/** For the light pool: blocks its thread. */
export function block(ms: number): string {
  sleep(ms);
  return 'done';
}

/** For the light pool: fails as native code does. */
export function fail(): never {
  throw new Error(JSON.stringify({ code: 'invalid_data', message: 'the image is truncated', context: { bytes: 3 } }));
}
