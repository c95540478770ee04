/** One compute host as the API process sees it: starting, jobs, signs of life, and its end with the true reason. */
import { randomBytes } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import type { ComputeConfig } from './config.js';
import { type EndCause, failed, type HostEnd, outcomeOfEnd } from './host-end.js';
import type { HostRegistry } from './host-registry.js';
import { HostWatch, type WatchedHost } from './host-watch.js';
import { type ProcessIdentity, processesWithToken, processStat, signalGroup, signalProcess } from './identity.js';
import type { Job } from './job.js';
import { Tail } from './job-log.js';
import type { JobOutcome } from './jobs.gen.js';
import type { HostLink } from './launcher.js';
import type { Logger } from './logger.js';
import type { DeviceInfo, Lane } from './ports.js';
import { hostEnvironment, yieldToServer } from './priority.js';
import { asFromHost, type FromHost, PROTOCOL_VERSION, type ToHost } from './protocol.js';
import { Questions } from './questions.js';
import { RunningJob } from './running-job.js';

/** A host that announced its end and has no work gets this long. */
const LAST_WORDS_MS = 3_000;

export interface HostOptions {
  key: string;
  lane: Lane;
  /** CUDA ordinals its jobs use; empty = CPU only; undefined = any. */
  cuda: readonly number[] | undefined;
  config: ComputeConfig;
  logger: Logger;
  registry: HostRegistry;
  /** The process is gone and all its jobs have their outcomes. */
  onEnded(host: HostProcess, expected: boolean): void;
}

export class HostProcess implements WatchedHost {
  readonly key: string;
  readonly lane: Lane;
  readonly cuda: readonly number[] | undefined;
  /** True when the host takes jobs, false when it ended before. */
  readonly ready: Promise<boolean>;
  readonly ended: Promise<void>;
  idleSince = performance.now();

  #phase: 'starting' | 'ready' | 'ending' | 'ended' = 'starting';
  readonly #config: ComputeConfig;
  readonly #logger: Logger;
  readonly #options: HostOptions;
  readonly #token = randomBytes(16).toString('hex');
  readonly #link: HostLink;
  #identity: ProcessIdentity | undefined;
  readonly #jobs = new Map<string, RunningJob>();
  readonly #tail = new Tail();
  readonly #questions = new Questions<FromHost>();
  #isReady!: (ready: boolean) => void;
  #hasEnded!: () => void;
  #cause: EndCause | undefined;
  #announced: HostEnd['announced'];
  #end: HostEnd | undefined;
  #watch: HostWatch | undefined;
  #idleTimer: NodeJS.Timeout | undefined;
  #startTimer: NodeJS.Timeout | undefined;
  #killTimer: NodeJS.Timeout | undefined;

