/**
 * A compute host: a process that loads the engine and runs jobs for the API process. It may die at any moment without harm to that.
 *
 *   node host/main.js             job protocol over Node's IPC channel
 *   node host/main.js --stdio[=N] job protocol as JSON lines: in on standard input, out on descriptor N (default 1)
 */
import { rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { Piscina } from 'piscina';
import { EventCoalescer, eventsDelivered } from '../event-coalescer.js';
import { failed } from '../host-end.js';
import type { JobEvent, JobOutcome, JobSpec } from '../jobs.gen.js';
import { loadAddon, type NativeAddon } from '../native-addon.js';
import type { DeviceInfo } from '../ports.js';
import { type HostEndReason, HostExit, PROTOCOL_VERSION, type ToHost } from '../protocol.js';
import { runOnnx } from './onnx-child.js';
import { ipcTransport, streamTransport, type Transport } from './transport.js';
import type { NativeCall } from './worker.js';

const PARENT_CHECK_MS = 1_000;
const STOP_RETRY_MS = 100;
/** Time for the last messages to leave. */
const FLUSH_MS = 1_000;
/** Longest conversion: its caller waits for it. */
const CONVERT_MS = 5 * 60_000;
/** The server sends SIGKILL at the end of its grace; this host gives up a little earlier by itself. */
const TERM_SHARE = 0.8;

const number = (name: string, otherwise: number): number => {
  const value = Number(process.env[name]);
  return Number.isFinite(value) && value > 0 ? value : otherwise;
};

interface Running {
  stop: boolean;
  /** Ends the process of ONNX Runtime. */
  readonly onnx: AbortController;
}

interface Ending {
  reason: HostEndReason;
  code: number;
  message: string;
}

class Host {
  readonly #transport: Transport;
  readonly #events: EventCoalescer;
  readonly #pool: Piscina<NativeCall, unknown>;
  readonly #jobs = new Map<string, Running>();
  #addon: NativeAddon | undefined;
  #ending: Ending | undefined;
  #exiting = false;

  constructor(stdio: number | undefined, path: string) {
    const events = { message: (message: ToHost) => this.#receive(message), lost: (why: string) => this.#orphaned(why) };
    this.#transport = stdio === undefined ? ipcTransport(events) : streamTransport(stdio, events);
    this.#events = new EventCoalescer(
      (id, event) => void this.#transport.send({ t: 'event', id, event }),
      this.#transport.congested,
    );
    this.#pool = new Piscina<NativeCall, unknown>({
      filename: fileURLToPath(new URL('./worker.js', import.meta.url)),
      minThreads: 0,
      // One more than jobs, so that a question about devices does not wait for a job.
      maxThreads: number('OARLOCK_HOST_THREADS', 1) + 1,
      idleTimeout: Number.POSITIVE_INFINITY,
      recordTiming: false,
      workerData: { addon: path },
    });
    const parent = process.ppid;
    setInterval(() => process.ppid !== parent && this.#orphaned('its parent process ended'), PARENT_CHECK_MS);
    setInterval(() => this.#repeatStops(), STOP_RETRY_MS).unref();
    process.on('SIGTERM', () => this.#terminated());
    process.on('SIGINT', () => {}); // the terminal's Ctrl-C is the server's business
    process.on('SIGHUP', () => this.#orphaned('its terminal was closed'));
    // A closed standard error must not end a host that still has to checkpoint.
    for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  }

  async start(path: string): Promise<void> {
    try {
      this.#addon = await loadAddon(path);
      this.#addon.subscribe((id, json) => this.#events.push(id, JSON.parse(json) as JobEvent));
    } catch (error) {
      const message = `the engine cannot be loaded: ${error instanceof Error ? error.message : String(error)}`;
      await this.#exit({ reason: 'engine_unavailable', code: HostExit.engineUnavailable, message });
      return;
    }
    const version = this.#addon.version?.() ?? 'unknown';
    await this.#transport.send({ t: 'ready', protocol: PROTOCOL_VERSION, pid: process.pid, version });
  }

  #receive(message: ToHost): void {
    switch (message.t) {
      case 'run':
        void this.#run(message.id, message.spec);
        return;
      case 'control': {
        const job = this.#jobs.get(message.id);
        if (job !== undefined) this.#stop(message.id, job);
        return;
      }
      case 'ping':
        void this.#transport.send({ t: 'pong', seq: message.seq });
        return;
      case 'devices':
        void this.#devices(message.seq);
        return;
      case 'end':
        this.#endAfterJobs({ reason: 'done', code: HostExit.done, message: 'it was asked to end' });
        return;
    }
  }

  async #run(id: string, spec: JobSpec): Promise<void> {
    if (this.#jobs.has(id) || this.#ending !== undefined) {
      const outcome = failed('internal', `Job ${id} cannot be taken: the host is ending or runs it already.`, {
        retryable: true,
      });
      await this.#transport.send({ t: 'outcome', id, outcome });
      return;
    }
    const job: Running = { stop: false, onnx: new AbortController() };
    this.#jobs.set(id, job);
    const outcome = spec.kind === 'lite' ? await this.#convert(spec, job) : await this.#native(id, spec, job);
    await eventsDelivered();
    this.#events.finish(id);
    this.#jobs.delete(id);
    await this.#transport.send({ t: 'outcome', id, outcome });
    if (outcome.type === 'failed' && outcome.code === 'device_fault') {
      // The context of a failed GPU is unusable for the rest of the process's life: other jobs here fail with the same reason.
      await this.#exit({ reason: 'device_fault', code: HostExit.deviceFault, message: outcome.message });
    } else if (this.#ending !== undefined && this.#jobs.size === 0) {
      await this.#exit(this.#ending);
    }
  }

  async #native(id: string, spec: JobSpec, job: Running): Promise<JobOutcome> {
    try {
      const json = await this.#pool.run({ fn: 'runJob', args: [id, JSON.stringify(spec)] });
      const outcome = JSON.parse(String(json)) as JobOutcome;
      return outcome.type === 'export' ? await this.#measured(id, outcome, job) : outcome;
    } catch (error) {
      // A caught panic, or a job thread that ran out of script memory.
      const message = error instanceof Error ? error.message : String(error);
      return failed('internal', `The engine failed unexpectedly: ${message}`, { context: { reason: 'panic' } });
    }
  }

  /** An export is whole before it is measured; when that fails, the user is told. */
  async #measured(id: string, outcome: JobOutcome & { type: 'export' }, job: Running): Promise<JobOutcome> {
    const { measure: spec, ...exported } = outcome;
    if (spec === undefined) return outcome;
    const onProgress = (done: number, total: number): void =>
      this.#events.push(id, { type: 'progress', done, total, stage: 'measuring' });
    onProgress(0, 1);
    const reply = await runOnnx({ task: 'measure', spec }, { signal: job.onnx.signal, onProgress });
    const truth = spec.task.kind === 'boxes' ? spec.task.truth : null;
    for (const path of [spec.probe.path, spec.fp32, truth]) if (path !== null) await rm(path, { force: true });
    if (reply.t === 'measured') return { ...exported, measured: reply.result };
    if (job.stop) return failed('cancelled', 'The job was stopped.', { context: { reason: 'stopped' } });
    const why = reply.t === 'failed' ? reply.message : 'it gave another answer';
    const note = `ONNX Runtime could not measure the exported model: ${why}.`;
    return { ...exported, notes: [...(exported.notes ?? []), note] };
  }

  async #convert(spec: JobSpec & { kind: 'lite' }, job: Running): Promise<JobOutcome> {
    const reply = await runOnnx({ task: 'convert', spec }, { signal: job.onnx.signal, limitMs: CONVERT_MS });
    if (reply.t === 'converted') return { type: 'lite', ...reply.result };
    if (job.stop) return failed('cancelled', 'The job was stopped.', { context: { reason: 'stopped' } });
    const why = reply.t === 'failed' ? reply.message : 'it gave another answer';
    return failed('invalid_data', `The model could not be converted: ${why}.`);
  }

  #stop(id: string, job: Running): void {
    job.stop = true;
    job.onnx.abort();
    this.#addon?.control(id, 'stop');
  }

  /** A stop may come before the job has reached native code; repeating it does no harm. */
  #repeatStops(): void {
    for (const [id, job] of this.#jobs) if (job.stop) this.#stop(id, job);
  }

  async #devices(seq: number): Promise<void> {
    let answer: { gpus: DeviceInfo[]; reason: string | null };
    try {
      if (this.#addon?.devices === undefined) throw new Error('the engine knows no devices');
      const json = await this.#pool.run({ fn: 'devices', args: [] });
      const { gpus, reason } = JSON.parse(String(json)) as Partial<typeof answer>;
      answer = { gpus: Array.isArray(gpus) ? gpus : [], reason: reason ?? null };
    } catch (error) {
      answer = { gpus: [], reason: error instanceof Error ? error.message : String(error) };
    }
    await this.#transport.send({ t: 'devices', seq, ...answer });
  }

  #endAfterJobs(ending: Ending): void {
    this.#ending ??= ending;
    for (const [id, job] of this.#jobs) this.#stop(id, job);
    if (this.#jobs.size === 0) void this.#exit(this.#ending);
  }

  /** Jobs checkpoint at their next step; a job that does not come to one goes down with its process. */
  #orphaned(why: string): void {
    if (this.#ending?.reason === 'orphaned') return;
    process.stderr.write(`Compute host ${process.pid} lost its server: ${why}. It stops its jobs and ends.\n`);
    // Overrides an earlier reason: nobody is left to send SIGKILL.
    this.#ending = { reason: 'orphaned', code: HostExit.orphaned, message: `it lost its server: ${why}` };
    setTimeout(() => killOwnGroup(), number('OARLOCK_ORPHAN_GRACE_MS', 60_000));
    this.#endAfterJobs(this.#ending);
  }

  #terminated(): void {
    setTimeout(() => killOwnGroup(), TERM_SHARE * number('OARLOCK_TERM_GRACE_MS', 10_000)).unref();
    this.#endAfterJobs({ reason: 'terminated', code: HostExit.terminated, message: 'it received SIGTERM' });
  }

  async #exit({ reason, code, message }: Ending): Promise<void> {
    if (this.#exiting) return;
    this.#exiting = true;
    const flushed = this.#transport.send({ t: 'ending', reason, message });
    await Promise.race([flushed, new Promise((resolve) => setTimeout(resolve, FLUSH_MS))]);
    // Leaving in order would wait for threads inside native code.
    if (this.#jobs.size > 0) killOwnGroup();
    process.exit(code);
  }
}

/** The host leads its group; what it started ends with it. */
function killOwnGroup(): void {
  try {
    process.kill(-process.pid, 'SIGKILL');
  } catch {
    process.kill(process.pid, 'SIGKILL');
  }
}

const enginePath = process.env.OARLOCK_ENGINE_ADDON;
const stdio = process.argv.map((word) => /^--stdio(?:=(\d+))?$/.exec(word)).find((match) => match !== null);
if (enginePath === undefined || (stdio === undefined && process.send === undefined)) {
  process.stderr.write('A compute host is started by the Oarlock server, not by hand.\n');
  process.exitCode = HostExit.badUse;
} else {
  const host = new Host(stdio === undefined ? undefined : Number(stdio[1] ?? 1), enginePath);
  await host.start(enginePath);
}