  constructor(options: HostOptions) {
    this.#options = options;
    this.key = options.key;
    this.lane = options.lane;
    this.cuda = options.cuda;
    this.#config = options.config;
    this.#logger = options.logger;
    this.ready = new Promise((resolve) => {
      this.#isReady = resolve;
    });
    this.ended = new Promise((resolve) => {
      this.#hasEnded = resolve;
    });
    const { config } = options;
    const env = hostEnvironment(this.#token, config.engineAddon, options.cuda, {
      OARLOCK_ORPHAN_GRACE_MS: String(config.orphanGraceMs),
      OARLOCK_TERM_GRACE_MS: String(config.termGraceMs),
      OARLOCK_IMAGING_ADDON: config.imagingAddon,
      OARLOCK_HOST_THREADS: String(options.lane === 'interactive' ? config.interactiveConcurrency : 1),
      ...config.hostEnv,
    });
    this.#link = config.launcher.launch(env, {
      message: (value) => this.#receive(value),
      output: (text) => this.#output(text),
      broken: (reason) => this.terminate({ kind: 'protocol', message: reason }),
      closed: (end) => void this.#closed(end),
    });
    const { pid } = this.#link;
    if (pid === undefined) return; // `closed` follows with the reason
    if (config.yieldToServer) yieldToServer(pid, this.lane);
    this.#identity = { pid, startTime: processStat(pid)?.startTime ?? '', token: this.#token };
    this.#startTimer = setTimeout(() => this.#startTooSlow(), config.startMs);
    this.#watch = new HostWatch(this, config, options.logger);
    this.#logger.info({ pid, lane: this.lane, key: this.key }, 'compute host started');
  }

  get pid(): number {
    return this.#link.pid ?? 0;
  }

  get jobIds(): string[] {
    return [...this.#jobs.keys()];
  }

  /** Whether it takes jobs now or will when it has started. */
  get usable(): boolean {
    return this.#phase === 'starting' || this.#phase === 'ready';
  }

  get isReady(): boolean {
    return this.#phase === 'ready';
  }

  get isEnded(): boolean {
    return this.#phase === 'ended';
  }

  get runningJobs(): Iterable<RunningJob> {
    return this.#jobs.values();
  }

  /** Hands a job over; it always gets an outcome, also when the host is already gone. */
  run(job: Job): void {
    if (this.#phase !== 'ready') {
      job.finish(this.#outcomeOfLateJob(job));
      return;
    }
    clearTimeout(this.#idleTimer);
    const running = new RunningJob(job);
    this.#jobs.set(job.id, running);
    job.silentMs = 0;
    job.onStop = () => this.#stopJob(running);
    job.setState('running');
    this.#send({ t: 'run', id: job.id, spec: job.request.spec });
  }

  sendPing(): void {
    this.#send({ t: 'ping', seq: 0 });
  }

  /** Whether the host's main thread answers within the time. */
  async ping(withinMs: number): Promise<boolean> {
    return (await this.#questions.ask((seq) => this.#send({ t: 'ping', seq }), withinMs)) !== undefined;
  }

  /** Devices as the engine sees them; undefined when the host does not answer in time. */
  async devices(withinMs: number): Promise<{ gpus: DeviceInfo[]; reason: string | null } | undefined> {
    const answer = await this.#questions.ask((seq) => this.#send({ t: 'devices', seq }), withinMs);
    return answer?.t === 'devices' ? { gpus: answer.gpus, reason: answer.reason } : undefined;
  }

  /** Ends a host without work in good order. */
  end(cause: EndCause): void {
    if (!this.usable) return;
    this.#phase = 'ending';
    this.#cause ??= cause;
    this.#send({ t: 'end' });
    this.#killTimer ??= setTimeout(() => this.terminate(cause), this.#config.termGraceMs);
  }

  /** SIGTERM to the whole group, SIGKILL when that does not end it in time. */
  terminate(cause: EndCause, graceMs = this.#config.termGraceMs): void {
    if (this.#phase === 'ended') return;
    this.#phase = 'ending';
    this.#cause ??= cause;
    this.#signal('SIGTERM');
    // A stopped process acts on SIGTERM only when it is continued.
    this.#signal('SIGCONT');
    clearTimeout(this.#killTimer);
    this.#killTimer = setTimeout(() => this.kill(), graceMs);
  }

  kill(cause?: EndCause): void {
    if (cause !== undefined) this.#cause ??= cause;
    if (this.#phase !== 'ended') this.#phase = 'ending';
    this.#signal('SIGKILL');
  }

  #signal(signal: NodeJS.Signals): void {
    if (this.#phase === 'ended') return;
    const sent = this.#identity !== undefined && signalGroup(this.#identity, signal);
    // Not yet reaped, so the number is still this child's.
    if (!sent) this.#link.kill(signal);
  }

  #send(message: ToHost): void {
    this.#link.send(message);
  }

  #receive(value: unknown): void {
    const message = asFromHost(value);
    if (message === undefined) {
      this.#logger.warn({ pid: this.pid }, 'a compute host sent a message that is not of the job protocol');
      return;
    }
    this.#watch?.heard();
    switch (message.t) {
      case 'ready':
        void this.#becameReady(message);
        return;
      case 'pong':
      case 'devices':
        this.#questions.answer(message.seq, message);
        return;
      case 'event':
        this.#jobs.get(message.id)?.job.event(message.event);
        return;
      case 'outcome':
        this.#finished(message.id, message.outcome);
        return;
      case 'log':
        this.#logger[message.level]?.({ pid: this.pid }, message.message);
        return;
      case 'ending':
        this.#announced = { reason: message.reason, message: message.message };
        this.#phase = 'ending';
        // Exit handlers of a broken driver may hang.
        if (this.#jobs.size === 0 || message.reason === 'device_fault') {
          clearTimeout(this.#killTimer);
          this.#killTimer = setTimeout(() => this.kill(), LAST_WORDS_MS);
        }
        return;
    }
  }

  async #becameReady(message: Extract<FromHost, { t: 'ready' }>): Promise<void> {
    if (this.#phase !== 'starting') return;
    if (message.protocol !== PROTOCOL_VERSION) {
      this.terminate({
        kind: 'protocol',
        message: `it speaks version ${message.protocol}, the server ${PROTOCOL_VERSION}`,
      });
      return;
    }
    clearTimeout(this.#startTimer);
    if (this.#config.yieldToServer) yieldToServer(this.pid, this.lane); // threads started meanwhile
    // On disk before the first job: a server that dies now must find this host again.
    if (this.#identity !== undefined) await this.#options.registry.add(this.#identity, this.lane);
    if (this.#phase !== 'starting') return;
    this.#phase = 'ready';
    this.#becomeIdle();
    this.#isReady(true);
  }

  #startTooSlow(): void {
    this.#announced = {
      reason: 'engine_unavailable',
      message: `it was not ready after ${this.#config.startMs / 1000} s.`,
    };
    this.kill();
  }

  #finished(id: string, outcome: JobOutcome): void {
    const running = this.#jobs.get(id);
    if (running === undefined) return;
    this.#jobs.delete(id);
    // The host is about to end itself; nothing new may go to it.
    if (outcome.type === 'failed' && outcome.code === 'device_fault') this.#phase = 'ending';
    if (this.#jobs.size === 0) this.#becomeIdle();
    // A hanging job may come to itself when its host is told to end: it stopped, but nobody had asked it to.
    const unasked = outcome.type === 'train' && outcome.stopped && !running.job.stopRequested;
    const ownEnd = unasked && this.#cause !== undefined;
    void running.conclude(ownEnd ? outcomeOfEnd(this.#describeEnd({ code: null, signal: null }), id) : outcome);
  }

  #becomeIdle(): void {
    this.idleSince = performance.now();
    clearTimeout(this.#idleTimer);
    const after = this.lane === 'train' ? this.#config.trainIdleMs : this.#config.interactiveIdleMs;
    this.#idleTimer = setTimeout(() => this.#jobs.size === 0 && this.end({ kind: 'idle' }), after);
    this.#idleTimer.unref();
  }

  #output(text: string): void {
    this.#tail.push(text);
    for (const { log } of this.#jobs.values()) log.write(text);
    this.#logger.debug({ pid: this.pid, text }, 'output of a compute host');
  }

  #stopJob(running: RunningJob): void {
    const { job } = running;
    if (this.#jobs.get(job.id) !== running) return; // its outcome is on the way
    job.setState('stopping');
    this.#send({ t: 'control', id: job.id, command: 'stop' });
    // It ends at its next step at the earliest.
    const grace = Math.max(this.#config.stopGraceMs, 2 * job.longestStepMs);
    running.stopTimer = setTimeout(
      () => this.terminate({ kind: 'stop', job: job.id, seconds: Math.round(grace / 1000) }),
      grace,
    );
  }

  // --- the end ---

  #causeField(): { cause?: EndCause } {
    return this.#cause === undefined ? {} : { cause: this.#cause };
  }

  #describeEnd(end: { code: number | null; signal: NodeJS.Signals | null; startError?: string }): HostEnd {
    const described: HostEnd = { ...end, ...this.#causeField(), stderr: this.#tail.lines };
    if (this.#announced !== undefined) described.announced = this.#announced;
    else if (this.#phase === 'starting' && end.startError === undefined) {
      const how = end.signal === null ? `exit code ${end.code}` : end.signal;
      described.startError = `it ended while starting (${how}). ${this.#tail.lines.at(-1) ?? ''}`.trim();
    }
    const memory = this.#watch?.memory();
    if (memory !== undefined) described.memory = memory;
    return described;
  }

  async #closed(result: { code: number | null; signal: NodeJS.Signals | null; startError?: string }): Promise<void> {
    const end = this.#describeEnd(result);
    this.#end = end;
    const deviceFault = this.#announced?.reason === 'device_fault';
    const expected = this.#cause?.kind === 'idle' || this.#cause?.kind === 'shutdown';
    this.#phase = 'ended';
    this.#watch?.close();
    for (const timer of [this.#idleTimer, this.#startTimer, this.#killTimer]) clearTimeout(timer);
    this.#questions.close();
    // Whatever the host started goes with it, also what left its group; only then is the device free.
    if (this.#identity !== undefined) {
      for (const identity of await processesWithToken(this.#token)) signalProcess(identity, 'SIGKILL');
    }
    await this.#options.registry.remove(this.#token);
    const fields = {
      pid: this.pid,
      key: this.key,
      code: end.code,
      signal: end.signal,
      cause: end.cause,
      jobs: this.jobIds,
    };
    if (expected) this.#logger.info(fields, 'compute host ended');
    else this.#logger.warn({ ...fields, deviceFault, stderr: end.stderr.slice(-5) }, 'compute host ended unexpectedly');
    const running = [...this.#jobs.values()];
    this.#jobs.clear();
    await Promise.all(
      running.map((one) => {
        const outcome = outcomeOfEnd(end, one.job.id);
        if (outcome.type === 'failed') one.log.write(`${outcome.message}\n`);
        return one.conclude(outcome);
      }),
    );
    this.#isReady(false);
    this.#options.onEnded(this, expected);
    this.#hasEnded();
  }

  #outcomeOfLateJob(job: Job): JobOutcome {
    if (this.#end !== undefined) return outcomeOfEnd(this.#end, job.id);
    return failed('internal', 'The compute host was ending.', { context: { reason: 'host_ending' }, retryable: true });
  }
}
